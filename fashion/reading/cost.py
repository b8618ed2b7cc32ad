"""What a run or a trial took: trials, epochs, time and training images a second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fashion.record.manifest import folds_of
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial import Trial, trained_on_val


@dataclass(frozen=True)
class Cost:
    """What a run, or a trial, took. seconds: the wall time of all epochs, of trials side by side added up.
    images_per_second: training images through epochs in that time; NaN before the first. parameters: of the model that
    is compared; None where it is not recorded."""

    trials: int
    final: int
    epochs: int
    seconds: float
    images_per_second: float
    parameters: int | None


def cost_of(run: Run, chosen: Ranked, trials: Iterable[Trial]) -> Cost:
    """What these trials of a run took, and how large the chosen one's model is."""
    trials = list(trials)
    speed = images_per_second(run, trials)
    return Cost(
        len(trials),
        sum(trial.final for trial in trials),
        _epochs(trials),
        _seconds(trials),
        math.nan if speed is None else speed,
        parameters_of(run, chosen.config),
    )


def parameters_of(run: Run, config: Mapping[str, Any]) -> int | None:
    """The parameters of a trial's whole model; None where the run's manifest does not have them."""
    model = config.get("model", {})
    wanted = model.get("backbone"), model.get("weights", "none")
    for entry in run.manifest.get("models", []):
        if (entry.get("backbone"), entry.get("weights")) == wanted and isinstance(entry.get("parameters"), int):
            return int(entry["parameters"])
    return None


def images_per_second(run: Run, trials: Sequence[Trial]) -> float | None:
    """Training images per second of these trials' epochs, validation included in their time; None before the first.
    With folds an image is trained on by all models but one."""
    counts, seconds = run.manifest.get("label_counts", {}), _seconds(trials)
    both = any(trained_on_val(trial.config) for trial in trials)
    images = sum(max(map(sum, counts.get(split, [])), default=0) for split in ("train", *(["val"] * both)))
    images *= (folds_of(run.manifest) or 2) - 1
    return float(images * _epochs(trials) / seconds) if images and seconds > 0 else None


def _epochs(trials: Sequence[Trial]) -> int:
    return sum(trial.left_out + len(trial.reports) for trial in trials)


def _seconds(trials: Sequence[Trial]) -> float:
    return math.fsum(trial.left_out_seconds + math.fsum(each.seconds for each in trial.reports) for trial in trials)
