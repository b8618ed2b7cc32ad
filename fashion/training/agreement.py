"""What the workers of a trial agree on: rank 0's word, or any worker's. A worker alone agrees with itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fashion.config import TrialConfig
from fashion.errors import CheckpointError, TrialDiverged
from fashion.model.precision import Setting
from fashion.record.trial_files import LAST
from fashion.training import checkpoint, micro_batches
from fashion.training.autotune import choose
from fashion.training.feed import TrainingData, Worker


def rank_0s(value: Any, worker: Worker) -> Any:
    """What rank 0 has; of an error that it has, all raise it."""
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


def last_state(folder: Path, config: TrialConfig, fingerprint: str, worker: Worker) -> dict[str, Any] | None:
    """The trial's last checkpoint, if there is one, from rank 0's folder: the others may see the disk later, or another one.

    Raises CheckpointError: it can't be read, or is another trial's.
    """
    path = folder / LAST
    found: Any = None
    if worker.rank == 0 and path.exists():
        try:
            found = checkpoint.load_last(path)
        except CheckpointError as error:
            found = error
    state: dict[str, Any] | None = rank_0s(found, worker)
    if state is None:
        return None
    if (state.get("config"), state.get("fingerprint")) != (config.model_dump_json(), fingerprint):
        raise CheckpointError(
            f"{path}: belongs to another configuration or data set. Delete {folder} to start this trial again."
        )
    return state


def parts(folder: Path, state: dict[str, Any] | None, worker: Worker) -> int:
    """In how many parts the trial takes its batches: as many as any worker, or the checkpoint's, found that it has to."""
    mine = micro_batches.noted_parts(folder)
    if state is not None:
        with checkpoint.contents_of(folder / LAST):
            mine = max(mine, int(state.get("parts", 1)))
    return int(most(mine, worker))


def setting(
    config: TrialConfig, data: TrainingData, state: dict[str, Any] | None, folder: Path, worker: Worker, steps: int
) -> Setting:
    """The setting of all workers and, in a resumed trial, of the epochs before. steps: of the whole trial."""
    if state is not None:
        with checkpoint.contents_of(folder / LAST):
            return Setting(**state["setting"])
    found = None
    if worker.rank == 0:
        found = choose(config, data.class_counts, worker.device, data.train.path.parent, steps)
    chosen: Setting = rank_0s(found, worker)
    return chosen


def require_finite(loss: Tensor, worker: Worker, where: str) -> None:
    """Raise TrialDiverged on all workers or on none: one that gave up alone would leave the others waiting for its
    gradients. The loss is added up in place."""
    if worker.world_size > 1:
        dist.all_reduce(loss)
    if not torch.isfinite(loss).item():
        raise TrialDiverged(f"{where}: train_loss is {loss.item()}")
