"""Maps of every image, computed once: what the trials of `train.mode: tail` train on.

The frozen first stages of a backbone give an image the same maps in every epoch of every trial. They are kept as
float16 in one Arrow file per (image cache, crop, normalisation, backbone, weights, cut, mirrored or not), beside the
image caches, and mapped by all trials of a machine. A file that was not finished is gone on with.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from fashion.config.trial import TrialConfig
from fashion.data.batches import Normalization, Worker, eval_batches
from fashion.data.cache.arrow_files import check_seal, positions, seal_path, write_frame, write_seal, zeros
from fashion.data.cache.entries import make_room
from fashion.data.cache.use import keep_open
from fashion.data.contents import require_room
from fashion.data.pack import Pack
from fashion.errors import BlockedError, Problem, UserError
from fashion.files import KernelLock
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.model.network import complete_row
from fashion.model.parts.cut import map_shape, maps_behind
from fashion.model.precision import Setting
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.evaluate import evaluation_batch_size
from fashion.training.tail import passes
from fashion.training.tail.batches import MapArray, Maps

FORMAT_VERSION = 1
_SAMPLED = 16  # rows whose checksums are compared whenever a file is opened

Progress = Callable[[int, int], None]


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
    split: str = "",
) -> Maps:
    """The maps that a trial of `config` needs of a labelled pack, with those of the mirror images if the split's images
    are flipped, in training or in evaluation. split: what the images are used as; by default what the pack is of.
    Raises as `open_or_compute_maps`."""
    assert pack.labels is not None, "train and val have labels: read_dataset refuses them otherwise"
    used_as = split or pack.metadata["split"]
    precisions = passes.precisions(config, used_as, device)
    found = [
        open_or_compute_maps(pack, config, weights, mirrored, device, progress, precisions)
        for mirrored in views_of(config, used_as)
    ]
    return Maps(found[0], found[1] if len(found) > 1 else None, pack.labels, config.data.crop_cells)


def open_or_compute_maps(
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    precisions: Sequence[bool] = (False,),
) -> MapArray:
    """The maps (N, C, S, S) of a pack's centre crops behind the first `train.freeze_stages` stages, memory-mapped.

    They are computed first where the file is missing, truncated or damaged. precisions: as `passes.precisions` says.
    Raises as `compute_maps`.
    """
    bf16 = serving(pack, config, weights, mirrored, precisions)
    path = maps_path(pack, config, weights, mirrored, bf16)
    found = _valid(path, len(pack))
    if found is not None:
        return found
    compute_maps(pack, [config], weights, mirrored, device, progress, bf16)
    return _open(path)


def serving(
    pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, precisions: Sequence[bool]
) -> bool:
    """Whether the maps that serve are those made in bf16. precisions: as `passes.precisions` says."""
    return passes.serving(
        precisions, lambda bf16: is_computed(maps_path(pack, config, weights, mirrored, bf16), len(pack))
    )


def compute_maps(
    pack: Pack,
    configs: Sequence[TrialConfig],
    weights: ResolvedWeights,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    bf16: bool = False,
) -> None:
    """Compute those of the maps that are missing for `configs`, which differ in nothing but the cut that maps depend
    on: one pass gives the maps of all cuts.

    Of several processes that ask at the same time one computes. What an interrupted process has computed is kept. The
    batches are those of evaluation, so that in fp32 a tail's metrics are those of the whole model.

    Raises BlockedError when the cache folder can't be written, UserError where the maps are too large for float16.
    """
    by_path = {maps_path(pack, config, weights, mirrored, bf16): config for config in configs}
    try:
        with ExitStack() as locks:
            for path in sorted(by_path):  # in one order everywhere: two processes must not wait for each other
                locks.enter_context(KernelLock(f"{path}.lock"))
            missing = {path: config for path, config in by_path.items() if _valid(path, len(pack)) is None}
            if missing:
                _build(missing, pack, weights, mirrored, torch.device(device), progress, bf16)
    except OSError as error:
        raise BlockedError(
            f"The cache of maps can't be written in {pack.path.parent}: {error}. Set FASHION_CACHE to a folder with "
            "room."
        ) from error


def described(
    pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, bf16: bool = False
) -> dict[str, Any]:
    """Everything that the maps depend on."""
    return passes.described(pack, config, weights, mirrored, FORMAT_VERSION, config.train.freeze_stages, bf16)


def maps_path(pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, bf16: bool = False) -> Path:
    """The cache file, named by everything that the maps depend on."""
    return passes.cache_path(pack, "maps", described(pack, config, weights, mirrored, bf16))


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


@dataclass(frozen=True)
class _File:
    """A file that is being written: its maps (N, C, S, S) and their checksums (N,), mapped."""

    path: Path
    temporary: Path
    cut: int
    maps: np.memmap[Any, np.dtype[np.float16]]
    sums: np.memmap[Any, np.dtype[np.uint32]]

    def put(self, at: int, found: MapArray) -> None:
        """Write maps (n, C, S, S) from row `at` on."""
        self.maps[at : at + len(found)] = found
        self.sums[at : at + len(found)] = [zlib.crc32(each) for each in np.ascontiguousarray(found)]

    def done(self) -> int:
        """How many rows, from the first on, are whole. Those that were not begun are zeros with a checksum of 0."""
        count = 0
        while count < len(self.maps) and self.sums[count] and zlib.crc32(self.maps[count]) == self.sums[count]:
            count += 1
        return count

    def finish(self) -> None:
        self.maps.flush()
        self.sums.flush()
        (maps_at,) = positions(self.temporary, ("maps",))
        write_seal(self.path, self.temporary, maps_at, self.maps.nbytes)
        self.temporary.replace(self.path)
        seal_path(self.temporary).unlink(missing_ok=True)


@torch.inference_mode()
def _build(
    missing: Mapping[Path, TrialConfig],
    pack: Pack,
    weights: ResolvedWeights,
    mirrored: bool,
    device: torch.device,
    progress: Progress | None,
    bf16: bool,
) -> None:
    """Write the files with zeros for maps, or take what an interrupted process has left, and compute into them in
    place."""
    files = [
        _begun(path, pack, config, described(pack, config, weights, mirrored, bf16)) for path, config in missing.items()
    ]
    config = next(iter(missing.values()))
    model, cuts = passes.frozen_model(config, weights, device), [file.cut for file in files]
    channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
    size = evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    # Whole batches only, so that no map depends on where a process was interrupted.
    done = min(file.done() for file in files) // size * size
    for batch in eval_batches(pack.images[done:], config.data, channels, size, Worker(device=device)):
        images = batch.images.flip(-1) if mirrored else batch.images
        with Setting(bf16, channels_last=True).autocast(device):
            behind = maps_behind(model.backbone, cuts, images)
        for file, maps in zip(files, behind, strict=True):
            found = maps.cpu().numpy()
            if not np.isfinite(found).all():
                file.temporary.unlink()
                rule = f"{config.model.backbone}'s maps there are too large for float16"
                fix = "Cut elsewhere, or use mode full"
                raise UserError(Problem("train.freeze_stages", rule, str(file.cut), fix))
            file.put(done, found)
        done += len(images)
        if progress is not None:
            progress(done, len(pack))
    for file in files:
        file.finish()


def _begun(path: Path, pack: Pack, config: TrialConfig, of: Mapping[str, Any]) -> _File:
    """The file as an interrupted process has left it, or a new one. of: everything that the maps depend on."""
    cut, count = config.train.freeze_stages, len(pack)
    shape = map_shape(complete_row(row(config.model.backbone)), config.data.crop, cut)
    temporary = path.with_name(f".{path.name}.tmp")  # one name, held by the lock
    mapped = _left(temporary, count, shape)
    if mapped is None:
        make_room("The cache of maps", int(2 * count * np.prod(shape)), path)
        mapped = _framed(temporary, count, shape, json.dumps(of, sort_keys=True))
    return _File(path, temporary, cut, *mapped)


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
