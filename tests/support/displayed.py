"""A run that is recorded while a display follows it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fashion.display.live import Display
from fashion.record.run import Run
from fashion.record.trial import EpochReport

SCHEDULER = {"name": "asha", "metric": "val_loss", "compare": "fraction", "grace": 0.1, "reduction": 3.0, "brackets": 1}


SAMPLED = {
    "model": {"backbone": {"choice": ["tiny", "resnet18"]}, "dropout": {"choice": [0.0, 0.5]}},
    "train": {"epochs": {"choice": [5, 10]}, "optimizer": {"choice": ["sgd", "adam"]}, "lr": {"loguniform": [1e-3, 1]}},
}


def new_run(folder: Path, trials: int) -> tuple[Run, Any]:
    spec = {"name": "sweep", "data": {"root": "d"}, **SAMPLED, "search": {"trials": trials}, "scheduler": SCHEDULER}
    manifest = {"spec": spec, "data_fingerprint": "f", "attributes": [], "label_counts": {"train": [], "val": []}}
    return Run.create(folder, "sweep", manifest), SimpleNamespace(
        total_trials=trials, scheduler=SimpleNamespace(**SCHEDULER)
    )


def begin(run: Run, display: Display, number: int, epochs: int = 10) -> None:
    train = {"epochs": epochs, "optimizer": "sgd", "lr": 0.01 * (number + 1)}
    run.record_trial(number, {"data": {"root": "d"}, "model": {"backbone": "resnet18", "dropout": 0.5}, "train": train})
    run.record_attempt(number)
    display.trial_started(number)


def report(
    run: Run, display: Display, number: int, epoch: int, loss: float, epochs: int = 10, stop: bool = False
) -> None:
    metrics = {"val_loss": loss, "val_accuracy": 0.5, "train_loss": loss + 0.1, "lr": 0.01}
    each = EpochReport(number, 1, epoch, epochs, metrics, 2.0, "2026-01-01T00:00:00.000+00:00")
    display.reported(each, run.record_report(each, "stop" if stop else "continue"))


def end(run: Run, display: Display, number: int, status: Any, reason: str = "") -> None:
    run.record_end(number, status, reason)
    display.ended(number, status, reason)


def sweep(run: Run, display: Display) -> None:
    with display:
        display.started()
        begin(run, display, 0)
        begin(run, display, 1)
        report(run, display, 0, 1, 1.5)
        report(run, display, 1, 1, 1.6, stop=True)
        end(run, display, 1, "stopped", "val_loss at epoch 1 of 10")
        display.note("trial 0: its worker died, started again")
        report(run, display, 0, 2, math.nan)
        end(run, display, 0, "failed", "epoch 2: val_loss is nan")
