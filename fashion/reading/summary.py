"""What a sweep came to, in a few frozen values: its winner and how sure that is, what mattered most, what it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion.errors import UserError
from fashion.reading.certainty import Certainty, Progress, certainty
from fashion.reading.cost import Cost, cost_of
from fashion.reading.trial_columns import Kind, trial_columns, varying
from fashion.record import ranking
from fashion.record.ranking import Ranked
from fashion.record.run import Run

if TYPE_CHECKING:
    from fashion.bucket.address import Address

ENOUGH = 10  # trials below which nothing is said about what mattered
SHUFFLES = 999  # of a permutation test
CHANCE = 0.05  # of naming some field although none matters

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The field that goes most with the trials' val_loss. share: of the variance of the trials' ranks, from 0 to 1.
    chance: how often one at least as large would be seen among all fields if none mattered."""

    field: str
    share: float
    chance: float

    @property
    def clear(self) -> bool:
        return self.chance <= CHANCE


@dataclass(frozen=True)
class SweepSummary:
    """importance: None where there are too few trials or nothing was sampled, which `unimportant` then says."""

    winner: Ranked
    certainty: Certainty
    importance: Importance | None
    unimportant: str
    cost: Cost


def summarise(run: Run, address: Address | None = None, progress: Progress | None = None) -> SweepSummary:
    """Of a run that has a winner, from its record. address: where a run in a bucket is kept; where that can't be read,
    the certainty says so. progress: is called while that is computed. Raises RunError where no trial has a finite
    val_loss."""
    winner = ranking.best(run)
    try:
        sure = certainty(run, address, progress)
    except UserError as error:  # a sweep that has ended must not fail over what is said of it
        sure = Certainty(winner.trial, untold=str(error))
    importance, why = most_important(run)
    return SweepSummary(winner, sure, importance, why, cost_of(run, winner, run.trials.values()))


def most_important(run: Run) -> tuple[Importance | None, str]:
    """The sampled field that explains most of the order of the trials by their best val_loss, or why none is named.

    A field of numbers explains the square of Spearman's correlation, any other the share of the ranks' variance between
    its values. How likely that is by chance is found by permutation, the most of all fields in each.

    The page's importance (`fashion/page/importance.py`) says more, each rung and each field with an interval, and needs
    optuna for it: 41 evaluations a rung, in a process that may have no optuna loaded. Here one name is wanted, at the
    end of `run`, which must be quick: these are a few products of matrices.
    """
    columns = trial_columns(run)
    trials = [number for number, row in columns.rows.items() if row["val_loss"] is not None]
    if len(trials) < ENOUGH:
        return None, f"{len(trials)} trials are too few to tell" if len(trials) != 1 else "one trial can't tell"
    values = {name: [columns.rows[number][name] for number in trials] for name in varying(run.manifest)}
    designs = {name: _design(found, columns.kinds[name]) for name, found in values.items() if len(set(found)) > 1}
    if not designs:
        return None, "nothing was sampled"
    losses = _ranks(np.array([columns.rows[number]["val_loss"] for number in trials], float))
    random = np.random.default_rng(0)
    shuffled = np.stack([losses, *(random.permutation(losses) for _ in range(SHUFFLES))])
    shares = {name: _explained(design, shuffled) for name, design in designs.items()}
    # More values explain more by chance alone: each field is measured against its own shuffles.
    within = {name: (share[None, :] >= share[:, None] - 1e-12).mean(axis=1) for name, share in shares.items()}
    most = min(within, key=lambda name: (float(within[name][0]), -float(shares[name][0])))
    least = np.min(list(within.values()), axis=0)
    chance = float((least <= within[most][0] + 1e-12).mean())
    return Importance(most, float(shares[most][0]), chance), ""


def _design(values: list[Any], kind: Kind) -> Floats:
    """The columns by which ranks are explained, orthonormal and without a mean. (trials, D)."""
    if kind is Kind.NUMBER and None not in values:
        columns = _ranks(np.array(values, float))[:, None]
    else:
        texts = [str(value) for value in values]
        names = sorted(set(texts))
        columns = np.array([[text == name for name in names[1:]] for text in texts], float)
    basis: Floats = np.linalg.qr(columns - columns.mean(axis=0))[0]
    return basis


def _explained(design: Floats, ranks: Floats) -> Floats:
    """The share of the variance of each row of ranks (S, trials) that the design explains. (S,)."""
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    found: Floats = ((centred @ design) ** 2).sum(axis=1) / np.maximum((centred**2).sum(axis=1), math.ulp(1.0))
    return found


def _ranks(values: Floats) -> Floats:
    """Ranks from 0, the mean of those of equal values."""
    _, at, number = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(number)
    means: Floats = ((ends - number) + (ends - 1)) / 2.0
    return means[at]
