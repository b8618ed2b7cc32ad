"""Two models on the same images: what each metric differs by, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fashion.statistics.outcomes import HeadLabels, outcomes
from fashion.statistics.resampling import SEED, difference, resample
from fashion.statistics.results import LEVEL, Difference

DRAWS = 1_999  # more than for single intervals: the wider ones of several comparisons have fewer of them outside


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two models on the same images. difference: second less first, with its interval at the confidence
    `level`."""

    metric: str
    first: float
    second: float
    difference: Difference
    level: float


def metric_differences(
    heads: Sequence[HeadLabels],
    first: Sequence[NDArray[Any]],
    second: Sequence[NDArray[Any]],
    level: float = LEVEL,
    seed: int = SEED,
) -> tuple[MetricDifference, ...]:
    """Of every metric, by the names that reports have. first, second: of each head (N, classes) probabilities, of the
    same images in the same order.

    Raises ValueError where no label is known, or where an array has another shape than the labels.
    """
    resampled = resample(outcomes(heads, [first, second]), DRAWS, seed)
    found = []
    for name, values in resampled.values.items():
        one, two = values.tolist()
        found.append(MetricDifference(name, one, two, difference(resampled, name, 1, 0, level), level))
    return tuple(found)
