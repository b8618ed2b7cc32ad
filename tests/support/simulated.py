"""Sweeps that never ran, whose trials' true scores are known: what the statistics say of them can be checked.

The margin by which a trial gets a head of an image right is normal: the trial's own mean, plus what the class adds,
what the image adds for all trials and heads, and what it adds for this head (so that errors are correlated between
trials and between heads), plus what is this trial's alone. The label is right where the margin is positive, and its
probability is the logistic function of three times the margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import HeadLabels, Outcomes

IMAGE, HEAD, OWN = 0.4, 0.35, 0.25  # the shares of the margin's variance
SLOPE = 3.0
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


def cumulative(values: Any) -> NDArray[np.float64]:
    """The normal distribution's."""
    from scipy.special import ndtr

    found: NDArray[np.float64] = ndtr(values)
    return found


@dataclass(frozen=True, eq=False)
class Population:
    """Trials whose accuracies would be at `accuracy`, spread with this standard deviation (both in [0, 1]), if all
    classes were equal. shares: for each head the share of each class; easier: what each class adds to the margin."""

    trials: int
    spread: float
    shares: tuple[tuple[float, ...], ...] = ((0.5, 0.3, 0.2),)
    easier: tuple[tuple[float, ...], ...] = ((0.0, 0.0, 0.0),)
    accuracy: float = 0.82

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """(T,) of the trials' margins. Their scores lie at the normal distribution's quantiles, in a mixed order."""
        normal = NormalDist()
        at = [normal.inv_cdf((index + 0.5) / self.trials) for index in range(self.trials)]
        scores = self.accuracy + self.spread * np.array(at)
        order = np.random.default_rng(7).permutation(self.trials)
        return np.array([normal.inv_cdf(score) for score in scores])[order]

    @cached_property
    def true(self) -> dict[str, NDArray[np.float64]]:
        """(T,) every metric as it would be on infinitely many images."""
        margins = [self.means[:, None] + np.array(easier) for easier in self.easier]  # (T, classes)
        recalls = [cumulative(each) for each in margins]
        accuracies = [each @ np.array(shares) for each, shares in zip(recalls, self.shares, strict=True)]
        exact = np.ones((self.trials, len(NODES)))
        losses = []
        for each, shares in zip(margins, self.shares, strict=True):
            given = cumulative((each[:, :, None] + np.sqrt(IMAGE) * NODES) / np.sqrt(1 - IMAGE))  # (T, classes, nodes)
            exact *= np.einsum("tcn,c->tn", given, np.array(shares))
            loss = np.logaddexp(0, -SLOPE * (each[:, :, None] + NODES)) @ WEIGHTS / WEIGHTS.sum()
            losses.append(loss @ np.array(shares))
        return {
            "val_loss": np.mean(losses, axis=0),
            "val_accuracy": np.mean(accuracies, axis=0),
            "val_balanced_accuracy": np.mean([each.mean(axis=1) for each in recalls], axis=0),
            "val_exact_match": exact @ WEIGHTS / WEIGHTS.sum(),
            **{f"val_accuracy/head{index}": each for index, each in enumerate(accuracies)},
        }

    def outcomes(self, random: np.random.Generator, images: int = 1000, least: int = 0) -> Outcomes:
        """What the trials make of images. least: of how many images each class has at least this number."""
        heads, losses, hits = [], [], []
        image = np.sqrt(IMAGE) * random.standard_normal(images, np.float32)
        for index, (shares, easier) in enumerate(zip(self.shares, self.easier, strict=True)):
            labels = random.choice(len(shares), images, p=shares)
            while np.bincount(labels, minlength=len(shares)).min() < least:
                labels = random.choice(len(shares), images, p=shares)
            common = image + np.sqrt(HEAD) * random.standard_normal(images, np.float32) + np.array(easier)[labels]
            margin = random.standard_normal((self.trials, images), np.float32) * np.float32(np.sqrt(OWN))
            margin += common.astype(np.float32) + self.means[:, None].astype(np.float32)
            heads.append(HeadLabels(f"head{index}", len(shares), labels.astype(np.int64)))
            hits.append((margin > 0)[None])
            losses.append(np.log(1 + np.exp(np.float32(-SLOPE) * margin)))  # much quicker than logaddexp
        return Outcomes(tuple(heads), tuple(losses), tuple(hits))
