"""A backbone cut in two: frozen first stages, which make maps of images, and a tail that is trained on the maps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fashion.model.backbones import BackboneRow
from fashion.model.classifier import MultiHeadClassifier
from fashion.model.network import make_backbone, meta_backbone, stages_of

# The features of a cut backbone may differ from the whole one's by this share of their norm: by rounding alone.
TOLERANCE = 1e-4


class _Reached(Exception):  # noqa: N818 (no error: it ends a forward pass that has given what was wanted)
    def __init__(self, maps: Any) -> None:
        self.maps = maps


def maps_of(backbone: nn.Module, count: int, images: Tensor) -> Tensor:
    """What the first `count` stages of a backbone make of images (n, 3, H, W); nothing behind them is computed.

    Raises ValueError where that is not one tensor.
    """

    def reached(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _Reached(output)

    name, last = stages_of(backbone)[count - 1]
    handle = last.register_forward_hook(reached)
    try:
        backbone(images)
    except _Reached as found:
        if not isinstance(found.maps, Tensor):
            raise ValueError(f"{name} gives no single tensor") from None
        return found.maps
    finally:
        handle.remove()
    raise ValueError(f"{name} takes no part in a forward pass")


@lru_cache(maxsize=256)
def map_shape(row: BackboneRow, side: int, count: int) -> tuple[int, ...]:
    """The shape of the maps of one image of `side` x `side` pixels behind the first `count` stages: (C, S, S) for a
    convolutional network. Raises ValueError where there is no such map."""
    network, _ = meta_backbone(row)
    try:
        return _shape(network, side, count, "meta")
    except (RuntimeError, NotImplementedError):  # the meta device lacks some operations
        with torch.random.fork_rng(devices=[]):
            network, _ = make_backbone(row)
        return _shape(network, side, count, "cpu")


def _shape(network: nn.Module, side: int, count: int, device: str) -> tuple[int, ...]:
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return tuple(maps_of(network, count, torch.zeros(1, 3, side, side, device=device)).shape[1:])
    finally:
        network.train(was_training)


def why_not_cut(row: BackboneRow, side: int, count: int, crop_cells: int = 0) -> str:
    """Why a trial of `mode: tail` can't cut this backbone behind `count` stages, for images of `side` x `side` pixels;
    empty if it can.

    The networks of the table are known to be chains of their stages (a test). Any other one is built and tried: what it
    does between its stages (adds a position embedding, say) would be done twice.
    """
    if count >= len(stages_of(meta_backbone(row)[0])):
        return ""  # which is told of any frozen stages
    try:
        shape = map_shape(row, side, count)
    except (RuntimeError, ValueError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    if crop_cells and (len(shape) != 3 or shape[1] != shape[2]):
        return f"maps of shape {shape} can't be cropped: data.crop_cells must be 0"
    if crop_cells and crop_cells >= shape[1]:
        return f"its maps have {shape[1]} x {shape[1]} cells, and data.crop_cells ({crop_cells}) must leave some"
    if row.name.startswith("timm:") and not is_chain(row, side, count):
        return "it computes more between its stages than the stages themselves"
    return ""


def is_chain(row: BackboneRow, side: int, count: int) -> bool:
    """Whether the cut backbone gives the whole one's features, on two random images."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        backbone, width = make_backbone(row)
        model = MultiHeadClassifier(backbone, width, (), 0.0).eval()
        images = torch.rand(2, 3, side, side).sub_(0.5)
        whole, maps = model.features(images), maps_of(backbone, count, images).clone()
        try:
            cut = model.without_stages(count).features(maps)
        except (RuntimeError, ValueError, TypeError, AttributeError):
            return False
    return cut.shape == whole.shape and bool((cut - whole).norm() <= TOLERANCE * whole.norm())
