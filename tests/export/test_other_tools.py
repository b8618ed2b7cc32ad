"""Exports read back with MLflow's client, wandb's own messages and optuna-dashboard, in environments of their own.

Their packages want other versions than this one's environment has, so a test makes one with pip and lets the package
run there from this checkout. That takes minutes and the package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.record.run import Run
from tests.support.swept import report, swept

ROOT = Path(__file__).resolve().parents[2]
# Reading a run needs these, and neither torch nor Ray.
NEEDED = ("pyarrow", "pydantic", "click", "rich", "tensorboardx", "numpy", "ruamel.yaml", "optuna")
READERS = {
    "mlflow": """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=f"sqlite:///{sys.argv[1]}")
(experiment,) = [each for each in client.search_experiments() if each.name == "lr"]
found = []
for run in client.search_runs([experiment.experiment_id]):
    history = [[m.step, str(m.value)] for m in client.get_metric_history(run.info.run_id, "val_loss")]
    found.append([run.info.run_name, run.info.status, run.data.params.get("train.lr"), sorted(history),
                  run.data.metrics.get("best/val_loss"), run.info.run_id, run.info.start_time])
print(json.dumps(sorted(found)))
""",
    "wandb": """
import glob, json, sys
from wandb.proto import wandb_internal_pb2
def records(path):  # the framing is LevelDB's log, behind a header of 7 bytes; the records are wandb's own messages
    data, at, whole = open(path, "rb").read(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield whole
            whole = b""
found = []
for path in glob.glob(f"{sys.argv[1]}/wandb/offline-run-*/run-*.wandb"):
    history, name, config, summary, code = [], None, {}, {}, None
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            name, group = record.run.display_name, record.run.run_group
            config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            history.append([row.get("_step", record.history.step.num), str(row["val_loss"]), row["_timestamp"]])
        elif kind == "summary":
            summary |= {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.summary.update}
        elif kind == "exit":
            code = record.exit.exit_code
    found.append([name, group, config["sampled"]["train.lr"], history, summary.get("best/val_loss"), code, path])
print(json.dumps(sorted(found)))
""",
    "optuna-dashboard": """
import json, sys
from wsgiref.util import setup_testing_defaults
from optuna_dashboard import wsgi
app = wsgi(f"sqlite:///{sys.argv[1]}")
def asked(path):
    request, told = {}, []
    setup_testing_defaults(request)
    request["PATH_INFO"] = path
    body = b"".join(app(request, lambda status, headers, error=None: told.append(status)))
    assert told[0].startswith("200"), (told, body)
    return json.loads(body)
assert b"<html" in b"".join(app({**(lambda e: (setup_testing_defaults(e), e)[1])({}), "PATH_INFO": "/dashboard/"},
                                lambda *_: None)).lower()
(study,) = asked("/api/studies")["study_summaries"]
assert study["study_name"] == "lr"
found = []
for trial in asked(f"/api/studies/{study['study_id']}")["trials"]:
    params = {each["name"]: each["param_external_value"] for each in trial["params"]}
    title = f"{trial['number']:04d} {params['train.optimizer'].strip(chr(39))} lr={params['train.lr']}"
    history = [[each["step"], str(each["value"])] for each in trial["intermediate_values"]]
    attributes = {each["key"]: each["value"] for each in trial["user_attrs"]}
    best = attributes.get("val_loss")
    found.append([title, trial["state"], params["train.lr"], history, best and float(best)])
print(json.dumps(found))
""",
}
# Tool -> what `export --to` calls its form, and its file or folder.
FORMS = {"mlflow": ("mlflow", "m.db"), "wandb": ("wandb", "wandb"), "optuna-dashboard": ("optuna", "s.db")}


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tool -> environment in this folder. FASHION_TOOLS may name one that an earlier run has made."""
    given = os.environ.get("FASHION_TOOLS")
    folder = Path(given) if given else tmp_path_factory.mktemp("tools")
    for tool in READERS:
        if not (folder / tool / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", folder / tool], check=True)
            pip: list[str | Path] = [folder / tool / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, tool, *NEEDED], check=True, timeout=1200)
            # Without its dependencies, torch and Ray among them: its name and version are asked for.
            subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True, timeout=300)
            (folder / tool / "ready").touch()
    return folder


def exported(environments: Path, tool: str, run: Run, out: Path) -> list[list[object]]:
    """What the tool reads of an export that the package wrote in that tool's environment."""
    python = environments / tool / "bin" / "python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_SILENT": "true"}
    for arguments in (
        ["-m", "fashion", "export", str(run.path), "--to", FORMS[tool][0], "--out", str(out)],
        ["-c", READERS[tool], str(out)],
    ):
        done = subprocess.run(
            [python, *arguments], capture_output=True, text=True, env=environment, cwd=out.parent, timeout=600
        )
        assert done.returncode == 0, done.stderr
    found: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tool", READERS)
def test_the_tool_itself_reads_the_sweep(environments: Path, tool: str, tmp_path: Path) -> None:
    run, spec = swept(tmp_path / "runs")
    out = tmp_path / "out" / FORMS[tool][1]
    out.parent.mkdir()
    first = exported(environments, tool, run, out)
    assert len(first) == 4
    title, _, lr, history, best, *_ = first[0]
    assert str(title).startswith("0000 adamw lr=")
    assert float(str(lr)) == run.trials[0].config["train"]["lr"]
    assert isinstance(history, list)
    assert [(step, float(loss)) for step, loss, *_ in history] == [(1, 0.9), (2, 0.4), (3, 0.5), (4, 0.6)]
    assert best == pytest.approx(0.4)
    assert exported(environments, tool, run, out) == first, "a second export changes nothing"
    report(run, spec, 3, [0.7, 0.35])
    report(run, spec, 4, [0.9])
    grown = exported(environments, tool, run, out)
    assert grown[:3] == first[:3], "what was there stays"
    assert len(grown) == 5
    assert isinstance(grown[3][3], list)
    assert [step for step, *_ in grown[3][3]] == [1, 2, 3]
    assert grown[3][4] == pytest.approx(0.35)
