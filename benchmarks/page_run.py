"""Draws the record of a sweep, predictions included, without training: what the page's tests and benchmark read."""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.record.trial_files import predictions_name

CLASSES: dict[str, tuple[str, ...]] = {
    "pattern": ("solid", "striped", "checked", "dotted", "floral"),
    "sleeve": ("long", "short", "none"),
    "fit": ("tight", "loose"),
}
BACKBONES = ("resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "convnext_tiny")
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
RUNGS = (0.1, 0.3, 0.9)
SLOTS = 4


def spec_of(trials: int, epochs: int) -> dict[str, Any]:
    return {
        "data": {"root": "data"},
        "model": {"backbone": {"choice": list(BACKBONES)}, "dropout": {"uniform": [0.0, 0.5]}},
        "train": {
            "epochs": epochs, "optimizer": {"choice": ["sgd", "adamw", "lion"]}, "lr": {"loguniform": [1e-4, 1]},
            "momentum": {"uniform": [0.8, 1.0], "when": {"optimizer": "sgd"}},
            "weight_decay": {"loguniform": [1e-6, 1e-2]}, "warmup": {"choice": list(range(9))},
            "label_smoothing": {"uniform": [0.0, 0.2]},
        },
        "search": {"method": "random", "trials": trials, "seed": 0},
        "scheduler": {"name": "asha", "metric": "val_loss", "compare": "fraction", "grace": 0.1, "reduction": 3.0,
                      "brackets": 1},
    }  # fmt: skip


def draw_run(
    storage: Path, name: str, trials: int, epochs: int, images: int = 200, *, predicted: int = 40, seed: int = 0,
    classes: dict[str, tuple[str, ...]] | None = None, ends: bool = True, several: Collection[str] = (),
    missing: float = 0.0,
) -> Run:  # fmt: skip
    """A run of that many trials, of which one in thirty fails. predicted: for how many of the best there are
    predictions. ends: whether the last trials have ended; otherwise they are left in the middle. several: the
    multi-label attributes. missing: the share of the labels that are. Returns it closed."""
    classes = classes or CLASSES
    drawn = np.random.default_rng(seed)
    spec = spec_of(trials, epochs)
    truths = {key: _truth(drawn, images, len(names), key in several) for key, names in classes.items()}
    labels = {key: np.where(drawn.random(truth.shape) < missing, -1, truth) if missing else truth
              for key, truth in truths.items()}  # fmt: skip
    counts = [_counts(labels[key], len(names)) for key, names in classes.items()]
    models = [{"backbone": each, "weights": "imagenet", "parameters": 11_000_000 + 3_000_000 * place}
              for place, each in enumerate(spec["model"]["backbone"]["choice"])]  # fmt: skip
    manifest = {
        "spec": spec, "data_root": "data", "data_fingerprint": "0123456789abcdef", "models": models,
        "attributes": [{"name": key, "classes": list(names), **({"multi_label": True} if key in several else {})}
                       for key, names in classes.items()],
        "label_counts": {"train": [(5 * each).tolist() for each in counts], "val": [each.tolist() for each in counts]},
    }  # fmt: skip
    if missing or several:
        known = [(np.atleast_2d(labels[key].T) >= 0).sum(axis=1) + 1 for key in classes]
        manifest["known_labels"] = {
            "train": {"columns": [(5 * each).tolist() for each in _known(known, counts)], "images": images},
            "val": {"columns": [each.tolist() for each in _known(known, counts)], "images": images // 2},
        }
    run = Run.create(storage, name, manifest)
    files = [f"img/{number:05d}.jpg" for number in range(images)]
    columns = {key: _column(values) for key, values in labels.items()}
    pq.write_table(pa.table({"image": files, **columns}), run.val_labels_path)
    ease = drawn.normal(0, 1, images)
    with mock.patch.object(os, "fsync"):
        clocks = [BEGUN] * SLOTS
        for number in range(trials):
            slot = min(range(SLOTS), key=lambda each: clocks[each])
            left = not ends and number >= trials - SLOTS
            clocks[slot] = _draw_trial(run, number, epochs, drawn, slot, clocks[slot], left)
    order = sorted((t for t in run.trials.values() if t.best()), key=lambda t: t.best().metrics["val_loss"])  # type: ignore[union-attr]
    for trial in order[:predicted]:
        best = trial.best()
        assert best is not None
        folder = run.trial_dir(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        skill = 2.2 - 1.6 * best.metrics["val_loss"]
        found = {key: _probabilities(drawn, values, len(classes[key]), skill, ease) for key, values in truths.items()}
        lists = {key: pa.FixedSizeListArray.from_arrays(pa.array(v.reshape(-1), pa.float32()), v.shape[1])
                 for key, v in found.items()}  # fmt: skip
        pq.write_table(pa.table({"image": files, **lists}), folder / predictions_name(best.epoch))
    run.close()
    return run


def _truth(drawn: np.random.Generator, images: int, count: int, several: bool) -> Any:
    """(images,) class indices, or of a multi-label attribute (images, count) of 0 and 1."""
    if several:
        return (drawn.random((images, count)) < 0.8 * 0.6 ** np.arange(count)).astype(np.int64)
    return drawn.choice(count, images, p=_shares(count))


def _counts(labels: Any, count: int) -> Any:
    """How often each class occurs, and once more: a manifest's counts are of classes that occur."""
    return (labels == 1).sum(axis=0) + 1 if labels.ndim == 2 else np.bincount(labels[labels >= 0], minlength=count) + 1


def _known(known: list[Any], counts: list[Any]) -> list[Any]:
    """How many labels are known: of a single-label attribute as many as its classes occur."""
    return [each if len(each) > 1 else each[:1] * 0 + count.sum() for each, count in zip(known, counts, strict=True)]


def _column(labels: Any) -> pa.Array:
    if labels.ndim == 1:
        return pa.array(labels, pa.int32(), mask=labels < 0)
    return pa.array([[None if each < 0 else each for each in row] for row in labels.tolist()], pa.list_(pa.int8()))


def _shares(count: int) -> Any:
    shares = 0.6 ** np.arange(count)
    return shares / shares.sum()


def _probabilities(drawn: np.random.Generator, labels: Any, count: int, skill: float, ease: Any) -> Any:
    """(images, count): surer, and more often right, the more skill; too sure of itself."""
    if labels.ndim == 2:
        logits = drawn.normal(0, 0.7, labels.shape) + (2 * labels - 1) * (skill / 2 + 0.4 * ease[:, None])
        return (1 / (1 + np.exp(-1.6 * logits))).astype(np.float32)
    logits = drawn.normal(0, 0.7, (len(labels), count)) + 0.3 * drawn.normal(0, 1, (1, count))
    logits[np.arange(len(labels)), labels] += skill + 0.8 * ease
    values = np.exp(1.6 * (logits - logits.max(axis=1, keepdims=True)))
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def _draw_trial(
    run: Run, number: int, epochs: int, drawn: np.random.Generator, slot: int, clock: datetime, left: bool
) -> datetime:
    """Record one trial to its end, or to its middle where it is `left`; returns when its slot is free."""
    spec = run.manifest["spec"]
    backbone = str(drawn.choice(spec["model"]["backbone"]["choice"]))
    optimizer = str(drawn.choice(spec["train"]["optimizer"]["choice"]))
    lr = float(np.exp(drawn.uniform(np.log(1e-4), 0)))
    train = {
        "epochs": epochs, "optimizer": optimizer, "lr": lr,
        "momentum": float(drawn.uniform(0.8, 1)) if optimizer == "sgd" else None,
        "weight_decay": float(np.exp(drawn.uniform(np.log(1e-6), np.log(1e-2)))), "warmup": int(drawn.integers(9)),
        "label_smoothing": float(drawn.uniform(0, 0.2)),
    }  # fmt: skip
    dropout = float(drawn.uniform(0, 0.5))
    model = {"backbone": backbone, "dropout": dropout}
    run.record_trial(number, {"data": {"root": "data"}, "model": model, "train": train})
    run.record_attempt(number)
    with mock.patch("fashion.record.run.now", clock.isoformat):  # slots are stamped with the time of day
        run.record_slot(number, slot, "node-a" if slot < SLOTS // 2 else "node-b")
    best_lr = {"sgd": 0.1, "adamw": 1e-3, "lion": 3e-4}[optimizer]
    size = spec["model"]["backbone"]["choice"].index(backbone)
    final = 0.45 + 0.035 * (np.log10(lr / best_lr)) ** 2 + 0.02 * (4 - size) + abs(drawn.normal(0, 0.03))
    fails = number % 30 == 17
    stop = next((rung for rung in RUNGS if drawn.random() > (0.35 if final < 0.6 else 0.12)), 1.0)
    last = max(1, min(int(np.ceil(stop * epochs)), epochs))
    last = max(1, epochs // 2) if left else min(last, 3) if fails else last
    now = clock
    for epoch in range(1, last + 1):
        seconds = 4.0 + size + float(drawn.uniform(0, 1))
        now += timedelta(seconds=seconds)
        loss = final + 0.9 * np.exp(-5 * epoch / epochs) + float(drawn.normal(0, 0.008))
        if fails and epoch == last:
            loss = float("nan")
        accuracy = 0.0 if np.isnan(loss) else float(1 / (1 + 0.5 * loss))
        metrics = {
            "train_loss": float(0.8 * loss), "val_loss": float(loss), "train_accuracy": min(accuracy + 0.05, 1.0),
            "val_accuracy": accuracy, "val_balanced_accuracy": 0.8 * accuracy, "val_exact_match": accuracy**3,
            **{f"val_accuracy/{each['name']}": accuracy for each in run.manifest["attributes"]},
        }  # fmt: skip
        ends = epoch == last and last < epochs and not fails and not left
        report = EpochReport(number, 1, epoch, epochs, metrics, seconds, now.isoformat())
        run.record_report(report, "stop" if ends else "continue")
    if fails:
        run.record_end(number, "failed", f"epoch {last}: val_loss is nan")
    elif not left:
        run.record_end(number, "completed" if last == epochs else "stopped")
    return now
