"""What mattered: how much each sampled field had to do with a trial's being among the best.

The importance is optuna's PED-ANOVA (Watanabe et al. 2023; with conditional fields Inoue et al. 2026): the distance
between a field's distribution over the best quarter of the trials and over all of them. Every trial that reached a rung
counts there, those that were stopped at it too, with its loss at the rung: comparing trials at their ends would compare
the scheduler's decisions instead.

The one line at the end of `run` comes from a test of its own (`fashion/reading/summary.py: most_important`), which
needs neither optuna nor its time.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.display.rows import field_value
from fashion.record.trial import Trial

Floats = NDArray[np.float64]
RESAMPLES = 20
MOST = 150  # trials that are compared at a rung, drawn at random of more: more of them cost time and tell little
TOP = 0.25  # the share of the trials that count as the best
LEAST = 12  # trials below which nothing is computed


@dataclass(frozen=True)
class FieldImportance:
    """share: of the sum over all fields, in [0, 1]; low, high: its interval over random halves of the trials. told:
    whether it is larger than what fields have that have nothing to do with the loss."""

    field: str
    share: float
    low: float
    high: float
    told: bool


@dataclass(frozen=True)
class RungImportance:
    """place: the rung in words. trials: how many reached it. fields: the most important first; empty where there are
    too few trials to tell, and `why` says so."""

    place: str
    trials: int
    fields: tuple[FieldImportance, ...]
    why: str = ""


def importance_at(
    place: str,
    losses: Mapping[int, float],
    trials: Mapping[int, Trial],
    fields: Sequence[str],
    logarithmic: Collection[str] = (),
) -> RungImportance:
    """losses: trial -> its metric at the rung, lower is better. fields: the dotted names of what the sweep samples, of
    which those in `logarithmic` are sampled on a logarithmic scale.

    The interval is that of 20 random halves of the trials, whose spread is the bootstrap's (McCarthy 1969). A field is
    told from chance where its importance is above the largest importance of any field in 20 draws in which the
    losses were dealt out anew: a permutation test at 1 in 21.
    """
    numbers = [number for number, loss in losses.items() if math.isfinite(loss)]
    reached = len(numbers)
    varied = [name for name in fields if len({str(field_value(trials[n].config, name)) for n in numbers}) > 1]
    if not varied:
        return RungImportance(place, reached, (), "no sampled field differs between the trials that reached it")
    if len(numbers) < LEAST:
        return RungImportance(place, reached, (), f"fewer than {LEAST} trials reached it")
    drawn = np.random.default_rng(0)
    if len(numbers) > MOST:
        numbers = sorted(drawn.permutation(numbers)[:MOST].tolist())
    study = _Study([trials[number].config for number in numbers], varied, logarithmic)
    values = np.array([losses[number] for number in numbers])
    strengths = study.strengths(values)
    halves = [drawn.permutation(len(numbers)) < (len(numbers) + 1) // 2 for _ in range(RESAMPLES)]
    again = np.array([_shares(study.strengths(np.where(half, values, np.nan))) for half in halves])
    dealt = [study.strengths(drawn.permutation(values)).max() for _ in range(RESAMPLES)]
    limit, found = max(dealt), _shares(strengths)
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    rows = [
        FieldImportance(name, float(found[k]), float(low[k]), float(high[k]), bool(strengths[k] > limit))
        for k, name in enumerate(varied)
    ]
    return RungImportance(place, reached, tuple(sorted(rows, key=lambda each: -each.share)))


class _Study:
    """Trials as optuna has them."""

    def __init__(
        self, configs: Sequence[Mapping[str, Any]], fields: Sequence[str], logarithmic: Collection[str]
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        self.fields = fields
        columns = {name: [field_value(config, name) for config in configs] for name in fields}
        numeric = {name for name, values in columns.items() if _numeric(values)}
        ranges = {name: _range(values, name in logarithmic) for name, values in columns.items()}
        self.study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))
        for row in range(len(configs)):
            here = {name: values[row] for name, values in columns.items() if values[row] is not None}
            params = {name: float(value) if name in numeric else str(value) for name, value in here.items()}
            used = {name: ranges[name] for name in here}
            self.study.add_trial(optuna.trial.create_trial(params=params, distributions=used, value=0.0))

    def strengths(self, losses: Floats) -> Floats:
        """(fields,) PED-ANOVA's importances, not normalised. losses: (trials,); a NaN leaves its trial out."""
        from optuna.importance import PedAnovaImportanceEvaluator

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lower is better here, which optuna says each time that it assumes
            found = PedAnovaImportanceEvaluator(target_quantile=TOP).evaluate(
                self.study, target=lambda trial: float(losses[trial.number])
            )
        return np.array([found.get(name, 0.0) for name in self.fields])


def _shares(strengths: Floats) -> Floats:
    shares: Floats = strengths / max(strengths.sum(), 1e-300)
    return shares


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values if each is not None)


def _range(values: Sequence[Any], logarithmic: bool) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    present = [each for each in values if each is not None]
    if not _numeric(values):
        return CategoricalDistribution(sorted({str(each) for each in present}))
    low, high = float(min(present)), float(max(present))
    return FloatDistribution(low, high, log=logarithmic and low > 0)
