"""How sure one can be of what a sweep found: from the record and the validation predictions, computed once and kept.

RUN/certainty.json holds the result beside the excerpt. It may be deleted at any time. Its key tells what it was
computed from (the trials' best reports, their files, the labels), so that it is never taken for that of another state
of the run. Numpy and pyarrow are loaded only where something is to be computed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion.files import parse, write_atomic
from fashion.reading.cost import images_per_second, parameters_of
from fashion.record.ranking import Ranked, best, ranking
from fashion.record.run import VAL_LABELS, Run
from fashion.record.trial import TRAINED_ON_VAL, trained_on_val
from fashion.record.trial_files import folder_name, predictions_name
from fashion.statistics.results import Difference, Interval, lower_is_better

if TYPE_CHECKING:
    from fashion.bucket.address import Address

FORMAT = 3
NAME = "certainty.json"
COMPARING, STEPS = "comparing trials", 5  # what is said while they are
_PLAIN = ("winner", "images", "tied", "cheapest", "fastest", "untold")  # fields that JSON keeps as they are

Progress = Callable[[str, int, int], None]  # label, done, total


@dataclass(frozen=True)
class TrialCertainty:
    """A trial at its best epoch: the 95 % interval of each of its metrics, by the names that reports have."""

    trial: int
    epoch: int
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Disagreement:
    """A metric by which another trial than the winner is the best.

    gains: by how much it is better, with a 95 % interval that allows for the choice among all trials. gives_up: how
    much higher its val_loss is than the winner's.
    """

    metric: str
    trial: int
    gains: Difference
    gives_up: Difference

    @property
    def within_noise(self) -> bool:
        """Whether no trial can be said to be better than the winner by this metric."""
        return self.gains.within_noise


@dataclass(frozen=True)
class Certainty:
    """What the validation predictions tell of a sweep's trials, each at the epoch with its lowest val_loss.

    winner: the trial with the lowest val_loss. images: on how many validation images all of this rests. trials: from
    the lowest val_loss up. tied: the trials that can't be told from the best one at 5 %, the winner first. cheapest,
    fastest: of these the one with the fewest parameters, and the one that trained the most images per second; None
    where that is not recorded of all of them. corrected: what to expect of the winner on new images, by metric; the
    choice of the trial is allowed for, that of its epoch is not. disagreements: one for each metric by which another
    trial is the best. untold: what is missing, in words; empty where nothing is. Without the winner's predictions and
    the labels, `tied` and what follows it are empty.
    """

    winner: int
    images: int = 0
    trials: tuple[TrialCertainty, ...] = ()
    tied: tuple[int, ...] = ()
    cheapest: int | None = None
    fastest: int | None = None
    corrected: dict[str, Interval] = field(default_factory=dict)
    disagreements: tuple[Disagreement, ...] = ()
    untold: str = ""

    def intervals(self, trial: int | None = None) -> dict[str, Interval]:
        """The intervals of a trial's metrics, by default of the winner's; empty where its predictions are missing."""
        number = self.winner if trial is None else trial
        return next((each.intervals for each in self.trials if each.trial == number), {})


def certainty(run: Run, address: Address | None = None, progress: Progress | None = None) -> Certainty:
    """What the run's predictions tell, as it was kept or computed now. address: where a run in a bucket is kept; what
    this machine's copy lacks is fetched from there. progress: is called while something is computed, which takes
    seconds where trials are many.

    Where predictions or labels are missing or damaged the result says so in `untold`, and tells the rest.

    Raises:
        RunError: no trial has a finite val_loss.
        StorageError: the bucket can't be read.
    """
    ranked = ranking(run) or [best(run)]  # which raises where there is none
    if trained_on_val(ranked[0].config):
        return Certainty(ranked[0].trial, untold=TRAINED_ON_VAL)
    if address is not None and not all(os.path.isfile(run.path / name) for name in _files(ranked)):
        from fashion.reading.validation_files import fetched

        fetched(run, address, _files(ranked))
    key = _key(run, ranked)
    path = run.path / NAME
    if (kept := _kept(path, key)) is not None:
        return kept
    found = _computed(run, ranked, address, progress)
    if os.access(run.path, os.W_OK):
        content = {"format": FORMAT, "key": key, **_to_json(found)}
        write_atomic(path, json.dumps(content, separators=(",", ":")).encode())
    return found


def _files(ranked: Sequence[Ranked]) -> list[str]:
    """Relative to the run's folder."""
    return [VAL_LABELS, *(f"{folder_name(each.trial)}/{predictions_name(each.epoch)}" for each in ranked)]


def _key(run: Run, ranked: Sequence[Ranked]) -> str:
    """A digest of what the result is computed from: which reports and files, as far as a look at the folder tells."""
    folder = str(run.path)
    files = [_look(f"{folder}/{name}") for name in _files(ranked)]
    if files[0] is None:  # a run of an older version: its labels are the data set's, if that is there and unchanged
        data = run.trials[ranked[0].trial].config.get("data")
        named = [run.manifest.get("data_root"), data.get("root") if isinstance(data, dict) else None]
        roots = sorted({root for root in named if isinstance(root, str)})
        files += [_look(f"{root}{below}") for root in roots for below in ("", "/split")]
    trials = []
    for each in ranked:
        trial = run.trials[each.trial]
        epochs = trial.left_out + len(trial.reports)  # the same whether the record or its excerpt was read
        trials.append((each.trial, each.epoch, each.val_loss, trial.attempt, trial.origin, epochs))
    about = run.manifest["data_fingerprint"], run.manifest.get("data_root"), run.manifest["attributes"]
    return hashlib.sha256(repr((FORMAT, about, files, trials)).encode()).hexdigest()


def _look(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _computed(run: Run, ranked: Sequence[Ranked], address: Address | None, progress: Progress | None) -> Certainty:
    from fashion.reading.sweep_outcomes import read_outcomes
    from fashion.statistics.corrected import corrected
    from fashion.statistics.disagreement import other_choices
    from fashion.statistics.resampling import intervals, resample
    from fashion.statistics.tied import tied_set

    winner = ranked[0].trial

    def step(done: int) -> None:
        if progress is not None:
            progress(COMPARING, done, STEPS)

    read = read_outcomes(run, ranked, address, progress)
    if read.outcomes is None:
        return Certainty(winner, untold=read.untold)
    step(0)
    resampled = resample(read.outcomes)
    step(1)
    numbers = [each.trial for each in read.trials]
    told = tuple(
        TrialCertainty(each.trial, each.epoch, metrics)
        for each, metrics in zip(read.trials, intervals(resampled), strict=True)
    )
    if numbers[0] != winner:
        return Certainty(winner, read.outcomes.images, told, untold=read.untold)
    step(2)
    # The record's losses were summed in another order: where two are equal up to rounding, its winner comes first.
    tied = tuple(dict.fromkeys([winner, *(numbers[index] for index in tied_set(resampled))]))
    step(3)
    expected = {
        name: _around(told[0].intervals[name], value, math.inf if lower_is_better(name) else 1.0)
        for name, value in corrected(read.outcomes).items()
    }
    step(4)
    others = tuple(
        Disagreement(each.metric, numbers[each.model], each.gains, each.gives_up)
        for each in other_choices(resampled, 0)
    )
    step(STEPS)
    cheapest = _extreme({number: parameters_of(run, run.trials[number].config) for number in tied}, -1)
    fastest = _extreme({number: images_per_second(run, [run.trials[number]]) for number in tied}, 1)
    images = read.outcomes.images
    return Certainty(winner, images, told, tied, cheapest, fastest, expected, others, read.untold)


def _around(interval: Interval, value: float, most: float) -> Interval:
    """The interval moved to another value, but not below 0 or above the most that the metric can be."""
    by = value - interval.value
    return Interval(value, max(interval.low + by, 0.0), min(interval.high + by, most), interval.reliable)


def _extreme(values: Mapping[int, float | None], sign: int) -> int | None:
    """The trial with the largest value times sign, of equal ones the first; None where one has no value."""
    known = {number: value for number, value in values.items() if value is not None}
    return max(known, key=lambda number: sign * known[number]) if known and len(known) == len(values) else None


def _kept(path: Path, key: str) -> Certainty | None:
    """What was computed from the same before; None where that is not there."""
    try:
        content = parse(path.read_bytes())
        return _from_json(content) if (content["format"], content["key"]) == (FORMAT, key) else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # missing or damaged: then it is computed again


def _to_json(found: Certainty) -> dict[str, Any]:
    def values(of: Mapping[str, Interval]) -> list[list[float | bool]]:
        return [[each.value, each.low, each.high, each.reliable] for each in of.values()]

    return {
        "metrics": list(found.trials[0].intervals) if found.trials else [],
        "trials": [[each.trial, each.epoch, values(each.intervals)] for each in found.trials],
        "corrected": values(found.corrected),
        "disagreements": [
            [each.metric, each.trial, *vars(each.gains).values(), *vars(each.gives_up).values()]
            for each in found.disagreements
        ],
        **{name: getattr(found, name) for name in _PLAIN},
    }


def _from_json(content: Mapping[str, Any]) -> Certainty:
    names = content["metrics"]

    def intervals(values: Sequence[Sequence[Any]]) -> dict[str, Interval]:
        return {name: Interval(*value) for name, value in zip(names, values, strict=True)} if values else {}

    return Certainty(
        **{**{name: content[name] for name in _PLAIN}, "tied": tuple(content["tied"])},
        trials=tuple(TrialCertainty(trial, epoch, intervals(values)) for trial, epoch, values in content["trials"]),
        corrected=intervals(content["corrected"]),
        disagreements=tuple(
            Disagreement(metric, trial, Difference(*numbers[:3]), Difference(*numbers[3:]))
            for metric, trial, *numbers in content["disagreements"]
        ),
    )
