"""The views of an image that are evaluated together: crops and their mirrors (Krizhevsky et al. 2012, 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fashion.config.data import DataConfig

# Where a crop of some pixels begins in an image of that many more: (top, left), as torchvision's five_crop has them.
CORNERS: Mapping[str, Callable[[int], tuple[int, int]]] = {
    "centre": lambda room: (round(room / 2.0), round(room / 2.0)),
    "top left": lambda room: (0, 0),
    "top right": lambda room: (0, room),
    "bottom left": lambda room: (room, 0),
    "bottom right": lambda room: (room, room),
}
# The keys are the numbers that `DataConfig.eval_crops` allows.
EVAL_CROPS: Mapping[int, tuple[str, ...]] = {1: ("centre",), 5: tuple(CORNERS)}


Squares = TypeVar("Squares", NDArray[np.uint8], Tensor)


class CropView(NamedTuple):
    """A crop of an image, by its place, or the mirror of that crop."""

    place: str = "centre"
    mirrored: bool = False


CENTRE = (CropView(),)


def views_of(config: DataConfig) -> tuple[CropView, ...]:
    """What is evaluated of each image: its crops, and with data.eval_flip their mirrors; the centre crop first."""
    places = EVAL_CROPS[config.eval_crops]
    return tuple(CropView(place, mirrored) for mirrored in (False, True)[: 1 + config.eval_flip] for place in places)


def crop(images: Squares, place: str, side: int) -> Squares:
    """Windows (n, side, side, 3) of images (n, S, S, 3), without a copy; the centre is rounded as torchvision's
    center_crop rounds it."""
    top, left = CORNERS[place](images.shape[1] - side)
    return images[:, top : top + side, left : left + side]


def places_of(views: Sequence[CropView]) -> list[str]:
    """The places of the crops, each once."""
    return list(dict.fromkeys(view.place for view in views))
