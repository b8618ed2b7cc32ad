"""What is said of a model that was trained on the validation images, too: that no score of it exists, and what a gain
from the further images may be expected to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# How error falls with images: as a power law with exponents from 0.07 to 0.35, by task (Hestness et al. 2017, Deep
# Learning Scaling is Predictable, Empirically).
EXPONENTS = (0.07, 0.35)
NO_SCORE = (
    "It was trained on the validation images as well, so that no validation score of it is available: what is measured "
    "on them now says nothing about new images"
)


def refit_sentences(manifest: Mapping[str, Any]) -> list[str]:
    """Of a run whose trial was trained on both splits. Its `refit_of`, where it has one, says of which trial that has
    the configuration, and how good that was."""
    found = [f"{NO_SCORE}."]
    of, splits = manifest.get("refit_of"), manifest.get("splits", {})
    if not isinstance(of, Mapping):
        return found
    train, val = int(splits.get("train", 0)), int(splits.get("val", 0))
    found.append(
        f"It has the configuration of trial {of['trial']} of {of['run']}, and as many epochs as were best there, "
        f"{of['epoch']}, on {train + val:,} images instead of {train:,}."
    )
    share = of.get("val_accuracy")
    if isinstance(share, float) and 0 < share < 1 and train and val:
        less = [1 - (train / (train + val)) ** exponent for exponent in EXPONENTS]
        likely = [100 * (1 - (1 - share) * (1 - each)) for each in less]
        found.append(
            f"That trial had {100 * share:.2f} % of the validation labels right. Further images lower an error by a "
            f"power law, with exponents from {EXPONENTS[0]} to {EXPONENTS[1]} (Hestness et al. 2017): "
            f"{likely[0]:.2f} to {likely[1]:.2f} % could be expected of it on such images. That is no measurement."
        )
    return found


def unseen(metrics: Mapping[str, float], on_val: bool) -> dict[str, float]:
    """The metrics that say something of the model: without those of validation images that it was trained on."""
    return {name: value for name, value in metrics.items() if not (on_val and name.startswith("val_"))}


def finite(value: Any) -> float | None:
    """A recorded share as a number; None where it is none."""
    return float(value) if isinstance(value, float | int) and math.isfinite(value) else None
