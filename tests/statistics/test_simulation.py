"""Whether the statistics keep what they promise, on sweeps whose truth is known. docs/statistics.md has the figures,
which `python -m pytest -m slow tests/statistics -s` prints."""

from __future__ import annotations

from collections import defaultdict

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


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("trials", [8, 48, 500])
def test_the_tied_set_holds_the_best_and_the_corrected_score_is_right(trials: int, spread: float) -> None:
    """Where all trials are equal, all of them are the best, and none may be missing."""
    population = Population(trials, spread * POINT)
    true = population.true["val_accuracy"]
    best = np.argmin(population.true["val_loss"])
    holds, sizes, raw, errors, covered, of_winner = 0, [], [], [], [], []
    for sweep in range(SWEEPS):
        outcomes = population.outcomes(np.random.default_rng((trials, sweep)))
        found = resample(outcomes, DRAWS, seed=sweep)
        tied = tied_set(found)
        holds += len(tied) == trials if not spread else int(best) in tied
        sizes.append(len(tied))
        winner = int(found.values["val_loss"].argmin())
        # That this draw of images is easier or harder than most is in both scores, and its expectation is 0.
        easier = found.values["val_accuracy"].mean() - true.mean()
        expected = corrected(outcomes, repeats=5, seed=sweep)["val_accuracy"]
        raw.append(found.values["val_accuracy"][winner] - true[winner] - easier)
        errors.append(expected - true[winner] - easier)
        ranges = [each["val_accuracy"] for each in intervals(found)]
        covered.append(np.mean([each.low <= value <= each.high for each, value in zip(ranges, true, strict=True)]))
        shift = expected - ranges[winner].value
        of_winner.append(ranges[winner].low + shift <= true[winner] <= ranges[winner].high + shift)
    bias, noise = np.mean(errors) / POINT, np.std(errors) / POINT / SWEEPS**0.5
    print(
        f"\n{trials} trials, spread {spread}: best held in {100 * holds / SWEEPS:.1f} %, tied {np.mean(sizes):.1f}; "
        f"raw score {np.mean(raw) / POINT:+.3f}, corrected {bias:+.3f} (standard error {noise:.3f}); "
        f"intervals cover {100 * np.mean(covered):.1f} %, the winner's, corrected, {100 * np.mean(of_winner):.1f} %"
    )
    assert holds >= 0.935 * SWEEPS
    assert -0.3 <= bias <= 0.05
    assert 0.93 <= np.mean(covered) <= 0.97


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
