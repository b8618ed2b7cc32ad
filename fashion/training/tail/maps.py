"""Maps of every image, computed once: what the trials of `train.mode: tail` train on.

The frozen first stages of a backbone give an image the same maps in every epoch of every trial. They are kept as
float16 in one Arrow file per (image cache, crop, normalisation, backbone, weights, cut, mirrored or not), beside the
image caches, and mapped by all trials of a machine. A file that was not finished is gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fashion.config.trial import TrialConfig
from fashion.data.batches import Normalization, Worker, eval_batches
from fashion.data.cache.arrays import Rows, Unfinished, open_array, whole_array
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
COLUMN = "maps"

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
    found = whole_array(path, COLUMN, len(pack))
    if found is not None:
        return found
    compute_maps(pack, [config], weights, mirrored, device, progress, bf16)
    return open_array(path, COLUMN)


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
            missing = {path: config for path, config in by_path.items() if not is_computed(path, len(pack))}
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
    return _rows(pack, config).size


def is_computed(path: Path, count: int) -> bool:
    """Whether the file holds whole maps of `count` images."""
    return whole_array(path, COLUMN, count) is not None


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
    model, cuts = passes.frozen_model(config, weights, device), [each.train.freeze_stages for each in missing.values()]
    channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
    size = evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    # Whole batches only, so that no map depends on where a process was interrupted.
    done = min(file.done(progress) for file in files) // size * size
    for batch in eval_batches(pack.images[done:], config.data, channels, size, Worker(device=device)):
        images = batch.images.flip(-1) if mirrored else batch.images
        with Setting(bf16, channels_last=True).autocast(device):
            behind = maps_behind(model.backbone, cuts, images)
        for file, cut, maps in zip(files, cuts, behind, strict=True):
            found = maps.cpu().numpy()
            if not np.isfinite(found).all():
                file.discard()
                rule = f"{config.model.backbone}'s maps there are too large for float16"
                fix = "Cut elsewhere, or use mode full"
                raise UserError(Problem("train.freeze_stages", rule, str(cut), fix))
            file.put(done, found)
        done += len(images)
        if progress is not None:
            progress(done, len(pack))
    for file in files:
        file.finish()


def unfinished(path: Path, pack: Pack, config: TrialConfig) -> Unfinished | None:
    """What an interrupted process has left of such a file; None where there is nothing."""
    return Unfinished.left(path, COLUMN, _rows(pack, config))


def _begun(path: Path, pack: Pack, config: TrialConfig, of: Mapping[str, Any]) -> Unfinished:
    """of: everything that the maps depend on."""
    rows = _rows(pack, config)
    metadata = {"shape": json.dumps(rows.shape), "of": json.dumps(of, sort_keys=True)}
    return Unfinished.begin("The cache of maps", path, COLUMN, rows, metadata)


def _rows(pack: Pack, config: TrialConfig) -> Rows:
    shape = map_shape(complete_row(row(config.model.backbone)), config.data.crop, config.train.freeze_stages)
    return Rows(len(pack), shape, np.float16)
