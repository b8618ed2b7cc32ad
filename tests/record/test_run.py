from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fashion.display.rows import ago
from fashion.errors import RunError
from fashion.record.find import find_path, run_paths
from fashion.record.lock import RunLock
from fashion.record.run import TOLD, Run
from fashion.record.trial import EpochReport

MANIFEST: dict[str, Any] = {
    "spec": {"scheduler": {"name": "asha"}},
    "data_fingerprint": "0123456789abcdef",
    "attributes": [{"name": "sleeve", "classes": ["none", "long"]}],
    "label_counts": {"train": [[5, 3]], "val": [[2, 2]]},
}


def report(trial: int = 0, epoch: int = 1, epochs: int = 4, val_loss: float = 1.0, **metrics: float) -> EpochReport:
    return EpochReport(trial, 1, epoch, epochs, {"val_loss": val_loss, **metrics}, 2.5, "2024-01-01T00:00:00.000+00:00")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "night", MANIFEST)


def test_report_survives_json_with_every_bit_and_every_nan() -> None:
    one = report(val_loss=0.1 + 0.2, a=math.inf, b=-math.inf, lr=1e-300)
    text = json.dumps(one.to_json(), allow_nan=False)
    assert EpochReport.from_json(json.loads(text)) == one
    nan = EpochReport.from_json(json.loads(json.dumps(report(val_loss=math.nan).to_json(), allow_nan=False)))
    assert math.isnan(nan.metrics["val_loss"])
    assert report(epoch=3, epochs=4).progress == 0.75
    with pytest.raises(ValueError, match="epoch"):
        report(epoch=5, epochs=4)


def test_reopened_run_equals_the_one_that_recorded(run: Run) -> None:
    config = {"train": {"lr": 0.1, "epochs": 4}, "model": {"backbone": "tiny"}}
    run.record_trial(0, config)
    run.record_trial(1, config)
    assert run.record_attempt(0) == 1
    run.record_report(report(0, 1), "continue")
    run.record_report(report(1, 1, val_loss=9.0), "stop")
    run.record_report(report(0, 2), "continue")
    run.record_end(1, "stopped", "worse than the cutoff")
    again = Run.open(run.path)
    assert again.manifest == run.manifest
    assert again.history == run.history
    assert [entry.trial for entry, _ in again.history] == [0, 1, 0]
    assert again.trials[1] == replace(run.trials[1], live=False)
    assert again.trials[1].reason == "worse than the cutoff"
    assert again.trials[0].decisions == {1: "continue", 2: "continue"}
    assert run.trials[0].status == "running"
    assert again.trials[0].status == "interrupted"
    assert again.manifest["packages"]["torch"]
    assert again.manifest["code_version"].startswith("0.")


def test_recording_twice_is_recording_once(run: Run) -> None:
    run.record_trial(3, {"lr": (1, 2)})
    run.record_trial(3, {"lr": [1, 2]})
    assert run.record_report(report(3), "continue") == "continue"
    assert run.record_report(report(3, val_loss=7.0), "stop") == "continue"
    run.record_end(3, "failed", "first")
    run.record_end(3, "completed", "second")
    lines = run.journal_path.read_bytes().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["trial", "report", "end"]
    assert (run.trials[3].status, run.trials[3].reason) == ("failed", "first")
    with pytest.raises(RunError, match="another configuration"):
        run.record_trial(3, {"lr": [1, 3]})
    with pytest.raises(ValueError, match="stuck"):
        run.record_end(3, "stuck")  # type: ignore[arg-type]


def test_refresh_reads_what_another_process_appends(run: Run) -> None:
    watcher = Run.open(run.path)

    def status() -> str:
        return watcher.trials[0].status

    run.record_trial(0, {})
    run.record_report(report(), "continue")
    assert watcher.refresh() == 2
    assert watcher.refresh() == 0
    assert status() == "interrupted"
    with RunLock(run.path):
        watcher.refresh()
        assert status() == "running"
    run.record_end(0, "completed")
    assert watcher.refresh() == 1
    assert status() == "completed"
    assert watcher.history == run.history


@pytest.mark.parametrize(
    ("last", "decision", "status"),
    [
        (report(epoch=2), "continue", "interrupted"),
        (report(epoch=2), "stop", "stopped"),
        (report(epoch=4), "continue", "completed"),
        (report(epoch=4), "stop", "completed"),
        (report(epoch=2, val_loss=math.nan), "stop", "failed"),
    ],
)
def test_status_where_the_driver_died_before_writing_the_end(
    run: Run, last: EpochReport, decision: Any, status: str
) -> None:
    run.record_trial(0, {})
    run.record_report(last, decision)
    trial = Run.open(run.path).trials[0]
    assert trial.status == status
    assert trial.final is (status != "interrupted")
    assert bool(trial.reason) is (status == "failed")


def test_new_attempt_reopens_a_failed_trial(run: Run) -> None:
    run.record_trial(0, {})
    assert run.record_attempt(0) == 1
    run.record_end(0, "failed", "worker lost")
    assert run.record_attempt(0) == 2
    trial = Run.open(run.path).trials[0]
    assert (trial.attempt, trial.status, trial.reason) == (2, "interrupted", "")


def test_best_epoch_ignores_nan_and_takes_the_earliest_of_equals(run: Run) -> None:
    trial = run.record_trial(0, {})
    assert trial.best() is None
    for epoch, value in enumerate((math.nan, 0.5, 0.4, 0.4, -math.inf), start=1):
        run.record_report(report(epoch=epoch, epochs=9, val_loss=value), "continue")
    found = trial.best()
    assert found is not None
    assert found.epoch == 3


def test_half_written_report_is_as_if_never_written(run: Run) -> None:
    run.record_trial(0, {})
    run.record_report(report(epoch=1), "continue")
    run.record_report(report(epoch=2), "continue")
    run.close()
    with open(run.journal_path, "r+b") as stream:
        stream.truncate(run.journal_path.stat().st_size - 9)
    again = Run.open(run.path)
    assert [entry.epoch for entry in again.trials[0].reports] == [1]
    again.record_report(report(epoch=2, val_loss=0.7), "continue")
    assert [entry.metrics["val_loss"] for entry in Run.open(run.path).trials[0].reports] == [1.0, 0.7]


def test_find_takes_the_latest_or_the_named_and_suggests(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no runs"):
        find_path(tmp_path)
    for age, name in enumerate(["second", "first", "third"]):
        made = Run.create(tmp_path, name, MANIFEST)
        os.utime(made.journal_path, (1e9 - age, 1e9 - age))
    assert [path.name for path in run_paths(tmp_path)] == ["second", "first", "third"]
    Run.open(find_path(tmp_path, "third")).record_trial(0, {})
    assert find_path(tmp_path).name == "third"
    assert find_path("elsewhere", str(tmp_path / "first")).name == "first"
    with pytest.raises(RunError, match="Did you mean second"):
        find_path(tmp_path, "secnd")
    (tmp_path / "stray").mkdir()
    assert len(run_paths(tmp_path)) == 3
    assert run_paths(tmp_path / "nowhere") == []


def test_create_refuses_what_is_there_and_odd_names(tmp_path: Path) -> None:
    made = Run.create(tmp_path, "night", MANIFEST)
    made.record_trial(0, {"keep": 1})
    with pytest.raises(RunError, match="exists already"):
        Run.create(tmp_path, "night", MANIFEST)
    assert Run.open(made.path).trials[0].config == {"keep": 1}
    for name in ("", ".hidden", "..", "a/b", "/abs"):
        with pytest.raises(RunError, match="plain folder name"):
            Run.create(tmp_path, name, MANIFEST)
    with pytest.raises(ValueError, match="label_counts"):
        Run.create(tmp_path, "other", {key: value for key, value in MANIFEST.items() if key != "label_counts"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["night"]


def test_open_refuses_what_it_cannot_understand(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory"):
        Run.open(tmp_path)
    manifest = run.path / "manifest.json"
    good = manifest.read_text()
    for text, message in [
        ("{", "not valid JSON"),
        ("[]", "run formats 1 to 3; got 'list'"),
        (good.replace('"format": 3', '"format": 4'), r"run formats 1 to 3; got 4 \(written by fashion-sweep 0\.1\.0\+"),
        (good.replace('"format": 3', '"format": 0'), "run formats 1 to 3; got 0"),
    ]:
        manifest.write_text(text)
        with pytest.raises(RunError, match=message):
            Run.open(run.path)
    manifest.write_text(good)
    for line in (
        '{"event": "dance"}',
        '{"event": "end", "trial": 5, "status": "failed", "reason": ""}',
        '{"event": "report"}',
    ):
        run.journal_path.write_text(line + "\n")
        with pytest.raises(RunError, match="not understood"):
            Run.open(run.path)


def test_manifest_can_be_extended_and_paths_are_as_documented(run: Run) -> None:
    run.update_manifest(spec={"search": {"trials": 9}})
    assert Run.open(run.path).manifest["spec"] == {"search": {"trials": 9}}
    assert run.trial_dir(7).relative_to(run.path) == Path("trials/0007")
    assert run.checkpoint_path(7, 12).name == "best-0012.safetensors"
    assert (run.best_dir.name, run.predictions_dir.name) == ("best", "predictions")


def test_run_pickles_without_its_open_journal(run: Run) -> None:
    run.record_trial(0, {})
    copy = pickle.loads(pickle.dumps(run))
    copy.record_report(report(), "continue")
    assert run.refresh() == 1
    assert run.trials[0].reports == copy.trials[0].reports


def test_reading_loads_neither_ray_nor_torch_nor_pydantic(run: Run) -> None:
    code = (
        "import sys, fashion.record.run, fashion.record.ranking, fashion.schedulers.asha;"
        "fashion.record.run.Run.open(sys.argv[1]);"
        "print({'ray', 'torch', 'pydantic', 'numpy', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_reading_a_long_journal_tells_how_far_it_is(run: Run) -> None:
    run.record_trial(0, {})
    run.close()
    note = json.dumps({"event": "note", "trial": 0, "text": "x" * 300, "time": "2026-01-01T00:00:00+00:00"}) + "\n"
    with open(run.journal_path, "a") as file:
        file.writelines(note for _ in range(2 * TOLD))
    told: list[tuple[int, int]] = []
    again = Run.open(run.path, progress=lambda done, total: told.append((done, total)))
    assert len(again.trials[0].notes) == 2 * TOLD
    size = run.journal_path.stat().st_size >> 20
    assert [total for _, total in told] == [size, size]
    assert [done for done, _ in told] == pytest.approx([size / 2, size], abs=1)


def test_a_clock_that_goes_back_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened, and in which order, is the journal's order, not that of its times."""
    hours = iter(range(23, 0, -1))
    monkeypatch.setattr("fashion.record.run.now", lambda: f"2026-01-01T{next(hours):02d}:00:00.000+00:00")
    run.record_trial(0, {"train": {"epochs": 4}})
    run.record_attempt(0)
    for epoch in (1, 2):
        earlier = f"2026-01-01T{next(hours):02d}:00:00.000+00:00"
        run.record_report(replace(report(0, epoch, val_loss=1.0 / epoch), time=earlier), "continue")
    again = Run.open(run.path)
    assert [each.epoch for each in again.trials[0].reports] == [1, 2]
    best = again.trials[0].best()
    assert best is not None
    assert best.epoch == 2
    os.utime(run.journal_path, (4e9, 4e9))  # written in what is now the future
    assert ago(again.last_activity) == "0 s ago"
