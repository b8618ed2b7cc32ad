"""A recorded sweep of its spec's own trials: one completed, one stopped, one failed, one unfinished."""

from __future__ import annotations

import json
import math
from pathlib import Path

from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.schedulers.base import Decision
from fashion.spec.sweep_spec import SweepSpec, load_spec
from tests.support.recorded import ATTRIBUTES, COUNTS

SPEC = {
    "data": {"root": "d", "resize": 36, "crop": 32},
    "model": {"backbone": "tiny", "weights": "none"},
    "train": {
        "epochs": 4,
        "lr": {"loguniform": [0.001, 1]},
        "optimizer": {"choice": ["sgd", "adamw"]},
        "warmup_epochs": {"int": [0, 2]},
        "momentum": {"when": {"train.optimizer": "sgd"}, "uniform": [0.5, 0.9], "else": 0.9},
    },
    "search": {"trials": 6, "seed": 1},
    "scheduler": {"name": "asha", "grace": 0.25},
}


def swept(folder: Path, name: str = "lr") -> tuple[Run, SweepSpec]:
    """Four of six trials of the sweep, recorded in `folder`/name."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(SPEC))
    spec = load_spec(path)
    manifest = {
        "spec": spec.to_json(), "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS,
        "created": f"2026-01-01T00:00:00+00:00 {name}",
    }  # fmt: skip
    run = Run.create(folder, name, manifest)
    report(run, spec, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    report(run, spec, 1, [1.5], "stop")
    run.record_end(1, "stopped", "val_loss at epoch 1 of 4")
    report(run, spec, 2, [0.5, math.nan])
    run.record_end(2, "failed", "epoch 2: val_loss is nan")
    report(run, spec, 3, [0.8])
    return run, spec


def report(run: Run, spec: SweepSpec, number: int, losses: list[float], decision: Decision = "continue") -> None:
    """Record the next epochs of a trial."""
    if number not in run.trials:
        run.record_trial(number, spec.trial(number).model_dump(mode="json"))
        run.record_attempt(number)
    done = len(run.trials[number].reports)
    for epoch, loss in enumerate(losses, start=done + 1):
        metrics = {"val_loss": loss, "val_accuracy": 0.75 + epoch / 100, "val_accuracy/sleeve": 0.8}
        time = f"2026-01-01T00:0{number}:{10 * epoch:02d}.000+00:00"
        run.record_report(EpochReport(number, 1, epoch, 4, metrics, 1.5, time), decision)
