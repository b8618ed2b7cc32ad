"""A teacher's class probabilities of the training images (`train.teacher`). Without torch: the driver reads them, and
hands them out with the trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """images: N names; probabilities: for each attribute (N, classes) float32, in the data set's order of attributes
    and classes. sha256: of the file that holds them, in hex."""

    images: tuple[str, ...]
    probabilities: tuple[NDArray[np.float32], ...]
    sha256: str

    def lacking(self, names: Sequence[str]) -> list[str]:
        """Those of the images that have no probabilities."""
        holes = np.flatnonzero(~np.isfinite(np.concatenate(self.probabilities, axis=1)).all(axis=1))
        known = set(self.images) - {self.images[row] for row in holes}
        return [name for name in names if name not in known]

    def of(self, names: Sequence[str]) -> NDArray[np.float32]:
        """(n, all classes) of these images, one attribute's columns beside the other's; NaN for one that the file does
        not have."""
        row = {name: number for number, name in enumerate(self.images)}
        rows = np.array([row.get(name, -1) for name in names], np.int64)
        found = np.concatenate(self.probabilities, axis=1)[rows]
        found[rows < 0] = np.nan
        return found
