"""Batches from the image cache: gathered as uint8, then cropped, flipped and normalised on the training device.

Order and augmentation are pure functions of (seed, epoch, batch). The random numbers are drawn for the whole global
batch and then sliced, so that one worker and several workers see the same pixels. They are drawn whether or not they
are used, so that switching one augmentation on leaves the others as they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fashion.config.data import DataConfig
from fashion.data.augment import DRAWS, FLIP, augment, erase_, normalize_, unit
from fashion.data.lists import MISSING
from fashion.data.pack import Pack
from fashion.data.views import CENTRE, CropView, crop, places_of
from fashion.errors import UserError
from fashion.files import submitted

CPU = torch.device("cpu")

# Batches that are gathered and copied to a GPU while another one is in use.
GPU_AHEAD = 2


@dataclass(frozen=True)
class Worker:
    """One process of a trial: its rank among `world_size` and the device that it computes on."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU


ALONE = Worker()


class ByRow(Protocol):
    """What batches are gathered from: an array, or several that look like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, for pixels in [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch. `number` counts from 1, `batch_size` is global, `first` is the batch (from 0) to begin
    with. `among` (m,): the rows of the images that are trained on, ascending; None for all. `weights` (m,): the
    probability of each of them to be drawn, with replacement; None for each once."""

    number: int
    batch_size: int
    seed: int
    first: int = 0
    among: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None

    def rows(self, n: int, world_size: int) -> list[NDArray[np.int64]]:
        """The rows, of `n` images, of each global batch of the epoch, from batch 0 on; alike on all ranks."""
        count = n if self.among is None else len(self.among)
        drawn = np.random.default_rng([self.seed, self.number, 0])
        order = drawn.permutation(count) if self.weights is None else drawn.choice(count, count, p=self.weights)
        order = order if self.among is None else self.among[order]
        steps = steps_per_epoch(count, self.batch_size, world_size)
        return [order[step * self.batch_size : (step + 1) * self.batch_size] for step in range(steps)]

    def draws(self, n: int, step: int) -> NDArray[np.float32]:
        """The uniform numbers (DRAWS, n) that decide how the `n` images of global batch `step` are augmented."""
        return np.random.default_rng([self.seed, self.number, 1, step]).random((DRAWS, n)).astype(np.float32)


@dataclass(frozen=True)
class Batch:
    """`images` float32 (n, 3, T, T) in channels_last memory, `targets` int64 (n, columns), or (n, 0) without labels.
    `others`: further views of the same images, of the same shape, which are evaluated together with them.

    `global_count` is the number of images in the global batch; in evaluation, which has none, it is n. `known`
    (columns,) float32: how many labels of each column are known in the global batch; None in evaluation, and in
    training on a split of which none is missing. `rows` (n,) int64, on the host: in training, where in the pack the
    images are.
    """

    images: Tensor
    targets: Tensor
    global_count: int
    known: Tensor | None = None
    others: tuple[Tensor, ...] = ()
    rows: Tensor | None = None


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


def complete(labels: NDArray[np.int64]) -> bool:
    """Whether all labels (n, columns) are known."""
    return not (labels == MISSING).any()


def count_known(labels: NDArray[np.int64], device: torch.device) -> Tensor:
    """How many labels (n, columns) of each column are known, (columns,) float32."""
    return torch.from_numpy((labels != MISSING).sum(0, dtype=np.float32)).to(device, non_blocking=True)


def flipped(draw: NDArray[np.float32], probability: float) -> NDArray[np.bool_]:
    """Which images of a batch are mirrored in training, (n,)."""
    flips: NDArray[np.bool_] = draw[FLIP] < np.float32(probability)
    return flips


def train_batches(
    pack: Pack,
    config: DataConfig,
    normalization: Normalization,
    epoch: Epoch,
    worker: Worker = ALONE,
    side: int | None = None,
) -> Iterator[Batch]:
    """This worker's share of one epoch in random order, augmented as `config` says, from batch `epoch.first` on. side:
    of the images in pixels, where it is not `config.training_side`.

    Global batch b is perm[b*B:(b+1)*B] of a permutation that all ranks draw alike; rank r takes every world_size-th
    image of it, starting with image r.
    """
    images, labels = _arrays(pack, config)
    batches = epoch.rows(len(images), worker.world_size)
    side = side or config.training_side
    view = crop(images, "centre", side) if config.crop_mode == "center" else images
    mean, std = _rows(normalization.mean, side, worker.device), _rows(normalization.std, side, worker.device)
    share = slice(worker.rank, None, worker.world_size)
    whole = complete(labels)
    mine = [batch[share] for batch in batches[epoch.first :]]
    for step, (pixels, targets) in enumerate(prefetched(view, labels, mine, worker.device), epoch.first):
        draws = epoch.draws(len(batches[step]), step)
        draw = torch.from_numpy(draws[:, share]).to(worker.device, non_blocking=True)
        floats = augment(pixels, draw, config, side)
        normalize_(floats, mean, std)
        if config.erase:
            erase_(floats, draw, config.erase)
        known = None if whole else count_known(labels[batches[step]], worker.device)
        rows = torch.from_numpy(batches[step][share])
        yield Batch(floats, targets, len(batches[step]), known, rows=rows)


def eval_batches(
    pack: Pack | NDArray[np.uint8],
    config: DataConfig,
    normalization: Normalization,
    batch_size: int,
    worker: Worker = ALONE,
    among: NDArray[np.int64] | None = None,
    views: Sequence[CropView] = CENTRE,
) -> Iterator[Batch]:
    """Centre crops in order: rank r takes images r, r + world_size ..., `batch_size` at a time (shards may be uneven).

    `pack` may be a bare array (N, S, S, 3) uint8. among (m,): the rows that are evaluated; None for all. views: what a
    batch has of each image, the first as its `images`, the `others` behind it. The pixels equal those of torchvision's
    CenterCrop or FiveCrop, ToTensor and Normalize to the last bit.
    """
    images, labels = _arrays(pack, config)
    mine = (np.arange(len(images)) if among is None else among)[worker.rank :: worker.world_size]
    rows = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    mean, std = (_rows(each, config.crop, worker.device) for each in (normalization.mean, normalization.std))
    places = places_of(views)
    whole = images if len(places) > 1 else crop(images, places[0], config.crop)  # no more than is needed is gathered
    for pixels, targets in prefetched(whole, labels, rows, worker.device):
        crops = {}
        for place in places:
            crops[place] = unit(pixels if len(places) == 1 else crop(pixels, place, config.crop).contiguous())
            normalize_(crops[place], mean, std)
        first, *others = (crops[view.place].flip(-1) if view.mirrored else crops[view.place] for view in views)
        yield Batch(first, targets, len(pixels), others=tuple(others))


def _arrays(pack: Pack | NDArray[np.uint8], config: DataConfig) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = (pack, None) if isinstance(pack, np.ndarray) else (pack.images, pack.labels)
    if images.shape[1] != config.resize:
        raise ValueError(f"images of {images.shape[1]} px do not belong to resize: {config.resize}")
    return images, np.zeros((len(images), 0), np.int64) if labels is None else labels


def _rows(values: Sequence[float], width: int, device: torch.device) -> Tensor:
    """Values per channel as they follow one another in a row of `width` pixels."""
    return torch.tensor(values, dtype=torch.float32, device=device).repeat(width)


def prefetched(
    images: ByRow,
    labels: NDArray[np.int64],
    batches: Sequence[NDArray[np.int64]],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of each batch, as tensors on the device.

    The next batches are gathered in threads while one is in use: pages may have to come from the disk.

    For a GPU the threads also copy them, from pinned memory and on a stream of their own, so that the copy of one batch
    overlaps with the computation on another.
    """
    gather = _to_gpu(images, labels, device) if device.type == "cuda" else _to_host(images, labels)
    ahead = GPU_AHEAD if device.type == "cuda" else 1
    with ThreadPoolExecutor(ahead) as threads:
        waiting: deque[Future[Callable[[], tuple[Tensor, Tensor]]]] = deque()
        for rows in batches:
            waiting.append(submitted(threads, gather, rows))
            if len(waiting) > ahead:
                yield waiting.popleft().result()()
        while waiting:
            yield waiting.popleft().result()()


def _to_host(
    images: ByRow, labels: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], Callable[[], tuple[Tensor, Tensor]]]:
    def gather(rows: NDArray[np.int64]) -> Callable[[], tuple[Tensor, Tensor]]:
        batch = torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])
        return lambda: batch

    return gather


def _to_gpu(
    images: ByRow, labels: NDArray[np.int64], device: torch.device
) -> Callable[[NDArray[np.int64]], Callable[[], tuple[Tensor, Tensor]]]:
    copying = torch.cuda.Stream(device)
    kind = torch.from_numpy(np.empty(0, images.dtype)).dtype

    def gather(rows: NDArray[np.int64]) -> Callable[[], tuple[Tensor, Tensor]]:
        pixels = torch.empty((len(rows), *images.shape[1:]), dtype=kind, pin_memory=True)
        into = pixels.numpy()
        for position, row in enumerate(rows):  # straight into pinned memory: images[rows] would be one more copy
            into[position] = images[row]
        targets = torch.from_numpy(labels[rows]).pin_memory()
        with torch.cuda.stream(copying):
            batch = pixels.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            copied = copying.record_event()

        def take() -> tuple[Tensor, Tensor]:
            computing = torch.cuda.current_stream(device)
            computing.wait_event(copied)
            for tensor in batch:
                # The copying stream must not reuse its memory before this stream is done with it.
                tensor.record_stream(computing)
            return batch

        return take

    return gather
