"""Training images/s of five networks: the report's loop in plain fp32, ours, and the bare limit; one thread each.

How they take turns is told in `benchmarks.training`. The report's loop and the limit work on one resident batch, ours
on the real images, augmentation and metrics included; its precision and layout are what `auto` finds. The limit is
forward, backward and torch's fused SGD in the fastest of fp32 and bf16, NCHW and channels_last, found by trying.
Weights are random.

On a CPU an image costs about the same in any batch, so the large networks get small ones to keep the rounds many.

ratio: of ours, to the report's loop; in the limit's row, of ours to the limit; each the median over the rounds.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.case import Case, first_images, threads
from benchmarks.rows import Row, tell
from benchmarks.training import measure, rows_of
from fashion.data.layout import read_dataset

# The network, the rounds of the short form, and how much faster than the report's loop ours should be at least.
CASES = (
    (Case("efficientnet_b3", 320, 300, 4), 4, 1.5),
    (Case("resnet18", 128, 128, 16), 10, 1.0),
    (Case("resnet50", 224, 224, 4), 5, 1.0),
    (Case("mobilenet_v3_small", 128, 128, 32), 15, 1.0),
    (Case("efficientnet_lite0", 160, 160, 16), 7, 1.0),
)
FULL_BATCH, FULL_ROUNDS = 2, 3  # times those of the short form
OF_LIMIT, MEAN = 0.97, 1.8
VAL_IMAGES = 16  # validated once, outside the measurement


def run(full: bool, data: Path) -> list[Row]:
    dataset, device = read_dataset(data), torch.device("cpu")
    rows, gains = [], []
    for short, rounds, wanted in CASES:
        case = replace(short, batch=short.batch * FULL_BATCH) if full else short
        rounds *= FULL_ROUNDS if full else 1
        tell(f"{case}, {rounds} rounds")
        with tempfile.TemporaryDirectory(prefix="step-") as name, threads(1):
            folder = Path(name)
            images = first_images(dataset, case, (rounds + 1) * case.batch, VAL_IMAGES, folder / "cache")
            found = measure(case, images, folder / "trial", device, rounds)
        report, ours, limit = rows_of("step", case, found, wanted, OF_LIMIT)
        assert ours.ratio is not None
        assert limit.ratio is not None
        rows += [report, ours, limit]
        tell(f"{ours.contender}: {ours.ratio:.3f} x the report's loop, {limit.ratio:.3f} of the limit")
        gains.append(ours.ratio)
    mean = statistics.fmean(gains)
    return [*rows, Row("step", "ours, mean of the five ratios", mean, "x", mean, f"ratio >= {MEAN:g}", mean >= MEAN)]
