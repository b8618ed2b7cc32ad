"""Ensembles: which models to average, and what their mean is worth on images that had no say in the choice.

Models are chosen greedily and with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes 2004, Ensemble Selection from
Libraries of Models): each pick is the model whose addition gives the mean of the probabilities the lowest loss. A good
model may be picked several times, and weighs as much. Of the picks those count up to the lowest loss. The mean of each
head is then scaled by a temperature (`calibration`).

A choice fits the images that it was made on. So it is also made on four fifths of them, and the last fifth is predicted
by what was chosen there, temperatures included, five times over: those predictions score the procedure honestly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.calibration import scaled, temperature
from fashion.statistics.outcomes import SMALLEST, HeadLabels
from fashion.statistics.resampling import SEED

FOLDS = 5
_AT_ONCE = 1 << 22  # likelihoods that are averaged at a time

# Of one model: (N, classes) probabilities of each head, of a multi-label one each class's own.
HeadProbabilities = Sequence[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class ModelLibrary:
    """What T models made of N images, as far as a mean of them needs to be known for its loss.

    likelihoods: of each head (T, N, columns) float32, the probability that a model gave to what the label says; 1 where
    the label is not known.
    """

    heads: tuple[HeadLabels, ...]
    likelihoods: tuple[NDArray[np.float32], ...]

    @property
    def models(self) -> int:
        return int(self.likelihoods[0].shape[0])

    @property
    def images(self) -> int:
        return int(self.likelihoods[0].shape[1])


@dataclass(frozen=True)
class EnsembleChoice:
    """How often each of T models was picked, and the loss of the mean after each pick that counts, in nats: on the
    images that it was chosen on, so that it flatters."""

    counts: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """The models that were picked, those picked most often first."""
        picked = [model for model, count in enumerate(self.counts) if count]
        return tuple(sorted(picked, key=lambda model: (-self.counts[model], model)))


def library(heads: Sequence[HeadLabels], models: Iterable[HeadProbabilities]) -> ModelLibrary:
    """The models' likelihoods. Each of `models` is looked at once, so that they need not be in memory together.

    Raises ValueError where there is no model, or where an array has another shape than the labels.
    """
    found: list[list[NDArray[np.float32]]] = [[] for _ in heads]
    for model in models:
        for head, probabilities, likelihoods in zip(heads, model, found, strict=True):
            likelihoods.append(_likelihood(head, probabilities))
    if not heads or not found[0]:
        raise ValueError("there is no head or no model to choose from")
    return ModelLibrary(tuple(heads), tuple(np.stack(each) for each in found))


def _likelihood(head: HeadLabels, probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """(N, columns) of one model and head."""
    given = np.asarray(probabilities, np.float32)
    if given.shape != (wanted := (len(head.labels), head.classes)):
        raise ValueError(f"{head.name}: probabilities have shape {given.shape}, labels {wanted}")
    if head.multi_label:
        likelihood = np.where(head.labels == 1, given, 1 - given)
    else:
        likelihood = given[np.arange(len(given)), np.maximum(head.labels, 0)][:, None]
    return np.where(head.columns >= 0, likelihood, np.float32(1)).astype(np.float32)


def choose(of: ModelLibrary, picks: int, rows: NDArray[Any] | None = None) -> EnsembleChoice:
    """Pick up to so many models, the same ones several times where that helps. rows: which images they are chosen on,
    by default all. The loss is `val_loss`: the mean over the heads of that over their known labels.

    Of equal models the first is picked. Raises ValueError for no picks.
    """
    if picks < 1:
        raise ValueError(f"an ensemble has at least one pick, not {picks}")
    parts = [each if rows is None else each[:, rows] for each in of.likelihoods]
    known = [head.columns if rows is None else head.columns[rows] for head in of.heads]
    counted = [(part, int((labels >= 0).sum())) for part, labels in zip(parts, known, strict=True)]
    counted = [(part, labels) for part, labels in counted if labels]  # a head without a label says nothing
    sums = [np.zeros(part.shape[1:], np.float32) for part, _ in counted]
    picked: list[int] = []
    losses: list[float] = []
    for number in range(1, picks + 1):
        mean = np.zeros(of.models)
        for (part, labels), total in zip(counted, sums, strict=True):
            mean += _losses(part, total, number) / labels / len(counted)
        best = int(mean.argmin())
        picked.append(best)
        losses.append(float(mean[best]))
        for (part, _), total in zip(counted, sums, strict=True):
            total += part[best]
    kept = int(np.argmin(losses)) + 1
    return EnsembleChoice(tuple(np.bincount(picked[:kept], minlength=of.models).tolist()), tuple(losses[:kept]))


def _losses(part: NDArray[np.float32], total: NDArray[np.float32], number: int) -> NDArray[np.float64]:
    """(T,) the sum of the losses of one head over the images, for each model that may be picked next."""
    step = max(_AT_ONCE // max(total.size, 1), 1)
    found = []
    for start in range(0, len(part), step):
        mean = (part[start : start + step] + total) / np.float32(number)
        found.append(-np.log(np.maximum(mean, SMALLEST)).sum(axis=(1, 2), dtype=np.float64))
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class FoldChoices:
    """fold: (N,) which fold an image is in. choices: for each fold what was chosen on the other images."""

    fold: NDArray[np.int64]
    choices: tuple[EnsembleChoice, ...]

    @property
    def members(self) -> set[int]:
        """Every model that was picked in any fold."""
        return {model for choice in self.choices for model in choice.members}


def choose_by_fold(of: ModelLibrary, picks: int, folds: int = FOLDS, seed: int = SEED) -> FoldChoices:
    """The choice made on all images but a fold's, for each fold. With fewer than two images there is no fold."""
    images = of.images
    fold = np.random.default_rng(seed).permutation(images) % max(min(folds, images), 1)
    count = int(fold.max(initial=-1)) + 1
    return FoldChoices(fold, tuple(choose(of, picks, fold != each) for each in range(count) if count > 1))


def mixed(models: Sequence[NDArray[Any]], counts: Sequence[int]) -> NDArray[np.float64]:
    """The mean of (N, classes) probabilities, each model counting as often as it was picked."""
    total = np.zeros(np.shape(models[0]))
    for model, count in zip(models, counts, strict=True):
        total += count * np.asarray(model, np.float64)
    return total / sum(counts)


def temperatures(heads: Sequence[HeadLabels], mixtures: HeadProbabilities) -> tuple[float, ...]:
    """For each head the temperature with the lowest cross entropy of these mixtures."""
    return tuple(temperature(head, each) for head, each in zip(heads, mixtures, strict=True))


def cross_fitted(
    heads: Sequence[HeadLabels], chosen: FoldChoices, models: Mapping[int, HeadProbabilities]
) -> list[NDArray[np.float64]]:
    """Of each head (N, classes): every image's probabilities by what was chosen, and whose temperature was fitted, on
    the images of the other folds. models: the probabilities of `chosen.members`.

    Raises ValueError where there are no folds.
    """
    if not chosen.choices:
        raise ValueError("an honest score needs two images at least")
    found = [np.zeros((len(head.labels), head.classes)) for head in heads]
    for fold, choice in enumerate(chosen.choices):
        own, rest = chosen.fold == fold, chosen.fold != fold
        counts = [choice.counts[model] for model in choice.members]
        for index, head in enumerate(heads):
            mixture = mixed([models[model][index] for model in choice.members], counts)
            fitted = temperature(_of_rows(head, rest), mixture[rest])
            found[index][own] = scaled(_of_rows(head, own), mixture[own], fitted)
    return found


def _of_rows(head: HeadLabels, rows: NDArray[np.bool_]) -> HeadLabels:
    return HeadLabels(head.name, head.classes, head.labels[rows])
