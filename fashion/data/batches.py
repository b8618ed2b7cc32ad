"""Batches from the image cache: gathered as uint8, then cropped, flipped and normalised on the training device.

Order and augmentation are pure functions of (seed, epoch, batch): the parameters are drawn for the whole global batch
and then sliced, so that one worker and several workers see the same pixels, and drawn whether or not they are used,
so that switching one augmentation on leaves the others as they were.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fashion.config import DataConfig
from fashion.data.pack import Pack
from fashion.errors import UserError

# Columns of the uniform draws; append only, or every seed's pixels change.
(
    _FLIP,
    _TOP,
    _LEFT,
    _AREA,
    _ASPECT,
    _BRIGHTNESS,
    _CONTRAST,
    _ERASE,
    _ERASE_AREA,
    _ERASE_ASPECT,
    _ERASE_TOP,
    _ERASE_LEFT,
) = range(12)
_DRAWS = 12

# Batches that are gathered and copied to a GPU before the one in use is done.
GPU_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """`images` float (n, 3, T, T) in channels_last memory, `targets` int64 (n, heads), (n, 0) without labels.

    `global_count` is the number of images in this batch over all ranks (in evaluation: in this batch).
    """

    images: Tensor
    targets: Tensor
    global_count: int


def steps_per_epoch(n: int, batch_size: int, world_size: int = 1) -> int:
    """Batches of one epoch over `n` images; `batch_size` is global.

    A short last batch is dropped when it would give some rank fewer than two images (batch normalisation needs two),
    unless it is the only one. Raises UserError when a rank would get no image at all.
    """
    if min(n, batch_size) < world_size:
        raise UserError(
            f"{world_size} workers need at least one image each in a batch: "
            f"there are {n} training images, and batch_size is {batch_size}."
        )
    full, rest = divmod(n, batch_size)
    return full + 1 if rest // world_size >= 2 or full == 0 else full


def shuffled(n: int, batch_size: int, seed: int, epoch: int, world_size: int = 1) -> list[NDArray[np.int64]]:
    """The rows of each global batch of one epoch, alike on all ranks."""
    order = np.random.default_rng([seed, epoch, 0]).permutation(n)
    steps = steps_per_epoch(n, batch_size, world_size)
    return [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]


def drawn(n: int, seed: int, epoch: int, step: int) -> NDArray[np.float32]:
    """The uniform numbers (n, 12) that decide how the images of global batch `step` are augmented."""
    return np.random.default_rng([seed, epoch, 1, step]).random((n, _DRAWS)).astype(np.float32)


def flipped(draw: NDArray[np.float32], probability: float) -> NDArray[np.bool_]:
    """Which images of a batch are mirrored in training, (n,)."""
    return draw[:, _FLIP] < np.float32(probability)


def train_batches(
    pack: Pack,
    config: DataConfig,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    first: int = 0,
) -> Iterator[Batch]:
    """This rank's share of one epoch in random order, augmented as `config` says; from batch `first` on.

    Global batch b is perm[b*B:(b+1)*B] of a permutation that all ranks draw alike; rank r takes every world_size-th
    image of it from r. `mean` and `std` are per channel, for pixels in [0, 1].
    """
    images, labels = _arrays(pack, config)
    batches = shuffled(len(images), batch_size, seed, epoch, world_size)
    side = config.train_crop or config.crop
    view = _center(images, side) if config.crop_mode == "center" else images
    mean_, std_ = _rows(mean, side, device), _rows(std, side, device)
    for step, (pixels, targets) in enumerate(
        _prefetched(view, labels, [batch[rank::world_size] for batch in batches[first:]], device), first
    ):
        draws = drawn(len(batches[step]), seed, epoch, step)
        draw = torch.from_numpy(draws[rank::world_size]).to(device, non_blocking=True)
        floats = augment(pixels, draw, config, side)
        normalize_(floats, mean_, std_)
        if config.erase:
            erase_(floats, draw, config.erase)
        yield Batch(floats.to(dtype), targets, len(batches[step]))


def eval_batches(
    pack: Pack | NDArray[np.uint8],
    config: DataConfig,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """Centre crops in order: rank r takes images r, r + world_size ..., `batch_size` at a time (shards may be uneven).

    `pack` may be a bare array (N, S, S, 3) uint8. In float32 the pixels equal torchvision's CenterCrop, ToTensor and
    Normalize to the last bit.
    """
    images, labels = _arrays(pack, config)
    mine = np.arange(len(images))[rank::world_size]
    rows = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    mean_, std_ = _rows(mean, config.crop, device), _rows(std, config.crop, device)
    for pixels, targets in _prefetched(_center(images, config.crop), labels, rows, device):
        floats = unit(pixels)
        normalize_(floats, mean_, std_)
        yield Batch(floats.to(dtype), targets, len(pixels))


def augment(pixels: Tensor, draw: Tensor, config: DataConfig, side: int) -> Tensor:
    """Crop, flip and jitter a uint8 batch (n, S, S, 3) to floats (n, 3, side, side) in [0, 1].

    `draw` (n, 12) holds uniform numbers in [0, 1), one row an image, on the batch's device.
    """
    flip = draw[:, _FLIP] < config.flip
    if config.crop_mode == "resized":
        floats = resized_crop(unit(pixels), draw, flip, config.crop_scale, side)
    else:
        if config.crop_mode == "random":
            pixels = random_crop(pixels, draw, side)
        if config.flip:
            pixels = torch.where(flip[:, None, None, None], pixels.flip(2), pixels)
        floats = unit(pixels)
    return jitter(floats, draw, config.jitter) if config.jitter else floats


def unit(pixels: Tensor) -> Tensor:
    """uint8 (n, H, W, 3) to float32 (n, 3, H, W) in [0, 1], channels_last, as torchvision's ToTensor."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def normalize_(images: Tensor, mean: Tensor, std: Tensor) -> None:
    """Subtract and divide in place, as torchvision's Normalize: images (n, 3, H, W) in channels_last memory, `mean` and
    `std` (3 W) for a row of pixels. Broadcasting over three innermost channels takes a CPU five times as long."""
    images.permute(0, 2, 3, 1).view(*images.shape[::2], -1).sub_(mean).div_(std)


def random_crop(pixels: Tensor, draw: Tensor, side: int) -> Tensor:
    """Exact uint8 windows (n, side, side, 3), every offset equally likely."""
    room = pixels.shape[1] - side + 1
    top, left = ((draw[:, column] * room).long().clamp_(max=room - 1) for column in (_TOP, _LEFT))
    windows = (
        pixels.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
    )  # a view: (n, room, room, side, side, 3)
    return windows[torch.arange(len(pixels), device=pixels.device), top, left]


def resized_crop(images: Tensor, draw: Tensor, flip: Tensor, scale: float, side: int) -> Tensor:
    """A random rectangle of each image, `scale` to 1 of its area, aspect 3/4 to 4/3, sampled to (n, 3, side, side).

    One bilinear sampling for the whole batch, flip included. It does not smooth before it shrinks, so `resize` should
    be at most about twice the training crop.
    """
    area = scale + (1 - scale) * draw[:, _AREA]
    aspect = torch.exp((2 * draw[:, _ASPECT] - 1) * math.log(4 / 3))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = torch.where(flip, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * draw[:, _LEFT] - 1) * (1 - width)
    theta[:, 1, 2] = (2 * draw[:, _TOP] - 1) * (1 - height)
    grid = F.affine_grid(theta, [len(images), 3, side, side], align_corners=False)
    sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)


def jitter(images: Tensor, draw: Tensor, strength: float) -> Tensor:
    """Random brightness, then contrast, each by 1 - strength to 1 + strength, as torchvision's ColorJitter."""
    brightness, contrast = (
        1 + strength * (2 * draw[:, column, None, None, None] - 1) for column in (_BRIGHTNESS, _CONTRAST)
    )
    images = (images * brightness).clamp_(0, 1)
    grey = (
        (images * images.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1))
        .sum(1, keepdim=True)
        .mean((2, 3), keepdim=True)
    )
    return torch.lerp(grey, images, contrast).clamp_(0, 1)


def erase_(images: Tensor, draw: Tensor, probability: float) -> None:
    """Random erasing in place (Zhong et al. 2020): with `probability` a rectangle of 2 to 33 % of the area and aspect
    0.3 to 3.3 becomes zero, which is the mean colour of normalised images."""
    side = images.shape[-1]
    area = 0.02 + 0.31 * draw[:, _ERASE_AREA]
    aspect = torch.exp((2 * draw[:, _ERASE_ASPECT] - 1) * math.log(3.3))
    width, height = ((area * ratio).sqrt().clamp(max=1) for ratio in (aspect, 1 / aspect))
    steps = (torch.arange(side, device=images.device) + 0.5) / side
    top, left = draw[:, _ERASE_TOP] * (1 - height), draw[:, _ERASE_LEFT] * (1 - width)
    rows = (steps >= top[:, None]) & (steps < (top + height)[:, None])
    columns = (steps >= left[:, None]) & (steps < (left + width)[:, None])
    chosen = draw[:, _ERASE] < probability
    images.masked_fill_((rows[:, :, None] & columns[:, None, :] & chosen[:, None, None])[:, None], 0.0)


def _arrays(pack: Pack | NDArray[np.uint8], config: DataConfig) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = (pack, None) if isinstance(pack, np.ndarray) else (pack.images, pack.labels)
    if images.shape[1] != config.resize:
        raise ValueError(f"images of {images.shape[1]} px do not belong to resize: {config.resize}")
    return images, np.zeros((len(images), 0), np.int64) if labels is None else labels


def _center(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The centre crop as a view; the offset is rounded as torchvision's center_crop rounds it."""
    top = round((images.shape[1] - side) / 2.0)
    return images[:, top : top + side, top : top + side]


def _rows(values: Sequence[float], width: int, device: torch.device | str) -> Tensor:
    """Values per channel as they follow one another in a row of `width` pixels."""
    return torch.tensor(values, dtype=torch.float32, device=device).repeat(width)


def _prefetched(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    batches: Sequence[NDArray[np.int64]],
    device: torch.device | str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gather the next batches in threads while one is used: pages may have to come from the disk.

    To a GPU the threads copy them, too, from pinned memory and on a stream of their own, so that the copy of one batch
    overlaps with computing on another.
    """
    device = torch.device(device)
    gather = _to_gpu(images, labels, device) if device.type == "cuda" else _to_host(images, labels)
    ahead = GPU_AHEAD if device.type == "cuda" else 1
    with ThreadPoolExecutor(ahead) as threads:
        waiting: deque[Future[Callable[[], tuple[Tensor, Tensor]]]] = deque()
        for rows in batches:
            waiting.append(threads.submit(gather, rows))
            if len(waiting) > ahead:
                yield waiting.popleft().result()()
        while waiting:
            yield waiting.popleft().result()()


def _to_host(
    images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], Callable[[], tuple[Tensor, Tensor]]]:
    def gather(rows: NDArray[np.int64]) -> Callable[[], tuple[Tensor, Tensor]]:
        batch = torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])
        return lambda: batch

    return gather


def _to_gpu(
    images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device
) -> Callable[[NDArray[np.int64]], Callable[[], tuple[Tensor, Tensor]]]:
    copying = torch.cuda.Stream(device)

    def gather(rows: NDArray[np.int64]) -> Callable[[], tuple[Tensor, Tensor]]:
        pixels = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        into = pixels.numpy()
        for place, row in enumerate(rows):  # straight into pinned memory: images[rows] would be one copy more
            into[place] = images[row]
        targets = torch.from_numpy(labels[rows]).pin_memory()
        with torch.cuda.stream(copying):
            batch = pixels.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            copied = copying.record_event()

        def take() -> tuple[Tensor, Tensor]:
            computing = torch.cuda.current_stream(device)
            computing.wait_event(copied)
            for tensor in batch:
                # Its memory is not the copying stream's to use again before this stream is done with it.
                tensor.record_stream(computing)
            return batch

        return take

    return gather
