"""Which trials of a sweep, or of several, predict best together, and what that is worth: from the record alone.

Trials are chosen by their recorded validation predictions (`fashion.statistics.ensemble`). Only those whose weights are
still there can be members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion.errors import CheckpointError, Problem, RunError
from fashion.reading.cost import images_per_second, parameters_of
from fashion.reading.trial_predictions import Lacking, each_read
from fashion.reading.validation_files import read_labels, read_probabilities
from fashion.record.ranking import Ranked, best, ranking
from fashion.record.run import Run
from fashion.record.trial import trained_on_val
from fashion.record.trial_files import best_name, folder_name, read_header
from fashion.record.validate import attributes_of, multi_label_of
from fashion.statistics.ensemble import choose, choose_by_fold, cross_fitted, library, mixed, temperatures
from fashion.statistics.outcomes import HeadLabels
from fashion.statistics.paired import MetricDifference, metric_differences

if TYPE_CHECKING:
    from fashion.bucket.address import Address

SAME = "The runs of an ensemble must have been validated on the same images with the same labels"


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """A trial at its best epoch. count: how often it was picked, which is its weight. images_per_second: what it
    trained, validation included; None where that says nothing of a prediction's speed or is not recorded."""

    run: Run
    chosen: Ranked
    count: int
    images_per_second: float | None
    parameters: int | None


@dataclass(frozen=True, eq=False)
class Ensemble:
    """members: those picked most often first. temperatures: of each attribute, by name, fitted on all validation
    images. single: the best trial alone, and the run it is of. differences: of every metric by the names that reports
    have, `first` that trial's, `second` the ensemble's, cross-fitted: each image predicted by what was chosen, and
    scaled, without it. images: on how many validation images all of this rests. candidates: how many trials could be
    members. left_out: which could not and why, in sentences.
    """

    members: tuple[EnsembleMember, ...]
    temperatures: dict[str, float]
    single: tuple[Run, Ranked]
    differences: tuple[MetricDifference, ...]
    images: int
    candidates: int
    left_out: tuple[str, ...] = ()

    @property
    def picks(self) -> int:
        """How many picks count."""
        return sum(member.count for member in self.members)

    @property
    def metrics(self) -> dict[str, float]:
        """The cross-fitted metrics by the names that reports have."""
        return {each.metric: each.second for each in self.differences}

    @property
    def images_per_second(self) -> float | None:
        """Each image goes through all members, whose times add up; None where a member's is not known."""
        speeds = [member.images_per_second for member in self.members]
        return None if None in speeds else 1 / sum(1 / speed for speed in speeds if speed)

    @property
    def parameters(self) -> int | None:
        """Of all members together; None where a member's are not recorded."""
        counts = [member.parameters for member in self.members]
        return None if None in counts else sum(count for count in counts if count)


@dataclass(frozen=True, eq=False)
class _Model:
    """A trial with predictions. order: the places of the images in its file; None where they are in order. member:
    whether its weights are there."""

    run: Run
    ranked: Ranked
    path: Path
    order: NDArray[np.int64] | None
    member: bool

    def probabilities(self) -> list[NDArray[np.float32]]:
        _, heads = read_probabilities(self.path, attributes_of(self.run.manifest["attributes"]))
        return heads if self.order is None else [head[self.order] for head in heads]


def find_ensemble(runs: Sequence[tuple[Run, Address | None]], picks: int) -> Ensemble:
    """Choose up to so many trials, with replacement, of all runs together. runs: each with its address, if it is kept
    in a bucket; what this machine's copy lacks of the predictions is fetched from there.

    Raises:
        RunError: no trial can be chosen, labels are not known, or the runs' validation images, labels or attributes
            differ.
        StorageError: a bucket can't be read.
    """
    left_out: list[str] = []
    models: list[_Model] = []
    heads: list[HeadLabels] = []
    images: list[str] = []
    for run, address in runs:
        found, own_heads, own_images = _models_of(run, address, len(runs) > 1, left_out)
        if models and found:
            order = _require_same(models[0].run, run, (heads, images), (own_heads, own_images))
            found = [_Model(each.run, each.ranked, each.path, order, each.member) for each in found]
        elif found:
            heads, images = own_heads, own_images
        models += found
    models.sort(key=lambda each: each.ranked.val_loss)  # stable: of equal trials the first run's
    candidates = [each for each in models if each.member]
    place = ", ".join(run.location for run, _ in runs)
    if not candidates:
        why = "; ".join(left_out)
        raise RunError(Problem(place, "no trial has both its validation predictions and its weights", why))
    if len(images) < 2:
        raise RunError(Problem(place, "an ensemble needs two validation images at least", str(len(images))))
    chosen_from = library(heads, (each.probabilities() for each in candidates))
    choice, folds = choose(chosen_from, picks), choose_by_fold(chosen_from, picks)
    read = {model: candidates[model].probabilities() for model in {*choice.members, *folds.members}}
    counts = [choice.counts[model] for model in choice.members]
    mixtures = [mixed([read[model][head] for model in choice.members], counts) for head in range(len(heads))]
    fitted = temperatures(heads, mixtures)
    differences = metric_differences(heads, models[0].probabilities(), cross_fitted(heads, folds, read))
    members = tuple(_member(candidates[model], choice.counts[model]) for model in choice.members)
    return Ensemble(
        members,
        {head.name: value for head, value in zip(heads, fitted, strict=True)},
        (models[0].run, models[0].ranked),
        differences,
        len(images),
        len(candidates),
        tuple(left_out),
    )


def _member(model: _Model, count: int) -> EnsembleMember:
    """What is recorded of a member's cost. Trials that train on what was computed before are no measure of a pass
    through their network."""
    run, ranked = model.run, model.ranked
    whole = ranked.config.get("train", {}).get("mode", "full") == "full"
    speed = images_per_second(run, [run.trials[ranked.trial]]) if whole else None
    return EnsembleMember(run, ranked, count, speed, parameters_of(run, ranked.config))


def _models_of(
    run: Run, address: Address | None, several: bool, left_out: list[str]
) -> tuple[list[_Model], list[HeadLabels], list[str]]:
    """The trials of one run that have predictions, the labels, and the images. What is missing goes to `left_out`."""
    lacking = Lacking()
    scored: list[Ranked] = []
    for each in ranking(run) or [best(run)]:  # which raises where there is none
        if trained_on_val(each.config):
            lacking.add("no validation score, as it was trained on those images", each.trial)
        else:
            scored.append(each)
    kept = _weights_there(run, address)
    models: list[_Model] = []
    heads: list[HeadLabels] = []
    listed: list[str] = []
    for found in each_read(run, scored, address, lacking):
        if not models:
            heads, listed = _heads(run, found.ranked, address, found.images), found.images.to_pylist()
        member = kept(found.ranked)
        if not member:
            lacking.add("no weights any more", found.ranked.trial)
        models.append(_Model(run, found.ranked, found.path, None, member))
    left_out += lacking.sentences(f" of {run.name}" if several else "")
    return models, heads, listed


def _weights_there(run: Run, address: Address | None) -> Callable[[Ranked], bool]:
    """Whether a trial's weights can be promoted, as far as a look tells: in the run's folder, or in its bucket."""
    if address is not None:
        from fashion.bucket.store import Store

        names = {each.name for each in Store(address).objects("trials")}
        return lambda ranked: f"{folder_name(ranked.trial)}/{best_name(ranked.epoch)}" in names

    def there(ranked: Ranked) -> bool:
        try:
            header = read_header(run.checkpoint_path(ranked.trial, ranked.epoch))
        except CheckpointError:
            return False
        backbone = header.get("backbone")  # a probe's weights are in two files
        return backbone is None or (run.path / "trials" / Path(str(backbone)).name).is_file()

    return there


def _heads(run: Run, ranked: Ranked, address: Address | None, images: Any) -> list[HeadLabels]:
    labels, missing = read_labels(run, run.trials[ranked.trial], address, images)
    if labels is None:
        raise RunError(Problem(run.location, "its validation labels are not known", missing))
    if not any((column >= 0).any() for column in labels):
        raise RunError(Problem(run.location, "no label of the validation images is known"))
    named = attributes_of(run.manifest["attributes"])
    return [HeadLabels(name, len(classes), column) for (name, classes), column in zip(named, labels, strict=True)]


def _require_same(
    first: Run, other: Run, known: tuple[list[HeadLabels], list[str]], own: tuple[list[HeadLabels], list[str]]
) -> NDArray[np.int64] | None:
    """The places of the first run's images in the other's list; None where the lists are the same. Raises RunError
    where attributes, images or labels differ."""
    told = [(attributes_of(run.manifest["attributes"]), multi_label_of(run.manifest["attributes"]))
            for run in (first, other)]  # fmt: skip
    if told[0] != told[1]:
        shown = ", ".join(name for name, _ in told[1][0])
        raise RunError(Problem(other.location, f"must predict the attributes and classes of {first.name}", shown))
    (heads, images), (own_heads, own_images) = known, own
    if len(images) != len(own_images) or set(images) != set(own_images):
        both = len(set(images) & set(own_images))
        got = f"{len(own_images)} images, {both} of them among the {len(images)} of {first.name}"
        raise RunError(Problem(other.location, "was validated on other images", got, SAME))
    places = {image: place for place, image in enumerate(own_images)}
    order = np.array([places[image] for image in images], np.int64)
    for head, own_head in zip(heads, own_heads, strict=True):
        if not np.array_equal(head.labels, own_head.labels[order]):
            rule = f"the labels of {head.name} are not those of {first.name}"
            raise RunError(Problem(other.location, rule, fix=SAME))
    return None if images == own_images else order
