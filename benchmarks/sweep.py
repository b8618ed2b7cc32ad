"""Wall clock of one sweep under ASHA on the real data, from the command to its end, and what it finds.

ResNet-18 from random weights at 64 px, the same configurations for all contenders, on two cores:

- Train inside Tune as Ray documents it (`documented.py`) with the report's loop and DataLoader, Ray's ASHA, two trials
  at once;
- Optuna with its Hyperband pruner (`optuna_study.py`) over the same loop, in one process of two threads, and in the
  full form also in two processes of one thread that share a journal file;
- ours: the real `fashion-sweep run`, the image cache not yet built, two trials at once; in the full form also with
  `resources.elastic`, where the trial that is left at the end takes the idle core;
- the limit (`bare.py`): bare steps for the epochs that ours ran, divided by the cores; the mean of what they take right
  before and right after ours, since minutes lie between and a shared machine's speed drifts.

Asynchronous halving depends on the order in which reports arrive, and Optuna's Hyperband has brackets of its own, so
the contenders don't train the same number of epochs: that is a row each, and so is the wall clock divided by it, which
turns on no trial's luck. ASHA and Hyperband: from 1 epoch, reduction 3.

Full: 12 trials of up to 9 epochs on all images. Short: 4 trials of up to 3 epochs on 240 images, where starting
processes weighs forty times as much; what is wanted of the limit is therefore asked of all images only. Each contender
runs once, since one takes minutes, or in the full form an hour. In the environment SWEEP_WITHOUT=Optuna,Train leaves
out those whose names begin so, and SWEEP_IMAGES=1500 takes the first so many training images, and a fifth of it for
validation.

ratio: of seconds to ours' (how many times longer), of ours to the limit's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import bare, child
from benchmarks.rows import Row, in_turn, tell
from fashion.data.layout import Dataset, read_dataset
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec, load_spec

CORES = 2
LEAST_IMAGES = 160  # five batches
SIDE, BATCH, GRACE, REDUCTION = 64, 32, 1, 3
LR, WEIGHT_DECAY, DROPOUT = (0.005, 0.2), (1e-5, 1e-2), (0.0, 0.2, 0.5)
SPEC = f"""
name: sweep
data: {{{{root: {{root}}, resize: {SIDE}, crop: {SIDE}, flip: 0.5}}}}
model: {{{{backbone: resnet18, weights: none, dropout: {{{{choice: {list(DROPOUT)}}}}}}}}}
train:
  epochs: {{epochs}}
  batch_size: {BATCH}
  optimizer: sgd
  lr: {{{{loguniform: {list(LR)}}}}}
  weight_decay: {{{{loguniform: {list(WEIGHT_DECAY)}}}}}
search: {{{{method: random, trials: {{trials}}, seed: 0}}}}
scheduler: {{{{name: asha, metric: val_loss, compare: epoch, grace: {GRACE}, reduction: {REDUCTION}}}}}
resources: {{{{workers: 1, gpus_per_worker: 0, cpus_per_worker: 1, concurrent_trials: {CORES}}}}}
storage: {{storage}}
"""
DOCUMENTED, ONE, TWO = "Train in Tune as documented", "Optuna, 1 process", "Optuna, 2 processes"
OURS, ELASTIC, LIMIT = "ours", "ours (elastic)", "limit"
RUNS = {OURS: "sweep", ELASTIC: "elastic"}  # the runs' names
BEFORE, AFTER = "limit, before ours", "limit, after ours"
TARGETS = {DOCUMENTED: 2.0, ONE: 1.2, TWO: 1.2}  # times longer than ours


@dataclass(frozen=True)
class Found:
    """What a sweep trained and found."""

    epochs: int
    val_loss: float


def run(full: bool, data: Path) -> list[Row]:
    trials, epochs = (12, 9) if full else (4, 3)
    with tempfile.TemporaryDirectory(prefix="sweep-") as name, child.cores(CORES):
        folder = Path(name)
        count = images_asked(0 if full else 240)
        dataset = read_dataset(shortened(data, folder / "data", {"train": count, "val": count // 5}) if count else data)
        path = folder / "sweep.yaml"
        path.write_text(SPEC.format(root=dataset.root, trials=trials, epochs=epochs, storage=folder / "runs"))
        spec = load_spec(path)
        found: dict[str, Found] = {}
        steps = 30 if full else 6
        contenders: dict[str, Callable[[], float]] = {
            DOCUMENTED: lambda: plain(DOCUMENTED, "documented", spec, dataset, folder / "documented", found),
            BEFORE: lambda: epoch_limit(dataset, folder, steps),
            OURS: lambda: ours(OURS, path, folder, found),
            ELASTIC: lambda: ours(ELASTIC, path, folder, found, "--set", "resources.elastic=true"),
            AFTER: lambda: epoch_limit(dataset, folder, steps),
            ONE: lambda: plain(ONE, "optuna_study", spec, dataset, folder / "optuna-1", found, processes=1),
            TWO: lambda: plain(TWO, "optuna_study", spec, dataset, folder / "optuna-2", found, processes=2),
        }
        without = [each for each in os.environ.get("SWEEP_WITHOUT", "").split(",") if each]
        without += [] if full else [ELASTIC, TWO]
        contenders = {name: each for name, each in contenders.items() if not name.startswith(tuple(without))}
        seconds = {contender: values[0] for contender, values in in_turn(contenders, 1).items()}
    seconds[LIMIT] = (seconds[BEFORE] + seconds[AFTER]) / 2
    return rows(seconds, found, all_images=not count)


def images_asked(usual: int) -> int:
    """SWEEP_IMAGES, or the usual number; 0 for all. Raises click.UsageError for what is no number of images."""
    given = os.environ.get("SWEEP_IMAGES", "")
    if given and (not given.isdecimal() or int(given) < LEAST_IMAGES):
        raise click.UsageError(f"SWEEP_IMAGES must be a number of images, at least {LEAST_IMAGES}, got {given!r}.")
    return int(given or usual)


def rows(seconds: dict[str, float], found: dict[str, Found], all_images: bool) -> list[Row]:
    """Wall clock, val_loss and epochs of each; `seconds` of the limit are of one epoch on one core."""
    result = []
    for name, wanted in TARGETS.items():
        if name not in seconds:
            continue
        ratio = seconds[name] / seconds[OURS]
        result.append(Row("sweep", name, seconds[name], "s", ratio, f"ratio >= {wanted:g}", ratio >= wanted))
    for name in RUNS:
        if name not in seconds:
            continue
        limit = seconds[LIMIT] * found[name].epochs / CORES
        over = seconds[name] / limit
        target, met = ("ratio <= 1.10", over <= 1.10) if all_images else (None, None)
        result.append(Row("sweep", name, seconds[name], "s", seconds[name] / seconds[OURS]))
        result.append(
            Row("sweep", f"{LIMIT}: the {found[name].epochs} epochs of {name}, bare", limit, "s", over, target, met)
        )
    result += [Row("sweep", f"{name}: best val_loss", each.val_loss, "nats") for name, each in found.items()]
    result += [Row("sweep", f"{name}: epochs trained", each.epochs, "epochs") for name, each in found.items()]
    an_epoch = {name: seconds[name] / each.epochs for name, each in found.items()}
    result += [
        Row("sweep", f"{name}: wall clock an epoch", value, "s", value / an_epoch[OURS])
        for name, value in an_epoch.items()
    ]
    return result


def ours(name: str, path: Path, folder: Path, found: dict[str, Found], *more: str) -> float:
    run, cache = RUNS[name], str(folder / f"cache-{RUNS[name]}")
    command = ("-m", "fashion", "run", str(path), "--name", run, "--plain", "--fresh", *more)
    ended = child.python(*command, FASHION_CACHE=cache)
    record = Run.open(folder / "runs" / run)
    losses = [report.metrics["val_loss"] for trial in record.trials.values() for report in trial.reports]
    found[name] = Found(len(losses), min(losses))
    tell(f"{name}: {found[name]}")
    return ended.seconds


def plain(
    name: str, program: str, spec: SweepSpec, dataset: Dataset, folder: Path, found: dict[str, Found], **more: Any
) -> float:
    """A contender that runs the report's loop."""
    noted = folder / "notes"
    noted.mkdir(parents=True)
    common = {"root": str(dataset.root), "notes": str(noted)}
    configs = []
    for number in range(spec.total_trials):
        train, model = spec.trial(number).train, spec.trial(number).model
        settings = {
            "number": number, "lr": train.lr, "weight_decay": train.weight_decay, "dropout": model.dropout,
            "batch_size": BATCH, "epochs": train.epochs, "side": SIDE,
        }  # fmt: skip
        configs.append({**common, "settings": settings})
    arguments = {
        **common, "loop": "training", "configs": configs, "workers": 1, "cores": CORES, "concurrent": CORES,
        "grace": GRACE, "reduction": REDUCTION, "storage": str(folder / "storage"),
        "lr": LR, "weight_decay": WEIGHT_DECAY, "dropout": DROPOUT, **more,
    }  # fmt: skip
    ended = child.module(program, arguments, folder)
    losses = [float(entry["val_loss"]) for entry in child.notes(noted) if entry["event"] == "epoch"]
    found[name] = Found(len(losses), min(losses))
    tell(f"{name}: {found[name]}")
    return ended.seconds


def epoch_limit(dataset: Dataset, folder: Path, steps: int) -> float:
    """Seconds of one epoch's bare steps, validation included, on one of the busy cores."""
    arguments = {
        "folder": str(folder), "cores": CORES, "class_counts": list(dataset.class_counts), "side": SIDE,
        "batch_size": BATCH, "steps": steps,
    }  # fmt: skip
    child.module("bare", arguments, folder)
    image = bare.fastest(folder, CORES)
    return image["train"] * len(dataset.splits["train"]) + image["validate"] * len(dataset.splits["val"])


def shortened(data: Path, folder: Path, counts: dict[str, int]) -> Path:
    """A data set of the first images of each split."""
    dataset = read_dataset(data)
    (folder / "split").mkdir(parents=True)
    shutil.copyfile(data / "split" / "list_attr_cloth.txt", folder / "split" / "list_attr_cloth.txt")
    for name, split in dataset.splits.items():
        count = counts.get(name, 16)
        for image in split.images[:count]:  # a link would lead out of the data set
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / image, folder / image)
        (folder / "split" / f"{name}.txt").write_text("\n".join(split.images[:count]) + "\n")
        if split.labels is not None:
            lines = [" ".join(map(str, labels)) for labels in split.labels[:count]]
            (folder / "split" / f"{name}_attr.txt").write_text("\n".join(lines) + "\n")
    return folder
