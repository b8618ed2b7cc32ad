"""Batches from the image cache: gathered as uint8, then cropped, flipped and normalised on the training device.

Order and augmentation are pure functions of (seed, epoch, batch): the parameters are drawn for the whole global batch
and then sliced, so that one worker and several workers see the same pixels, and drawn whether or not they are used,
so that switching one augmentation on leaves the others as they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fashion.config import DataConfig
from fashion.data.augment import DRAWS, FLIP, augment, erase_, normalize_, unit
from fashion.data.pack import Pack
from fashion.errors import UserError

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
    return np.random.default_rng([seed, epoch, 1, step]).random((n, DRAWS)).astype(np.float32)


def flipped(draw: NDArray[np.float32], probability: float) -> NDArray[np.bool_]:
    """Which images of a batch are mirrored in training, (n,)."""
    return draw[:, FLIP] < np.float32(probability)


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
