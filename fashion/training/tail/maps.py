"""Maps of every image, computed once: what the trials of `train.mode: tail` train on.

The frozen first stages of a backbone give an image the same maps in every epoch of every trial. They are kept as
float16 in one Arrow file per (image cache, crop, normalisation, backbone, weights, cut, mirrored or not), beside the
image caches, and mapped by all trials of a machine. A file that was not finished is gone on with.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fashion.config import TrialConfig
from fashion.data.augment import CELLS, LEFT, TOP
from fashion.data.batches import (
    ALONE,
    Batch,
    Epoch,
    Normalization,
    Worker,
    complete,
    count_known,
    eval_batches,
    flipped,
    prefetched,
)
from fashion.data.cache.arrow_files import check_seal, positions, seal_path, write_frame, write_seal, zeros
from fashion.data.cache.entries import make_room
from fashion.data.cache.use import keep_open
from fashion.data.contents import require_room
from fashion.data.pack import Pack
from fashion.errors import BlockedError, Problem, UserError
from fashion.files import KernelLock
from fashion.model.backbones import row
from fashion.model.classifier import MultiHeadClassifier, build_model, normalization
from fashion.model.network import complete_row
from fashion.model.weights import ResolvedWeights
from fashion.training.evaluate import evaluation_batch_size
from fashion.training.tail.cut import map_shape, maps_of

FORMAT_VERSION = 1
_SAMPLED = 16  # rows whose checksums are compared whenever a file is opened

Progress = Callable[[int, int], None]
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
            yield Batch(floats(maps), targets, len(rows), known)

    def eval_batches(self, batch_size: int, worker: Worker = ALONE) -> Iterator[tuple[Batch, torch.Tensor | None]]:
        """This worker's rows in order; beside each batch the maps of its mirrors, or None."""
        count = len(self.plain)
        mine = np.arange(count)[worker.rank :: worker.world_size]
        plain = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        views = 1 if self.mirrored is None else 2
        found = self._gathered([rows + count * view for rows in plain for view in range(views)], worker)
        for maps, targets in found:
            mirrored = None if self.mirrored is None else floats(next(found)[0])
            yield Batch(floats(maps), targets, count), mirrored

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


def views_of(config: TrialConfig, split: str) -> tuple[bool, ...]:
    """Which views of a split's images a trial needs: False for the images, True for their mirrors."""
    flips = config.data.flip > 0 if split == "train" else config.data.eval_flip
    return (False, True) if flips else (False,)


def open_maps(
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Maps:
    """The maps that a trial of `config` needs of a labelled pack, with those of the mirror images if the split's images
    are flipped, in training or in evaluation. Raises as `open_or_compute_maps`."""
    assert pack.labels is not None, "train and val have labels: read_dataset refuses them otherwise"
    found = [
        open_or_compute_maps(pack, config, weights, mirrored, device, progress)
        for mirrored in views_of(config, pack.metadata["split"])
    ]
    return Maps(found[0], found[1] if len(found) > 1 else None, pack.labels, config.data.crop_cells)


def open_or_compute_maps(
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> MapArray:
    """The maps (N, C, S, S) of a pack's centre crops behind the first `train.freeze_stages` stages, memory-mapped.

    They are computed first where the file is missing, truncated or damaged; of several processes that ask at the same
    time one computes. What an interrupted process has computed is kept. The batches are those of evaluation, in fp32,
    so that a tail's metrics are those of the whole model.

    Raises BlockedError when the cache folder can't be written, UserError where the maps are too large for float16.
    """
    path = maps_path(pack, config, weights, mirrored)
    found = _valid(path, len(pack))
    if found is not None:
        return found
    try:
        with KernelLock(f"{path}.lock"):
            found = _valid(path, len(pack))
            if found is None:
                _build(path, pack, config, weights, mirrored, torch.device(device), progress)
    except OSError as error:
        raise BlockedError(
            f"The cache of maps can't be written in {path.parent}: {error}. Set FASHION_CACHE to a folder with room."
        ) from error
    return found if found is not None else _open(path)


def described(pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool) -> dict[str, Any]:
    """Everything that the maps depend on."""
    backbone = config.model.backbone
    return {
        "pack": pack.path.name,
        "crop": config.data.crop,
        "normalization": normalization(config.data.normalize, row(backbone)),
        "backbone": backbone,
        # Random weights are the trial's own.
        "weights": weights.sha256 or f"seed {config.seed}",
        "cut": config.train.freeze_stages,
        "mirrored": mirrored,
        "format": FORMAT_VERSION,
    }


def maps_path(pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool) -> Path:
    """The cache file, named by everything that the maps depend on."""
    key = json.dumps(described(pack, config, weights, mirrored), sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return pack.path.with_name(f"{pack.metadata['fingerprint']}-{pack.metadata['split']}-maps-{digest}.arrow")


def maps_size(pack: Pack, config: TrialConfig) -> int:
    """Bytes of the maps of one view of a pack. Raises ValueError where the backbone can't be cut there."""
    shape = map_shape(complete_row(row(config.model.backbone)), config.data.crop, config.train.freeze_stages)
    return int(2 * len(pack) * np.prod(shape))


def is_computed(path: Path, count: int) -> bool:
    """Whether the file holds whole maps of `count` images."""
    return _valid(path, count) is not None


def _valid(path: Path, count: int) -> MapArray | None:
    """The maps if their file is whole, None when they must be computed."""
    if not path.exists():
        return None
    try:
        maps = _open(path)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None  # a damaged cache is computed again; it is no reason to stop
    return maps if len(maps) == count else None


def _open(path: Path) -> MapArray:
    found = path.stat()
    return _mapped(path, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=256)
def _mapped(path: Path, written: int, inode: int) -> MapArray:
    """Mapped once in a warm process."""
    check_seal(path)  # first, since Arrow follows whatever offsets it finds, even out of the mapping
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batch, shape = reader.get_batch(0), json.loads(reader.schema.metadata[b"shape"])
    maps: MapArray = batch.column("maps").flatten().to_numpy().reshape(len(batch), *shape)
    sums = batch.column("crc32").to_numpy()
    if any(zlib.crc32(maps[each]) != sums[each] for each in np.linspace(0, len(maps) - 1, _SAMPLED).astype(int)):
        raise ValueError("its checksums differ")
    keep_open(path, maps)
    return maps


@torch.inference_mode()
def _build(
    path: Path,
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    mirrored: bool,
    device: torch.device,
    progress: Progress | None,
) -> None:
    """Write the file with zeros for maps, or take what an interrupted process has left, and compute into it in
    place."""
    model = frozen_model(config, weights, device)
    channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
    size = evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    temporary = path.with_name(f".{path.name}.tmp")  # one name, held by the lock
    shape = map_shape(complete_row(row(config.model.backbone)), config.data.crop, config.train.freeze_stages)
    key = json.dumps(described(pack, config, weights, mirrored), sort_keys=True)
    left = _left(temporary, len(pack), shape)
    if left is None:
        make_room("The cache of maps", int(2 * len(pack) * np.prod(shape)), path)
    maps, sums = left or _framed(temporary, len(pack), shape, key)
    # Whole batches only, so that no map depends on where a process was interrupted.
    done = _rows_done(maps, sums) // size * size
    for batch in eval_batches(pack.images[done:], config.data, channels, size, Worker(device=device)):
        images = batch.images.flip(-1) if mirrored else batch.images
        found = maps_of(model.backbone, config.train.freeze_stages, images).to(torch.float16).cpu().numpy()
        if not np.isfinite(found).all():
            temporary.unlink()
            rule = f"{config.model.backbone}'s maps there are too large for float16"
            raise UserError(
                Problem("train.freeze_stages", rule, str(config.train.freeze_stages), "Cut elsewhere, or use mode full")
            )
        maps[done : done + len(found)] = found
        sums[done : done + len(found)] = [zlib.crc32(each) for each in np.ascontiguousarray(found)]
        done += len(found)
        if progress is not None:
            progress(done, len(pack))
    maps.flush()
    sums.flush()
    (maps_at,) = positions(temporary, ("maps",))
    write_seal(path, temporary, maps_at, maps.nbytes)
    temporary.replace(path)
    seal_path(temporary).unlink(missing_ok=True)


def frozen_model(config: TrialConfig, weights: ResolvedWeights, device: torch.device) -> MultiHeadClassifier:
    """The whole model in evaluation mode, with the backbone that the trial begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model, (), weights)
    return model.to(memory_format=torch.channels_last).to(device).eval()


Mapped = tuple["np.memmap[Any, np.dtype[np.float16]]", "np.memmap[Any, np.dtype[np.uint32]]"]


def _framed(path: Path, count: int, shape: tuple[int, ...], key: str) -> Mapped:
    """A new file of maps, all of them 0, mapped to be written with their checksums. Its seal leaves both out."""
    width = int(np.prod(shape))
    require_room("The cache of maps", 2 * count * width, path.parent)
    values = pa.Array.from_buffers(pa.float16(), count * width, [None, zeros(2 * count * width)])
    columns = {
        "crc32": pa.array(np.zeros(count, np.uint32)),
        "maps": pa.FixedSizeListArray.from_arrays(values, width),
    }
    try:
        sums_at, maps_at = write_frame(path, columns, ("crc32", "maps"), {"shape": json.dumps(shape), "of": key})
        write_seal(path, path, sums_at, maps_at + 2 * count * width - sums_at)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return _writable(path, count, shape)


def _left(path: Path, count: int, shape: tuple[int, ...]) -> Mapped | None:
    """What an interrupted process has left, mapped to be written; None where there is nothing that can be used."""
    try:
        check_seal(path)
        return _writable(path, count, shape)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _writable(path: Path, count: int, shape: tuple[int, ...]) -> Mapped:
    sums_at, maps_at = positions(path, ("crc32", "maps"))
    maps = np.memmap(path, np.float16, "r+", maps_at, (count, *shape))
    return maps, np.memmap(path, np.uint32, "r+", sums_at, (count,))


def _rows_done(maps: NDArray[np.float16], sums: NDArray[np.uint32]) -> int:
    """How many rows, from the first on, are whole. Those that were not begun are zeros with a checksum of 0."""
    done = 0
    while done < len(maps) and sums[done] and zlib.crc32(maps[done]) == sums[done]:
        done += 1
    return done
