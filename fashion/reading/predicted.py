"""What is read of a model's recorded predictions, whoever hands them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import HeadLabels


class Head(Protocol):
    """One attribute's predictions for N images: probabilities (N, classes), labels (N,) of class indices or, for a
    multi-label attribute, (N, classes) of 0 and 1; -1 where unknown. `AttributePredictions` is one."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def probabilities(self) -> NDArray[np.float32]: ...
    @property
    def labels(self) -> NDArray[np.int64] | None: ...


class Predicted(Protocol):
    """The predictions for the validation images, with `labels_missing` saying why a head has no labels.
    `ValidationPredictions` is one."""

    @property
    def images(self) -> tuple[str, ...]: ...
    @property
    def attributes(self) -> Sequence[Head]: ...
    @property
    def labels_missing(self) -> str: ...


def head_labels(head: Head) -> HeadLabels:
    """The head's labels as the statistics want them. Raises ValueError for a head without labels."""
    if head.labels is None:
        raise ValueError(f"no labels of {head.name}")
    return HeadLabels(head.name, len(head.classes), head.labels)
