"""The recorded validation predictions of a run's trials, one after the other, and which trials lack them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion.bucket.address import Address
from fashion.errors import RunError
from fashion.reading.validation_files import fetched, read_probabilities
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial_files import folder_name, predictions_name
from fashion.record.validate import attributes_of

NAMED = 8  # trials that a sentence names before it counts the rest


@dataclass
class Lacking:
    """What trials lack, in the order in which it was noticed."""

    trials: dict[str, list[int]] = field(default_factory=dict)

    def add(self, what: str, trial: int) -> None:
        self.trials.setdefault(what, []).append(trial)

    def sentences(self, of: str = "") -> list[str]:
        """As in "trial 3 has no weights any more". of: whose trials they are, behind their numbers (" of NAME")."""
        return [f"{_named(numbers)}{of} {_has(numbers)} {what}" for what, numbers in self.trials.items()]


@dataclass(frozen=True, eq=False)
class TrialPredictions:
    """One trial's: their file, the images in its order, and for each attribute the probabilities (N, classes)."""

    ranked: Ranked
    path: Path
    images: pa.Array
    probabilities: list[NDArray[np.float32]]


def predictions_of(ranked: Ranked) -> str:
    """The file of a trial's predictions, relative to the run."""
    return f"{folder_name(ranked.trial)}/{predictions_name(ranked.epoch)}"


def each_read(
    run: Run,
    ranked: Sequence[Ranked],
    address: Address | None,
    lacking: Lacking,
    progress: Callable[[int], None] | None = None,
) -> Iterator[TrialPredictions]:
    """Those of these trials that can be read and are of the same images as the first that is; the others are added to
    `lacking`.

    address: where a run in a bucket is kept; what this machine's copy lacks is fetched from there. progress: is called
    with the number of files that have been looked at. Raises StorageError when the bucket can't be read.
    """
    attributes = attributes_of(run.manifest["attributes"])
    listed: pa.Array | None = None
    paths = fetched(run, address, map(predictions_of, ranked))
    for number, (each, path) in enumerate(zip(ranked, paths, strict=True)):
        if progress is not None:
            progress(number)
        if not path.is_file():
            lacking.add("no validation predictions", each.trial)
            continue
        try:
            images, probabilities = read_probabilities(path, attributes)
        except RunError:
            lacking.add("damaged validation predictions", each.trial)
            continue
        if listed is None:
            listed = images
        if images.equals(listed):
            yield TrialPredictions(each, path, images, probabilities)
        else:
            lacking.add("predictions of other images", each.trial)


def _named(numbers: Sequence[int]) -> str:
    """ "trial 3", "trials 1, 2 and 5 more"."""
    shown = ", ".join(map(str, sorted(numbers)[:NAMED]))
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"trial{'s' if len(numbers) > 1 else ''} {shown}{more}"


def _has(numbers: Sequence[int]) -> str:
    return "have" if len(numbers) > 1 else "has"
