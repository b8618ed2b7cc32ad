"""Sweeps by the real command on nodes that come and go."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from fashion.record.run import Run
from tests.support.running import PATIENCE, one_by_one, start, wait_for_reports

AUTO = {"concurrent_trials": "auto"}


TRIAL = "ray::ImplicitFunc"
NOTHING = "0 placement groups, 0.0 CPU"


def write_spec(folder: Path, root: Path, trials: int, epochs: int, **resources: Any) -> None:
    text = one_by_one(root, trials, epochs, data={"resize": 192, "crop": 192}, resources={**AUTO, **resources})
    (folder / "s.yaml").write_text(text)


def undisturbed(folder: Path, root: Path, trials: int, epochs: int, **resources: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_spec(folder, root, trials, epochs, **resources)
    said = finish(start(folder, "s.yaml"))
    assert "died" not in said
    return folder / "runs" / "s"


def wait_for_epoch(process: subprocess.Popen[str], folder: Path, trial: int, epoch: int) -> None:
    journal = folder / "runs" / "s" / "journal.jsonl"
    wait_for_reports(process, journal, lambda found: any((r["trial"], r["epoch"]) >= (trial, epoch) for r in found))


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in out + err
    return out + err


def attempts(run: Path) -> dict[int, set[int]]:
    trials = Run.open(run).trials
    return {number: {report.attempt for report in trial.reports} for number, trial in trials.items()}
