"""Logits and targets counted by a meter, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fashion.model.metrics import Meter


def metered(
    meter: Meter, names: Sequence[str], logits: list[Tensor], targets: Tensor, sizes: list[int]
) -> dict[str, float]:
    """The metrics of a fresh meter that was given batches of these sizes, which add up to all samples."""
    start = 0
    for size in sizes:
        meter.update([head[start : start + size] for head in logits], targets[start : start + size])
        start += size
    assert start == len(targets)
    meter.reduce()
    return meter.compute(names)
