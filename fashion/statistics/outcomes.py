"""What models made of the same images, as matrices of losses and hits: all that the statistics need to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.labels import MISSING as MISSING

SMALLEST = np.float32(np.finfo(np.float32).tiny)  # a probability below it counts as this: its logarithm is finite


@dataclass(frozen=True, eq=False)
class HeadLabels:
    """The labels of N images for one head of so many classes.

    labels: (N,) int64 class indices; of a multi-label head (N, classes) 0 or 1. -1 where a label is not known.
    """

    name: str
    classes: int
    labels: NDArray[np.int64]

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """(N, columns): one column, or of a multi-label head one for each class."""
        return self.labels if self.multi_label else self.labels[:, None]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(N,) how many labels of the image are known."""
        counts: NDArray[np.int64] = (self.columns >= 0).sum(axis=1)
        return counts

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(N,) whether any label of the image is known."""
        known: NDArray[np.bool_] = self.counts > 0
        return known

    @cached_property
    def least(self) -> int:
        """The number of images of the class that has the fewest; of a multi-label head of the rarer of its 0 and 1.

        A class without any image is not among them: nothing was measured of it.
        """
        values = range(2 if self.multi_label else self.classes)
        counts = [int((column == value).sum()) for column in self.columns.T for value in values]
        return min((count for count in counts if count), default=0)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Of T models and N images, head by head.

    losses: (T, N) float32 cross entropy in nats, the sum over the image's known labels. hits: (columns, T, N) bool,
    whether a label was right; False where it is not known.
    """

    heads: tuple[HeadLabels, ...]
    losses: tuple[NDArray[np.float32], ...]
    hits: tuple[NDArray[np.bool_], ...]

    @property
    def models(self) -> int:
        return int(self.losses[0].shape[0])

    @property
    def images(self) -> int:
        return int(self.losses[0].shape[1])

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """(N,) whether every label of every head is known."""
        complete: NDArray[np.bool_] = np.logical_and.reduce([(head.columns >= 0).all(axis=1) for head in self.heads])
        return complete

    @cached_property
    def exact(self) -> NDArray[np.bool_]:
        """(T, N) whether every label of the image is known and was right."""
        exact: NDArray[np.bool_] = np.logical_and.reduce([hits.all(axis=0) for hits in self.hits])
        return exact

    def chosen(self, model: NDArray[np.intp]) -> Outcomes:
        """R models that are put together: of model r, image n is as models[r, n] made it. model: (R, N) indices."""
        images = np.arange(self.images)
        losses = tuple(loss[model, images] for loss in self.losses)
        hits = tuple(np.stack([column[model, images] for column in each]) for each in self.hits)
        return Outcomes(self.heads, losses, hits)


def outcomes(heads: Sequence[HeadLabels], models: Sequence[Sequence[NDArray[Any]]]) -> Outcomes:
    """What models made of images. models: of each of T models one array (N, classes) of probabilities for each head; of
    a multi-label head each class's own.

    A head without any label is left out. Raises ValueError where there is no model or no label, or where an array has
    another shape than the labels.
    """
    labelled = [index for index, head in enumerate(heads) if head.known.any()]
    if not labelled or not models:
        raise ValueError("there is no label or no model to look at")
    losses: list[NDArray[np.float32]] = []
    hits: list[NDArray[np.bool_]] = []
    for index in labelled:
        head = heads[index]
        images, columns = head.columns.shape
        loss = np.zeros((len(models), images), np.float32)
        hit = np.zeros((columns, len(models), images), bool)
        for number, model in enumerate(models):
            probabilities = np.asarray(model[index], np.float32)
            if probabilities.shape != (images, head.classes):
                wanted = (images, head.classes)
                raise ValueError(f"{head.name}: probabilities have shape {probabilities.shape}, labels {wanted}")
            loss[number], hit[:, number] = _outcome(head, probabilities)
        losses.append(loss)
        hits.append(hit)
    return Outcomes(tuple(heads[index] for index in labelled), tuple(losses), tuple(hits))


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """The models of all parts side by side, which were made of the same images. Raises ValueError for other labels."""
    first = parts[0]
    for part in parts[1:]:
        alike = zip(part.heads, first.heads, strict=True)
        if not all(one is other or np.array_equal(one.labels, other.labels) for one, other in alike):
            raise ValueError("models can be compared on the same labels only")
    heads = range(len(first.heads))
    losses = tuple(np.concatenate([part.losses[head] for part in parts]) for head in heads)
    hits = tuple(np.concatenate([part.hits[head] for part in parts], axis=1) for head in heads)
    return Outcomes(first.heads, losses, hits)


def _outcome(head: HeadLabels, probabilities: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The loss (N,) of one model and head, and whether each label was right, (columns, N)."""
    if head.multi_label:
        known = head.labels >= 0
        likelihood = np.where(head.labels == 1, probabilities, 1 - probabilities)
        losses = np.where(known, -np.log(np.maximum(likelihood, SMALLEST)), 0)
        right = ((probabilities > 0.5) == (head.labels == 1)) & known
        return losses.sum(axis=1), right.T
    label = np.maximum(head.labels, 0)
    likelihood = probabilities[np.arange(len(label)), label]
    loss = np.where(head.known, -np.log(np.maximum(likelihood, SMALLEST)), 0)
    return loss, ((probabilities.argmax(axis=1) == head.labels) & head.known)[None]
