"""The real `fashion-sweep` in a process of its own, and what a sweep has recorded so far."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fashion.record import ranking
from fashion.record.run import Run
from tests.support.machines.descendants import title

PATIENCE = 400  # seconds for one command on a busy machine


def start(folder: Path, spec: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `fashion-sweep run SPEC` in `folder`, in a new session."""
    return subprocess.Popen(
        [sys.executable, "-m", "fashion", "run", spec, *arguments], cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


def wait_for_reports(
    process: subprocess.Popen[str], journal: Path, enough: Callable[[list[dict[str, Any]]], bool]
) -> None:
    """Wait until `enough` is true of the recorded reports. Fails when the command ends first."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if enough(recorded_reports(journal)):
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"the reports never came: {process.communicate()}")


def at_least(count: int) -> Callable[[list[dict[str, Any]]], bool]:
    """For `wait_for_reports`: whether so many reports are recorded."""
    return lambda found: len(found) >= count


def recorded_reports(journal: Path) -> list[dict[str, Any]]:
    """The reports in a journal, which may be written meanwhile: a last line without its end is left out."""
    lines = journal.read_text().rpartition("\n")[0].splitlines() if journal.exists() else []
    return [event["report"] for event in map(json.loads, lines) if event["event"] == "report"]


def fashion(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `fashion-sweep` with these arguments in `folder`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fashion", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, **environment},
    )  # fmt: skip


def one_by_one(root: Path, trials: int = 2, epochs: int = 8, **sections: dict[str, Any]) -> str:
    """A spec whose every number is determined: one trial at a time, none stopped early. Its epochs take a while."""
    content: dict[str, dict[str, Any]] = {
        "data": {"root": str(root), "resize": 128, "crop": 128},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {
            "epochs": epochs, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]},
            "precision": "fp32", "layout": "nchw",  # each machine would measure for itself which is fastest
        },
        "search": {"trials": trials},
        "scheduler": {"name": "fifo"},
        "resources": {"concurrent_trials": 1},
    }  # fmt: skip
    return json.dumps({name: {**content.get(name, {}), **sections.get(name, {})} for name in {**content, **sections}})


def events(run: Path) -> list[dict[str, Any]]:
    """The journal's lines, parsed."""
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def assert_same(run: Path, undisturbed: Path) -> None:
    """The two sweeps have the same record, the same best weights, the same winner and the same files."""
    found, whole = Run.open(run), Run.open(undisturbed)
    lines = [(e["report"]["trial"], e["report"]["epoch"]) for e in events(run) if e["event"] == "report"]
    assert len(lines) == len(set(lines)), "an epoch was recorded twice"
    assert _losses(found) == _losses(whole)
    assert {n: trial.status for n, trial in found.trials.items()} == {n: t.status for n, t in whole.trials.items()}
    ends = [event["trial"] for event in events(run) if event["event"] == "end"]
    assert sorted(ends) == sorted(found.trials), "a trial ended twice, or not at all"
    best, expected = ranking.best(found), ranking.best(whole)
    assert (best.trial, best.epoch, best.val_loss) == (expected.trial, expected.epoch, expected.val_loss)
    for number, trial in whole.trials.items():
        kept = trial.best()
        assert kept is not None
        mine, theirs = (load_file(each.checkpoint_path(number, kept.epoch)) for each in (found, whole))
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(value, theirs[name]) for name, value in mine.items())
    assert files(run) == files(undisturbed)


def _losses(run: Run) -> dict[tuple[int, int], float]:
    return {(report.trial, report.epoch): report.metrics["val_loss"] for report, _ in run.history}


def files(run: Path) -> list[str]:
    """All files of a run but `progress.json`, which depends on when the last epoch was interrupted."""
    passing = {"progress.json"}
    names = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.name not in passing]
    return sorted({re.sub(r"^(tb/.*)/events.*", r"\1/events", name) for name in names})  # each attempt has its own


AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def at_work(below: Mapping[int, str]) -> set[int]:
    """Those of a driver's processes (id -> title) that could still do harm: all of Ray's but its two agents. After a
    kill these try to reach a gcs_server that is gone for about a minute, and then end."""
    titles = {pid: name for pid, name in below.items() if name not in AGENTS}
    return {
        pid for pid, name in titles.items() if name.startswith("ray::") or name.endswith(("/raylet", "/gcs_server"))
    }


def wait_until_gone(pids: Iterable[int], seconds: float = 150) -> set[str]:
    """Those of the processes that are still there after so many seconds: none, if all is well. Zombies count as gone.

    The default is long enough for Ray's agents (`at_work`).
    """
    left, end = set(pids), time.monotonic() + seconds
    while left and time.monotonic() < end:
        left = {pid for pid in left if _state(pid) not in ("", "Z")}
        time.sleep(0.1)
    return {f"{pid} {title(pid)}" for pid in left}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
