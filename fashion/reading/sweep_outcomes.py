"""What a sweep's trials made of the validation images: their recorded predictions against the recorded labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fashion.bucket.address import Address
from fashion.errors import RunError
from fashion.reading.certainty import Progress
from fashion.reading.trial_predictions import Lacking, each_read
from fashion.reading.validation_files import read_labels
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.validate import attributes_of
from fashion.statistics.outcomes import HeadLabels, Outcomes, joined, outcomes


@dataclass(frozen=True, eq=False)
class SweepOutcomes:
    """The trials whose predictions could be read, and what they made of the images, in the same order; no outcomes
    where there is no such trial. untold: what is missing, in words; empty if nothing is."""

    trials: tuple[Ranked, ...]
    outcomes: Outcomes | None
    untold: str = ""


def read_outcomes(
    run: Run, ranked: Sequence[Ranked], address: Address | None = None, progress: Progress | None = None
) -> SweepOutcomes:
    """Of these trials. address: where a run in a bucket is kept; what this machine's copy lacks is fetched from there.
    progress: is called before each file of predictions is read.

    Missing and damaged files, which a sweep may have while it runs, are told in `untold`. Raises StorageError when the
    bucket can't be read.
    """

    def looked_at(number: int) -> None:
        if progress is not None:
            progress("validation predictions", number, len(ranked))

    told: list[Ranked] = []
    made: list[Outcomes] = []
    heads: list[HeadLabels] = []
    lacking = Lacking()
    for each in each_read(run, ranked, address, lacking, looked_at):
        if not made:
            try:
                labels, missing = read_labels(run, run.trials[each.ranked.trial], address, each.images)
            except RunError as error:
                labels, missing = None, str(error)
            if labels is None:
                return SweepOutcomes((), None, missing)
            if not any((column >= 0).any() for column in labels):
                return SweepOutcomes((), None, "no label of the validation images is known")
            named = attributes_of(run.manifest["attributes"])
            heads = [
                HeadLabels(name, len(classes), column) for (name, classes), column in zip(named, labels, strict=True)
            ]
        told.append(each.ranked)
        made.append(outcomes(heads, [each.probabilities]))
    looked_at(len(ranked))
    return SweepOutcomes(tuple(told), joined(made) if made else None, ", and ".join(lacking.sentences()))
