"""What a run or a trial took: trials, epochs, time and training images a second."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial import Trial


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
    seconds = math.fsum(t.left_out_seconds + math.fsum(each.seconds for each in t.reports) for t in trials)
    epochs = sum(t.left_out + len(t.reports) for t in trials)
    counts = run.manifest["label_counts"].get("train") or [[]]
    images = max(map(sum, counts))
    speed = images * epochs / seconds if seconds > 0 and images else math.nan
    model = chosen.config.get("model", {})
    sizes = [
        each["parameters"]
        for each in run.manifest.get("models", [])
        if (each["backbone"], each["weights"]) == (model.get("backbone"), model.get("weights"))
    ]
    return Cost(len(trials), sum(t.final for t in trials), epochs, seconds, speed, sizes[0] if sizes else None)
