"""Pooled features of every image, computed once: what the trials of `train.mode: probe` train on, and what heads begin
with (`train.init_heads: probe`).

A frozen backbone gives an image the same features in every epoch of every trial. They are kept in one Arrow file per
(image cache, crop, normalisation, backbone, weights, mirrored or not), beside the image caches and with the same seal.
A file that was not finished is gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.config.trial import TrialConfig
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
)
from fashion.data.cache.arrays import Rows, Unfinished, open_array, whole_array
from fashion.data.pack import Pack
from fashion.errors import BlockedError
from fashion.files import KernelLock
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.model.precision import Setting
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.evaluate import evaluation_batch_size
from fashion.training.tail import maps, passes
from fashion.training.tail.batches import Maps

FORMAT_VERSION = 1
COLUMN = "features"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Features:
    """`plain` (N, F) float32: the features of each image, in the pack's order. `mirrored` (N, F): those of their mirror
    images, None where a trial does not need them. `labels` (N, columns)."""

    plain: NDArray[np.float32]
    mirrored: NDArray[np.float32] | None
    labels: NDArray[np.int64]

    def train_batches(self, flip: float, epoch: Epoch, worker: Worker = ALONE) -> Iterator[Batch]:
        """This worker's share of one epoch: the order and the flips of `data.batches.train_batches`."""
        share = slice(worker.rank, None, worker.world_size)
        whole = complete(self.labels)
        for step, rows in enumerate(epoch.rows(len(self.plain), worker.world_size)[epoch.first :], epoch.first):
            mine = rows[share]
            features = self.plain[mine]
            if flip and self.mirrored is not None:
                turned = flipped(epoch.draws(len(rows), step)[:, share], flip)
                features[turned] = self.mirrored[mine[turned]]
            targets = torch.from_numpy(self.labels[mine])
            known = None if whole else count_known(self.labels[rows], worker.device)
            plain = torch.from_numpy(features).to(worker.device)
            yield Batch(plain, targets.to(worker.device), len(rows), known, rows=torch.from_numpy(mine))

    def among(self, rows: NDArray[np.int64] | None) -> Features:
        """Those of some images; None for all."""
        if rows is None:
            return self
        mirrored = None if self.mirrored is None else self.mirrored[rows]
        return Features(self.plain[rows], mirrored, self.labels[rows])

    def eval_batches(
        self, batch_size: int, worker: Worker = ALONE, among: NDArray[np.int64] | None = None
    ) -> Iterator[Batch]:
        """This worker's rows in order; a batch's `others` are the features of its mirrors. among (m,): the rows that
        are evaluated; None for all."""
        device = worker.device
        mine = (np.arange(len(self.plain)) if among is None else among)[worker.rank :: worker.world_size]
        for start in range(0, len(mine), batch_size):
            rows = mine[start : start + batch_size]
            plain, targets = torch.tensor(self.plain[rows]).to(device), torch.tensor(self.labels[rows]).to(device)
            mirrored = () if self.mirrored is None else (torch.tensor(self.mirrored[rows]).to(device),)
            yield Batch(plain, targets, len(plain), others=mirrored)


def open_features(
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    split: str = "",
) -> Features:
    """The features that a trial of `config` needs of a labelled pack, with those of the mirror images if the images are
    flipped, in training or in evaluation. split: what the images are used as; by default what the pack is of."""
    assert pack.labels is not None, "train and val have labels: read_dataset refuses them otherwise"
    used_as = split or pack.metadata["split"]
    flips = config.data.flip > 0 if used_as != "val" else config.data.eval_flip
    plain = open_or_compute(pack, config, weights, False, device, progress, used_as)
    mirrored = open_or_compute(pack, config, weights, True, device, progress, used_as) if flips else None
    return Features(plain, mirrored, pack.labels)


def open_or_compute(
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    split: str = "val",
) -> NDArray[np.float32]:
    """The features (N, F) of a pack's centre crops under the backbone of `config`, memory-mapped.

    They are computed first where the file is missing, truncated or damaged; of several processes that ask at the same
    time one computes. The batches are those of evaluation, so that in fp32 a probe's metrics are those of the whole
    model. split: what the images are used as, which decides about the precision (`passes.precisions`).

    Raises BlockedError when the cache folder can't be written.
    """
    bf16 = _serving(pack, config, weights, mirrored, passes.precisions(config, split, device))
    path = features_path(pack, config, weights, mirrored, bf16)
    found = whole_array(path, COLUMN, len(pack))
    if found is not None:
        return found
    try:
        with KernelLock(f"{path}.lock"):
            found = whole_array(path, COLUMN, len(pack))
            if found is None:
                _build(path, pack, config, weights, mirrored, torch.device(device), progress, bf16)
    except OSError as error:
        raise BlockedError(
            f"The feature cache can't be written in {path.parent}: {error}. Set FASHION_CACHE to a folder with room."
        ) from error
    return found if found is not None else open_array(path, COLUMN)


def _serving(
    pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, precisions: Sequence[bool]
) -> bool:
    """Whether the features that serve are those made in bf16; those of a tail are as the maps that they are made of.
    precisions: as `passes.precisions` says."""
    if config.train.mode == "tail":
        precisions = [maps.serving(pack, config, weights, mirrored, precisions)]
    return passes.serving(
        precisions,
        lambda bf16: whole_array(features_path(pack, config, weights, mirrored, bf16), COLUMN, len(pack)) is not None,
    )


def served_files(
    pack: Pack, config: TrialConfig, weights: ResolvedWeights, device: torch.device | str, split: str
) -> set[Path]:
    """The files of features that serve here, of the images and of their mirrors, whether they are there or not. split:
    what the images are used as."""
    precisions = passes.precisions(config, split, device)
    return {
        features_path(pack, config, weights, mirrored, _serving(pack, config, weights, mirrored, precisions))
        for mirrored in (False, True)
    }


def features_path(
    pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, bf16: bool = False
) -> Path:
    """The cache file, named by everything that the features depend on."""
    return passes.cache_path(pack, "features", _described(pack, config, weights, mirrored, bf16))


def _described(pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, bf16: bool) -> dict[str, Any]:
    # Those of a tail are made of its maps, which are rounded.
    cut = config.train.freeze_stages if config.train.mode == "tail" else None
    described = passes.described(pack, config, weights, mirrored, FORMAT_VERSION, cut, bf16)
    model = config.model
    # Left out where there are none, so that the caches of versions without them keep their names.
    stages = {"stages": model.feature_stages, "stats": model.feature_stats} if model.feature_stages else {}
    return {**described, **stages}


@torch.inference_mode()
def _build(
    path: Path,
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    mirrored: bool,
    device: torch.device,
    progress: Progress | None,
    bf16: bool,
) -> None:
    """Compute into a file of zeros, or into what an interrupted process has left: memory does not grow with the images.
    The features of a tail are computed from its maps, which is quicker."""
    model = passes.frozen_model(config, weights, device)
    of = json.dumps(_described(pack, config, weights, mirrored, bf16), sort_keys=True)
    rows = Rows(len(pack), (model.feature_count,), np.float32)
    file = Unfinished.begin("The feature cache", path, COLUMN, rows, {"of": of})
    size = evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    # Whole batches only, so that no feature depends on where a process was interrupted.
    done = file.done(progress) // size * size
    left = np.arange(done, len(pack))
    if of_maps := config.train.mode == "tail":
        model.without_stages(config.train.freeze_stages)
        of_images = maps.open_or_compute_maps(pack, config, weights, mirrored, device, precisions=[bf16])
        unlabelled = np.zeros((len(pack), 0), np.int64)
        batches = Maps(of_images, None, unlabelled).eval_batches(size, Worker(device=device), left)
    else:
        channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
        batches = eval_batches(pack, config.data, channels, size, Worker(device=device), left)
    for batch in batches:
        images = batch.images.flip(-1) if mirrored and not of_maps else batch.images
        with Setting(bf16, channels_last=True).autocast(device):
            found = model.features(images)
        file.put(done, found.float().cpu().numpy())
        done += len(images)
        if progress is not None:
            progress(done, len(pack))
    file.finish(sealed=True)
