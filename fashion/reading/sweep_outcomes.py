"""What a sweep's trials made of the validation images: their recorded predictions against the recorded labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from fashion.bucket.address import Address
from fashion.errors import RunError
from fashion.reading.certainty import Progress
from fashion.reading.validation_files import fetched, read_labels, read_probabilities
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial_files import folder_name, predictions_name
from fashion.record.validate import attributes_of
from fashion.statistics.outcomes import HeadLabels, Outcomes, joined, outcomes

NAMED = 8  # trials that a sentence names before it counts the rest


@dataclass(frozen=True, eq=False)
class SweepOutcomes:
    """The trials whose predictions could be read, and what they made of the images, in the same order; no outcomes
    where there is no such trial. untold: what is missing, in words; empty if nothing is."""

    trials: tuple[Ranked, ...]
    outcomes: Outcomes | None
    untold: str = ""


def predictions_of(ranked: Ranked) -> str:
    """The file of a trial's predictions, relative to the run."""
    return f"{folder_name(ranked.trial)}/{predictions_name(ranked.epoch)}"


def read_outcomes(
    run: Run, ranked: Sequence[Ranked], address: Address | None = None, progress: Progress | None = None
) -> SweepOutcomes:
    """Of these trials. address: where a run in a bucket is kept; what this machine's copy lacks is fetched from there.
    progress: is called before each file of predictions is read.

    Missing and damaged files, which a sweep may have while it runs, are told in `untold`. Raises StorageError when the
    bucket can't be read.
    """
    attributes = attributes_of(run.manifest["attributes"])
    told: list[Ranked] = []
    made: list[Outcomes] = []
    heads: list[HeadLabels] = []
    listed: pa.Array | None = None
    lacking: dict[str, list[int]] = {}
    paths = fetched(run, address, map(predictions_of, ranked))
    for number, (each, path) in enumerate(zip(ranked, paths, strict=True)):
        if progress is not None:
            progress("validation predictions", number, len(ranked))
        if not path.is_file():
            lacking.setdefault("no validation predictions", []).append(each.trial)
            continue
        try:
            images, probabilities = read_probabilities(path, attributes)
        except RunError:
            lacking.setdefault("damaged validation predictions", []).append(each.trial)
            continue
        if listed is None:
            try:
                labels, missing = read_labels(run, run.trials[each.trial], address, images)
            except RunError as error:
                labels, missing = None, str(error)
            if labels is None:
                return SweepOutcomes((), None, missing)
            if not any((column >= 0).any() for column in labels):
                return SweepOutcomes((), None, "no label of the validation images is known")
            listed = images
            heads = [
                HeadLabels(name, len(classes), column)
                for (name, classes), column in zip(attributes, labels, strict=True)
            ]
        if not images.equals(listed):
            lacking.setdefault("predictions of other images", []).append(each.trial)
            continue
        told.append(each)
        made.append(outcomes(heads, [probabilities]))
    if progress is not None:
        progress("validation predictions", len(ranked), len(ranked))
    untold = ", and ".join(f"{_named(numbers)} {what}" for what, numbers in lacking.items())
    return SweepOutcomes(tuple(told), joined(made) if made else None, untold)


def _named(numbers: Sequence[int]) -> str:
    """ "trial 3 has", "trials 1, 2 and 5 more have"."""
    shown = ", ".join(map(str, sorted(numbers)[:NAMED]))
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"trials {shown}{more} have" if len(numbers) > 1 else f"trial {shown} has"
