"""What a resumable checkpoint holds, and its plain form on disk: no other module knows the names of that form.

Between epochs nothing is kept of the epoch's random numbers and totals, since every epoch draws its own. A trial that
has to leave its machine within an epoch keeps those, too: `MidEpoch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fashion.config.trial import TrialConfig, read_config
from fashion.data.batches import Worker
from fashion.model.metrics import make_meter
from fashion.model.precision import Setting
from fashion.record.trial import EpochReport


class EpochTotals:
    """What this worker has counted of an epoch so far.

    meter: of the training images. objective: float64 (2,), the sum of the images' losses and their number. step: the
    optimiser steps that are done. lr: the heads' learning rate in the last of them.
    """

    def __init__(
        self,
        class_counts: tuple[int, ...],
        worker: Worker,
        multi_label: Sequence[bool] = (),
        complete: bool = True,
    ) -> None:
        self.meter = make_meter(class_counts, worker.device, multi_label, complete)
        self.objective = torch.zeros(2, dtype=torch.float64, device=worker.device)
        self.step, self.lr = 0, 0.0

    def add(self, logits: tuple[Tensor, ...], targets: Tensor, losses: Tensor, lr: float) -> None:
        """Count one step: logits (n, classes) of each head, targets (n, columns), losses (n,)."""
        self.meter.update(logits, targets)
        self.objective += torch.stack([losses.double().sum(), losses.new_tensor(len(losses)).double()])
        self.step, self.lr = self.step + 1, lr

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """The epoch's metrics of training. names: the attributes'."""
        return {
            "train_loss": (self.objective[0] / self.objective[1]).item(),
            "train_accuracy": self.meter.compute(names)["accuracy"],
        }

    def reduce(self, worker: Worker) -> None:
        """Make them the sums over all workers."""
        self.meter.reduce()
        if worker.world_size > 1:
            dist.all_reduce(self.objective)


@dataclass(frozen=True)
class WorkerTotals:
    """One worker's `EpochTotals` on the host, and the states of its random number generators (cuda: None on a CPU)."""

    meter: Tensor
    objective: Tensor
    rng: Tensor
    cuda: Tensor | None


@dataclass(frozen=True)
class MidEpoch:
    """Where a trial goes on within an epoch: after `step` steps, which took `seconds`; `lr` is that of the last one.
    One entry in `workers` for each rank."""

    step: int
    seconds: float
    lr: float
    workers: tuple[WorkerTotals, ...]


@dataclass(frozen=True)
class LearnerState:
    """One model's state dictionaries, which are torch's."""

    model: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    ema: dict[str, Any] | None


@dataclass(frozen=True)
class TrialState:
    """All that a trial needs to go on to the same numbers. `history` holds the reports of its epochs so far;
    `best_epoch` is 0 where there is none. `learners` are its one model or, with `data.folds`, those of the folds.
    `parts`: the micro-batches of a step."""

    config: TrialConfig
    fingerprint: str
    history: tuple[EpochReport, ...]
    attempt: int
    setting: Setting
    best_epoch: int
    best_loss: float
    learners: tuple[LearnerState, ...]
    rng: Tensor
    parts: int = 1
    mid_epoch: MidEpoch | None = None

    @property
    def at(self) -> tuple[int, int]:
        """How far it is: whole epochs, and steps of the next one."""
        return len(self.history), self.mid_epoch.step if self.mid_epoch is not None else 0

    def require_reports_of(self, trial: int, epochs: int) -> None:
        """Raise ValueError unless the reports are those of this trial, which trains so many epochs: they are recorded
        as they are."""
        told = [(report.trial, report.epoch, report.epochs) for report in self.history]
        if self.at == (0, 0) or told != [(trial, number, epochs) for number in range(1, len(told) + 1)]:
            raise ValueError(f"its reports are not those of trial {trial}")


def to_plain(state: TrialState) -> dict[str, Any]:
    """Tensors, numbers, strings and containers of them only."""
    first, *others = state.learners
    plain = {
        "config": state.config.model_dump_json(),
        "fingerprint": state.fingerprint,
        "history": [report.to_json() for report in state.history],
        "attempt": state.attempt,
        "setting": asdict(state.setting),
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss,
        **vars(first),
        "rng": state.rng,
    }
    if others:
        plain["other_folds"] = [vars(each) for each in others]
    if state.parts > 1:
        plain["parts"] = state.parts
    if state.mid_epoch is not None:
        workers = [vars(each) for each in state.mid_epoch.workers]
        plain["within"] = {**vars(state.mid_epoch), "workers": workers}
    return plain


def from_plain(plain: Mapping[str, Any]) -> TrialState:
    """The state that this or an earlier version wrote.

    Raises LookupError, TypeError, ValueError or AttributeError for what `to_plain` did not make.
    """
    within = plain.get("within")
    if not isinstance(plain["attempt"], int):
        raise TypeError(f"its attempt is {plain['attempt']!r}")
    return TrialState(
        read_config(plain["config"]),
        plain["fingerprint"],
        tuple(EpochReport.from_json(row) for row in plain["history"]),
        plain["attempt"],
        Setting(**plain["setting"]),
        int(plain["best_epoch"]),
        float(plain["best_loss"]),
        tuple(_learner(each) for each in (plain, *plain.get("other_folds", ()))),
        plain["rng"],
        int(plain.get("parts", 1)),
        _mid_epoch(within) if within is not None else None,
    )


def _learner(plain: Mapping[str, Any]) -> LearnerState:
    return LearnerState(plain["model"], plain["optimizer"], plain["schedule"], plain.get("ema"))


def _mid_epoch(plain: Mapping[str, Any]) -> MidEpoch:
    workers = tuple(
        WorkerTotals(each["meter"], each["objective"], each["rng"], each["cuda"]) for each in plain["workers"]
    )
    return MidEpoch(int(plain["step"]), float(plain["seconds"]), float(plain["lr"]), workers)


def last_epoch(plain: Mapping[str, Any]) -> int:
    """The last whole epoch of a state in its plain form, 0 where there is none. Raises as `from_plain`."""
    history: Sequence[Mapping[str, Any]] = plain["history"]
    return int(history[-1]["epoch"]) if history else 0


def capture(totals: EpochTotals, seconds: float, worker: Worker) -> MidEpoch:
    """Where the epoch stands, with the totals and random states of all workers: each of them has to call it."""
    mine = WorkerTotals(
        totals.meter.sums.cpu(),
        totals.objective.cpu(),
        torch.get_rng_state(),
        torch.cuda.get_rng_state(worker.device) if worker.device.type == "cuda" else None,
    )
    workers: list[Any] = [mine]
    if worker.world_size > 1:
        workers = [None] * worker.world_size
        dist.all_gather_object(workers, mine)
    return MidEpoch(totals.step, seconds, totals.lr, tuple(workers))


def restore(state: MidEpoch, totals: EpochTotals, worker: Worker) -> None:
    """Give this worker its totals and random states back.

    Raises LookupError, TypeError, ValueError or RuntimeError for what `capture` did not make.
    """
    if len(state.workers) != worker.world_size:
        raise ValueError(f"it is the state of {len(state.workers)} workers")
    mine = state.workers[worker.rank]
    totals.meter.restore(mine.meter)
    totals.objective.copy_(mine.objective)
    totals.step, totals.lr = state.step, state.lr
    torch.set_rng_state(mine.rng)
    if mine.cuda is not None and worker.device.type == "cuda":
        torch.cuda.set_rng_state(mine.cuda, worker.device)
