"""What the workers of a trial agree on: rank 0's word, or any worker's. A worker alone agrees with itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fashion.config.trial import TrialConfig
from fashion.data.batches import Worker
from fashion.errors import CheckpointError, TrialDiverged
from fashion.model.precision import Setting
from fashion.record.trial_files import LAST
from fashion.training import checkpoint, micro_batches
from fashion.training.autotune import choose
from fashion.training.feed import TrainingData
from fashion.training.state import TrialState


def rank_0s(value: Any, worker: Worker) -> Any:
    """Rank 0's value, on all workers; if it is an error, all of them raise it."""
    found = [value]
    if worker.world_size > 1:
        dist.broadcast_object_list(found, src=0)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def most(value: float, worker: Worker) -> float:
    """The largest of all workers' values."""
    if worker.world_size == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64, device=worker.device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return found.item()


def last_state(folder: Path, config: TrialConfig, fingerprint: str, worker: Worker) -> TrialState | None:
    """The trial's last checkpoint, None if there is none. It is read from rank 0's folder: the other workers may see
    the disk later, or another disk.

    Raises CheckpointError: it can't be read, or is another trial's.
    """
    path = folder / LAST
    found: TrialState | CheckpointError | None = None
    if worker.rank == 0 and path.exists():
        try:
            found = checkpoint.load_state(path)
        except CheckpointError as error:
            found = error
    state: TrialState | None = rank_0s(found, worker)
    if state is not None and (state.config, state.fingerprint) != (config, fingerprint):
        raise CheckpointError(
            f"{path}: belongs to another configuration or data set. Delete {folder} to start this trial again."
        )
    return state


def parts(folder: Path, state: TrialState | None, worker: Worker) -> int:
    """The number of micro-batches: the largest that any worker, or the checkpoint, found to be needed."""
    noted = micro_batches.noted_parts(folder)
    return int(most(max(noted, state.parts) if state is not None else noted, worker))


def setting(config: TrialConfig, data: TrainingData, state: TrialState | None, worker: Worker, steps: int) -> Setting:
    """The setting of all workers; in a resumed trial that of the epochs before. steps: of the whole trial."""
    if state is not None:
        return state.setting
    found = None
    if worker.rank == 0:
        found = choose(config, data.class_counts, worker.device, data.train.path.parent, steps)
    chosen: Setting = rank_0s(found, worker)
    return chosen


def require_finite(loss: Tensor, worker: Worker, where: str) -> None:
    """Raise TrialDiverged on all workers or on none: one that gave up alone would leave the others waiting for its
    gradients. `loss` becomes the sum over all workers."""
    if worker.world_size > 1:
        dist.all_reduce(loss)
    if not torch.isfinite(loss).item():
        raise TrialDiverged(f"{where}: train_loss is {loss.item()}")
