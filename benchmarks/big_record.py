"""Writes the record of a large sweep through the package's own API, and says what it cost.

    python -m benchmarks.big_record FILE        (see `child.module`)

Every trial runs to its end (5,000 trials of 50 epochs are 250,000 reports). What a report costs on a real disk is
measured at the beginning and at the end; in between nothing is flushed, or the writing would take most of an hour.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.child import arguments_of
from benchmarks.noted import resident
from fashion.data.demo import ATTRIBUTES
from fashion.files import now
from fashion.record.ranking import best
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.spec.sweep_spec import load_spec
from fashion.training import checkpoint

FINGERPRINT = "0123456789abcdef"
SPEC = """
name: {name}
data: {{root: data, resize: 72, crop: 64}}
model: {{backbone: {{choice: [resnet18, tiny]}}, weights: none, dropout: {{uniform: [0.0, 0.5]}}}}
train:
  epochs: {epochs}
  batch_size: {{choice: [16, 32, 64]}}
  lr: {{loguniform: [0.001, 0.1]}}
  weight_decay: {{loguniform: [0.000001, 0.01]}}
search: {{method: random, trials: {trials}, seed: 0}}
scheduler: {{name: fifo}}
storage: {storage}
"""


def report(trial: int, epoch: int, epochs: int, final: float) -> EpochReport:
    """What the loop reports, figures included that nobody ranks by; val_loss falls towards `final`."""
    val_loss = final + 0.8 * 0.9**epoch + 0.02 * ((37 * trial + 11 * epoch) % 17) / 17
    shares = ("train_accuracy", "val_accuracy", "val_balanced_accuracy", "val_exact_match")
    metrics = {
        "train_loss": 0.9 * val_loss, "val_loss": val_loss, "val_loss_report": 1.2 + val_loss / 3, "lr": 0.1 / epoch,
        **dict.fromkeys(shares, 1 / (1 + val_loss)),
        **{f"val_accuracy/{name}": 1 / (1.1 + val_loss) for name in ATTRIBUTES},
    }  # fmt: skip
    return EpochReport(trial, 1, epoch, epochs, metrics, 1.234, now())


def record_seconds(run: Run, trial: int, epochs: int, final: float) -> list[float]:
    """Record one whole trial; what each of its reports took."""
    times = []
    for epoch in range(1, epochs + 1):
        entry = report(trial, epoch, epochs, final)
        started = time.perf_counter()
        run.record_report(entry, "continue")
        times.append(time.perf_counter() - started)
    run.record_end(trial, "completed")
    return times


def main() -> None:
    given = arguments_of()
    storage, trials, epochs = Path(given["storage"]), given["trials"], given["epochs"]
    storage.mkdir(parents=True, exist_ok=True)
    path = storage.with_suffix(".yaml")
    path.write_text(SPEC.format(name="large", trials=trials, epochs=epochs, storage=storage))
    spec = load_spec(path)
    attributes = [{"name": name, "classes": list(classes)} for name, classes in ATTRIBUTES.items()]
    counts = [[100] * len(classes) for classes in ATTRIBUTES.values()]
    run = Run.create(
        storage, spec.name,
        {
            "spec": spec.to_json(), "data_root": "data", "data_fingerprint": FINGERPRINT, "attributes": attributes,
            "label_counts": {"train": counts, "val": counts},
        },
    )  # fmt: skip
    finals = np.random.default_rng(0).uniform(0.5, 1.5, trials).tolist()

    def record(number: int) -> list[float]:
        run.record_trial(number, spec.trial(number).model_dump(mode="json"))
        run.record_attempt(number)
        return record_seconds(run, number, epochs, finals[number])

    empty = resident()
    first = record(0)
    with mock.patch.object(os, "fsync"):
        for number in range(1, trials - 1):
            record(number)
    last = record(trials - 1)
    write_winner(run)
    run.close()
    result = {"first": statistics.median(first), "last": statistics.median(last), "memory": resident() - empty}
    Path(given["result"]).write_text(json.dumps(result))


def write_winner(run: Run) -> None:
    """The checkpoint that `best` will promote: a real one, of next to no weights."""
    winner = best(run)
    found = run.trials[winner.trial].reports[winner.epoch - 1]
    meta: dict[str, Any] = {
        "format": checkpoint.FORMAT, "config": winner.config, "attributes": run.manifest["attributes"],
        "data_fingerprint": FINGERPRINT, "report": found.to_json(),
    }  # fmt: skip
    checkpoint.save_weights(run.checkpoint_path(winner.trial, winner.epoch), {"weight": torch.zeros(4)}, meta)


if __name__ == "__main__":
    main()
