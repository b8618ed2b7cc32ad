"""A backbone cut in two: frozen first stages, which make maps of images, and a tail that is trained on the maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fashion.model.backbones import BackboneRow
from fashion.model.network import make_backbone, meta_backbone, stages_of, take_off

# The features of a cut backbone may differ from the whole one's by this share of their norm: by rounding alone.
TOLERANCE = 1e-4


class _Reached(Exception):  # noqa: N818 (no error: it ends a forward pass that has given what was wanted)
    pass


def maps_behind(
    backbone: nn.Module, counts: Sequence[int], images: Tensor, kind: torch.dtype = torch.float16
) -> list[Tensor]:
    """What the first stages of a backbone make of images (n, 3, H, W), for each of these numbers of stages, as copies
    of the type `kind`. One forward pass, of which nothing behind the last of those stages is computed.

    Raises ValueError where a stage gives no single tensor.
    """
    stages, last = stages_of(backbone), max(counts)
    found: dict[int, Tensor] = {}

    def reached(count: int, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(f"{stages[count - 1][0]} gives no single tensor")
        found[count] = output.to(kind, copy=True)  # the next stage may change it in place
        if count == last:
            raise _Reached

    handles = [
        stages[count - 1][1].register_forward_hook(lambda module, inputs, output, count=count: reached(count, output))
        for count in set(counts)
    ]
    try:
        backbone(images)
    except _Reached:
        return [found[count] for count in counts]
    finally:
        for handle in handles:
            handle.remove()
    raise ValueError(f"{stages[last - 1][0]} takes no part in a forward pass")


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
            return tuple(maps_behind(network, [count], torch.zeros(1, 3, side, side, device=device))[0].shape[1:])
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
        backbone = make_backbone(row)[0].eval()
        images = torch.rand(2, 3, side, side).sub_(0.5)
        whole, (maps,) = backbone(images), maps_behind(backbone, [count], images, torch.float32)
        take_off(backbone, stages_of(backbone)[:count])
        try:
            cut = backbone(maps)
        except (RuntimeError, ValueError, TypeError, AttributeError):
            return False
    return cut.shape == whole.shape and bool((cut - whole).norm() <= TOLERANCE * whole.norm())
