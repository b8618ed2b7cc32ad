"""Whether the statistics keep what they promise, on sweeps whose truth is known. docs/statistics.md has the figures,
which `python -m pytest -m slow tests/statistics -s` prints."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest

from fashion.statistics.corrected import corrected
from fashion.statistics.resampling import intervals, resample
from fashion.statistics.tied import tied_set
from tests.support.simulated import Population

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SWEEPS = 1000
# Fewer than are drawn for a real sweep. The order statistics are exact for any number; fewer draws only make the ends
# of an interval, and the critical value, noisier.
DRAWS = 199
POINT = 0.01


@dataclass(frozen=True)
class Sweep:
    """What was said of one sweep. held: whether the true best is in the tied set; where all trials are equal all of
    them are the best, and none may be missing. raw, corrected: by how many points the winner's score, and the corrected
    one, is above its true accuracy. covered: the share of trials whose interval holds the truth; of_winner: whether the
    corrected interval does."""

    held: bool
    tied: int
    raw: float
    corrected: float
    covered: float
    of_winner: bool


def simulated(population: Population, sweep: int) -> Sweep:
    true = population.true["val_accuracy"]
    outcomes = population.outcomes(np.random.default_rng((population.trials, sweep)))
    found = resample(outcomes, DRAWS, seed=sweep)
    tied = tied_set(found)
    best = int(population.true["val_loss"].argmin())
    winner = int(found.values["val_loss"].argmin())
    # That this draw of images is easier or harder than most is in both scores, and its expectation is 0.
    above = true[winner] + found.values["val_accuracy"].mean() - true.mean()
    expected = corrected(outcomes, repeats=5, seed=sweep)["val_accuracy"]
    ranges = [each["val_accuracy"] for each in intervals(found)]
    shift = expected - ranges[winner].value
    return Sweep(
        best in tied if population.spread else len(tied) == population.trials,
        len(tied),
        float(found.values["val_accuracy"][winner] - above) / POINT,
        float(expected - above) / POINT,
        float(np.mean([each.low <= value <= each.high for each, value in zip(ranges, true, strict=True)])),
        bool(ranges[winner].low + shift <= true[winner] <= ranges[winner].high + shift),
    )


def summary(population: Population, sweeps: list[Sweep]) -> dict[str, float]:
    names = ("held", "tied", "raw", "corrected", "covered", "of_winner")
    found = {name: float(np.mean([getattr(each, name) for each in sweeps])) for name in names}
    error = float(np.std([each.corrected for each in sweeps]) / len(sweeps) ** 0.5)
    print(
        f"\n{population.trials} trials, spread {population.spread / POINT}: {len(sweeps)} sweeps; best held in "
        f"{100 * found['held']:.1f} %, tied {found['tied']:.1f}; raw score {found['raw']:+.3f}, corrected "
        f"{found['corrected']:+.3f} (standard error {error:.3f}); intervals cover {100 * found['covered']:.1f} %, the "
        f"winner's corrected one {100 * found['of_winner']:.1f} %"
    )
    return found


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("trials", [8, 48, 500])
def test_the_tied_set_holds_the_best_and_the_corrected_score_is_right(trials: int, spread: float) -> None:
    population = Population(trials, spread * POINT)
    found = summary(population, [simulated(population, sweep) for sweep in range(SWEEPS)])
    assert found["held"] >= 0.935
    assert -0.3 <= found["corrected"] <= 0.05
    assert 0.93 <= found["covered"] <= 0.97


def test_intervals_cover_the_truth() -> None:
    """Six heads, of two to seven classes, of which the rarest has 20 images or a few more."""
    shares = (
        (0.5, 0.5), (0.6, 0.3, 0.1), (0.4, 0.3, 0.2, 0.1), (0.86, 0.1, 0.04), (0.3, 0.3, 0.2, 0.15, 0.05),
        (0.3, 0.2, 0.15, 0.15, 0.1, 0.07, 0.03),
    )  # fmt: skip
    easier = tuple(tuple(float(0.4 - 0.8 * index / (len(each) - 1)) for index in range(len(each))) for each in shares)
    population = Population(8, POINT, shares, easier)
    covered: dict[str, list[bool]] = defaultdict(list)
    for sweep in range(SWEEPS):
        outcomes = population.outcomes(np.random.default_rng((6, sweep)), least=20)
        for trial, found in enumerate(intervals(resample(outcomes, 399, seed=sweep))):
            for name, interval in found.items():
                assert interval.reliable
                covered[name].append(interval.low <= population.true[name][trial] <= interval.high)
    shown = {name: 100 * float(np.mean(each)) for name, each in covered.items()}
    print("\nintervals cover, in %: " + ", ".join(f"{name} {share:.1f}" for name, share in shown.items()))
    assert all(93 <= share <= 97 for share in shown.values()), shown
