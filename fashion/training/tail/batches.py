"""Batches of maps: a tail's share of an epoch, flipped and cropped as maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.data.augment import CELLS, LEFT, TOP
from fashion.data.batches import ALONE, Batch, Epoch, Worker, complete, count_known, flipped, prefetched

MapArray = NDArray[np.float16]


@dataclass(frozen=True)
class Views:
    """Two arrays as one: row i of `plain` (N, ...) is row i, row i of `mirrored` row N + i."""

    plain: MapArray
    mirrored: MapArray | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plain.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.plain.dtype

    def __getitem__(self, rows: Any, /) -> MapArray:
        count = len(self.plain)
        if self.mirrored is None:
            return np.asarray(self.plain[rows])
        if np.ndim(rows) == 0:
            return np.asarray(self.plain[rows] if rows < count else self.mirrored[rows - count])
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        turned = rows >= count
        found[~turned], found[turned] = self.plain[rows[~turned]], self.mirrored[rows[turned] - count]
        return found


@dataclass(frozen=True, eq=False)
class Maps:
    """`plain` (N, C, S, S) float16: the maps of each image, in the pack's order. `mirrored`: those of their mirror
    images, None where a trial does not need them. `labels` (N, columns). crop_cells: how many cells smaller a random
    crop in training may be."""

    plain: MapArray
    mirrored: MapArray | None
    labels: NDArray[np.int64]
    crop_cells: int = 0

    def train_batches(self, flip: float, epoch: Epoch, worker: Worker = ALONE) -> Iterator[Batch]:
        """This worker's share of one epoch: the order and the flips of `data.batches.train_batches`, and random crops
        of the maps, of one size for the global batch and at a place of its own for each image."""
        count, whole = len(self.plain), complete(self.labels)
        share = slice(worker.rank, None, worker.world_size)
        batches = epoch.rows(count, worker.world_size)
        draws = [epoch.draws(len(rows), step) for step, rows in enumerate(batches[epoch.first :], epoch.first)]
        mirrored = flip if self.mirrored is not None else 0.0
        picked = [
            (rows + count * flipped(draw, mirrored))[share]
            for rows, draw in zip(batches[epoch.first :], draws, strict=True)
        ]
        for draw, rows, (maps, targets) in zip(
            draws, batches[epoch.first :], self._gathered(picked, worker), strict=True
        ):
            if self.crop_cells:
                side = maps.shape[-1] - int(draw[CELLS, 0] * (self.crop_cells + 1))
                maps = crop(maps, torch.from_numpy(draw[:, share]).to(worker.device, non_blocking=True), side)
            known = None if whole else count_known(self.labels[rows], worker.device)
            yield Batch(floats(maps), targets, len(rows), known, rows=torch.from_numpy(rows[share]))

    def eval_batches(
        self, batch_size: int, worker: Worker = ALONE, among: NDArray[np.int64] | None = None
    ) -> Iterator[Batch]:
        """This worker's rows in order; a batch's `others` are the maps of its mirrors. among (m,): the rows that are
        evaluated; None for all."""
        count = len(self.plain)
        mine = (np.arange(count) if among is None else among)[worker.rank :: worker.world_size]
        plain = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        views = 1 if self.mirrored is None else 2
        found = self._gathered([rows + count * view for rows in plain for view in range(views)], worker)
        for maps, targets in found:
            mirrored = () if self.mirrored is None else (floats(next(found)[0]),)
            yield Batch(floats(maps), targets, len(maps), others=mirrored)

    def _gathered(
        self, batches: list[NDArray[np.int64]], worker: Worker
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        labels = self.labels if self.mirrored is None else np.concatenate([self.labels, self.labels])
        return prefetched(Views(self.plain, self.mirrored), labels, batches, worker.device)


def floats(maps: torch.Tensor) -> torch.Tensor:
    """Maps as float32, in channels_last memory where they have four dimensions."""
    if maps.ndim == 4:
        return maps.to(torch.float32, memory_format=torch.channels_last)
    return maps.float()


def crop(maps: torch.Tensor, draw: torch.Tensor, side: int) -> torch.Tensor:
    """Windows (n, C, side, side) of maps (n, C, S, S), every offset equally likely. draw: (DRAWS, n) uniform numbers in
    [0, 1), on the same device."""
    room = maps.shape[-1] - side + 1
    top, left = ((draw[name] * room).long().clamp_(max=room - 1) for name in (TOP, LEFT))
    windows = maps.unfold(2, side, 1).unfold(3, side, 1)  # a view: (n, C, room, room, side, side)
    return windows[torch.arange(len(maps), device=maps.device), :, top, left]
