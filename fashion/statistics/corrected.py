"""What to expect of the winner on new images: the score of the best of n looks better than it is.

The idea is that of the bootstrap bias corrected cross-validation of Tsamardinos, Greasidou and Borboudakis (2018):
repeat the choice on a part of the images, and score what was chosen on the others, which had no say in it. Their parts
are bootstrap samples, on which a choice is as noisy as with half of the images; where trials differ, that is too
pessimistic. Here a part is two thirds of the images, drawn without replacement, and each image is scored once in each
of so many divisions into three. The expectation is then that of a choice by two thirds of the images: on average it is
never too high, and a little too low where trials differ. With nine tenths it would be nearer on average but further off
in one sweep, since such parts nearly all choose the winner again, and score it on the images that made it win.
"""

from __future__ import annotations

import numpy as np

from fashion.statistics.outcomes import Outcomes
from fashion.statistics.resampling import SEED, mean_loss, weighted

FOLDS = 3
REPEATS = 30


def corrected(outcomes: Outcomes, folds: int = FOLDS, repeats: int = REPEATS, seed: int = SEED) -> dict[str, float]:
    """Every metric that the model with the lowest val_loss can be expected to have on new images.

    Only the choice among these models is corrected for: if each is itself a chosen one (the best of a trial's epochs,
    by the same images), that choice is not.
    """
    images, folds = outcomes.images, min(folds, outcomes.images)
    random = np.random.default_rng(seed)
    fold = np.stack([random.permutation(images) % folds for _ in range(repeats)])  # (R, N)
    left_out = (fold[:, None, :] == np.arange(folds)[:, None]).reshape(repeats * folds, images).T  # (N, R * folds)
    losses = mean_loss(outcomes, (~left_out).astype(np.float32))
    winners = np.where(np.isfinite(losses), losses, np.inf).argmin(axis=0).reshape(repeats, folds)
    together = outcomes.chosen(np.take_along_axis(winners, fold, axis=1))
    found = weighted(together, np.ones((images, 1)))
    return {name: float(value.mean()) for name, value in found.items()}
