"""The part of a trial's state that there is only within an epoch: of a trial that has to leave its machine at once.

Every epoch draws its own numbers, so that between epochs nothing of this is needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fashion.model.metrics import Meter
from fashion.training.feed import Worker


class Within(NamedTuple):
    """Where an epoch goes on: after so many steps, seconds that they took, the learning rate of the last one."""

    step: int = 0
    seconds: float = 0.0
    lr: float = 0.0


def captured(at: Within, meter: Meter, objective: Tensor, worker: Worker) -> dict[str, Any]:
    """As plain data, with what each worker has counted and the state of its random numbers."""
    mine: dict[str, Any] = {
        "meter": meter.sums.cpu(),
        "objective": objective.cpu(),
        "rng": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(worker.device) if worker.device.type == "cuda" else None,
    }
    workers: list[Any] = [mine]
    if worker.world_size > 1:
        workers = [None] * worker.world_size
        dist.all_gather_object(workers, mine)
    return {**at._asdict(), "workers": workers}


def restored(state: dict[str, Any], meter: Meter, objective: Tensor, worker: Worker) -> Within:
    """Give this worker what it had. Raises LookupError, TypeError, ValueError or RuntimeError for what `captured` did not
    make."""
    if len(state["workers"]) != worker.world_size:
        raise ValueError(f"of {len(state['workers'])} workers")
    mine = state["workers"][worker.rank]
    meter.restore(mine["meter"])
    objective.copy_(mine["objective"])
    torch.set_rng_state(mine["rng"])
    if mine["cuda"] is not None and worker.device.type == "cuda":
        torch.cuda.set_rng_state(mine["cuda"], worker.device)
    return Within(int(state["step"]), float(state["seconds"]), float(state["lr"]))
