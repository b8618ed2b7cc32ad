"""The training loop: `fit` is a generator of `EpochReport`s that knows nothing of Ray.

It is handed its data, its place among the workers and a folder; it leaves its checkpoints in the folder, and where the
sweep's storage is a bucket in there, before it yields the report that they belong to, so that whoever iterates it may
stop, kill or resume it after any report. They are written while the next epoch begins, and uploaded while others train:
a report comes a few steps later, or some epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fashion.config import TrialConfig
from fashion.data.batches import steps_per_epoch
from fashion.errors import Leaving, TrialDiverged
from fashion.model.classifier import build_model
from fashion.model.loss import build_loss
from fashion.model.metrics import Meter
from fashion.model.optim import build_ema, build_optimizer, build_schedule
from fashion.model.weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST
from fashion.storage.trial_objects import Attempt
from fashion.storage.trial_upload import Uploads
from fashion.training import agreement, checkpoint, micro_batches, mid_epoch
from fashion.training.evaluate import evaluate, gathered, to_probabilities, with_rank_0s_buffers
from fashion.training.feed import TrainingData, Worker, make_feed
from fashion.training.saver import Best, Saver, set_backbone_aside

# Often enough that a diverged trial wastes seconds, seldom enough that the device is not stalled.
DIVERGENCE_CHECK_STEPS = 20


def fit(
    config: TrialConfig,
    data: TrainingData,
    weights: ResolvedWeights,
    folder: Path,
    trial: int = 0,
    worker: Worker | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    best: tuple[int, float] = (0, math.inf),
) -> Iterator[EpochReport]:
    """Train one trial, yielding a report an epoch: `fit_and_tell` without what else it tells."""
    with closing(fit_and_tell(config, data, weights, folder, trial, worker, on_step, best)) as told:
        yield from (each for each in told if isinstance(each, EpochReport))


def fit_and_tell(
    config: TrialConfig,
    data: TrainingData,
    weights: ResolvedWeights,
    folder: Path,
    trial: int = 0,
    worker: Worker | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    best: tuple[int, float] = (0, math.inf),
    attempt: Attempt | None = None,
    leaves: Callable[[], bool] = lambda: False,
) -> Generator[EpochReport | str, None, None]:
    """Train one trial, yielding a report an epoch and, as text, on rank 0 alone, what else is to be told (nothing:
    a sign of life of a trial whose reports wait for the bucket).

    A resumed trial first yields the reports that its checkpoint carries, so that none can be lost between the
    checkpoint and whoever records reports. `on_step(epoch, step, steps)` is called after every optimiser step.
    All workers of a trial iterate it in step; the files are rank 0's. `best` is the best epoch (0: none) and its val_loss
    where epochs are trained that were recorded already (`checkpoint.mend_last`): its weights are kept until they are beaten.
    `attempt` (rank 0's, begun) takes the files to the bucket. `leaves()` says on any worker that its machine will go.

    Raises:
        Leaving: after `leaves()`: what was trained until then is in the files, also within an epoch.
        TrialDiverged: a loss became NaN or infinite.
        OutOfMemory: what to do about it is noted in `folder`: call it again.
        BlockedError: the disk refuses a checkpoint, or the bucket is away for too long.
        CheckpointError: `folder` holds a checkpoint that can't be read or belongs to another configuration.
    """
    session = _Session(config, data, weights, folder, trial, worker or Worker(), best, attempt, leaves)
    with closing(session.saver):
        yield from session.history
        try:
            while session.epoch < config.train.epochs:
                yield from session.run_epoch(on_step)
        except Exception as error:
            # What failed is a later epoch. (Of several workers, only what all of them raise: the others don't listen.)
            if session.worker.world_size == 1 or isinstance(error, TrialDiverged | Leaving):
                yield from session.saver.settled(to_the_last=True)
            raise
        yield from session.saver.settled(to_the_last=True)


class _Session:
    """The state that changes as a trial trains: model, optimiser, schedule, average, epoch and history."""

    def __init__(
        self, config: TrialConfig, data: TrainingData, weights: ResolvedWeights, folder: Path, trial: int, worker: Worker,
        best: tuple[int, float], attempt: Attempt | None, leaves: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.config, self.data, self.folder, self.trial, self.worker = config, data, folder, trial, worker
        self.leaves = leaves
        train, device = config.train, worker.device
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
            torch.backends.cudnn.benchmark = True  # shapes are fixed
            torch.cuda.reset_peak_memory_stats(device)
        state = agreement.last_state(folder, config, data.fingerprint, worker)
        self.steps = steps_per_epoch(len(data.train.names), train.batch_size, worker.world_size)
        self.setting = agreement.setting(config, data, state, folder, worker, train.epochs * self.steps)
        self.parts = agreement.parts(folder, state, worker)
        torch.manual_seed(config.seed)
        model = build_model(config.model, data.class_counts, weights)
        self.backbone_file: str | None = None
        if train.mode == "probe":
            owner = folder.parent if worker.rank == 0 else None  # one file serves all trials
            self.backbone_file = set_backbone_aside(model, config, weights, owner)
        self.model = self.setting.arrange(model, device)
        if train.mode == "full":
            self.model.freeze(train)
        self.optimizer = build_optimizer(train, self.model.backbone_parameters(), self.model.head_parameters())
        self.schedule = build_schedule(train, self.optimizer, self.steps)
        self.ema = build_ema(train, self.model)
        self.criterion = build_loss(train, data.class_counts, data.label_counts)
        self.feed = make_feed(config, data, worker)
        self.epoch, self.attempt = 0, 1
        self.best_epoch, self.best_loss = best
        self.history: list[EpochReport] = []
        self.within: dict[str, Any] | None = None
        if state is not None:
            with checkpoint.contents_of(folder / LAST):
                self._resume(state)
        # After loading: DDP sends rank 0's weights to every worker when it wraps the model.
        net: nn.Module = DistributedDataParallel(self.model) if worker.world_size > 1 else self.model
        self.net = self.setting.compiled(net)
        self.saver = Saver(folder, worker, Uploads(attempt) if attempt is not None else None)

    def run_epoch(self, on_step: Callable[[int, int, int], None] | None) -> Iterator[EpochReport | str]:
        """Train and validate one epoch and begin to save it. Yields reports of epochs before."""
        self.started = time.monotonic()
        batch_size = self.config.train.batch_size
        with micro_batches.smaller_next_time(self.folder, self.epoch + 1, self.parts, batch_size, self.worker):
            train_metrics = yield from self.train_one_epoch(on_step)
        val_metrics, probabilities = self.validate()
        yield from self.saver.delivered(wait=True)
        metrics = {f"train_{k}": train_metrics[k] for k in ("loss", "accuracy")}
        metrics |= {**{f"val_{k}": v for k, v in val_metrics.items()}, "lr": train_metrics["lr"]}
        if self.worker.device.type == "cuda":
            metrics["gpu_peak_gb"] = torch.cuda.max_memory_allocated(self.worker.device) / 1e9
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(metrics[name]):
                raise TrialDiverged(f"epoch {self.epoch}: {name} is {metrics[name]}")
        seconds = round(time.monotonic() - self.started, 3)
        self.save(
            EpochReport(
                self.trial, self.attempt, self.epoch, self.config.train.epochs, metrics, seconds,
                datetime.now(UTC).isoformat(), str(self.setting) + micro_batches.in_words(self.parts),
            ),
            probabilities,
        )  # fmt: skip
        if self.worker.world_size > 1:  # all workers yield at the same step
            yield from self.saver.settled()
        if self.epoch < self.config.train.epochs and agreement.most(self.leaves(), self.worker):
            raise Leaving(f"after epoch {self.epoch}")

    def train_one_epoch(
        self, on_step: Callable[[int, int, int], None] | None
    ) -> Generator[EpochReport | str, None, dict[str, float]]:
        """One pass over the training images. Returns loss (the objective), accuracy, and lr (of the heads, last step)."""
        config, worker, epoch = self.config, self.worker, self.epoch + 1
        # Seeding each epoch makes it a pure function of the checkpoint before it: a resumed trial draws the same numbers.
        torch.manual_seed(_mix(config.seed, epoch, worker.rank))
        self.net.train()
        meter = Meter(self.data.class_counts, worker.device)
        objective = torch.zeros(2, dtype=torch.float64, device=worker.device)
        done, lr = 0, 0.0
        if self.within is not None:
            with checkpoint.contents_of(self.folder / LAST):
                done, seconds, lr = mid_epoch.restored(self.within, meter, objective, worker)
            self.started, self.within = self.started - seconds, None
        for step, batch in enumerate(self.feed.train(epoch, done), start=done + 1):
            images = batch.images if self.setting.channels_last else batch.images.contiguous()
            self.optimizer.zero_grad(set_to_none=True)
            # DDP averages gradients over workers; shards may be uneven, so each counts by its images.
            scale = worker.world_size / batch.global_count
            logits, losses = micro_batches.add_gradients(
                self.net, self.criterion, images, batch.targets, scale, self.parts,
                lambda: self.setting.autocast(worker.device),
            )  # fmt: skip
            if config.train.clip_grad > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), config.train.clip_grad)
            lr = self.optimizer.param_groups[-1]["lr"]
            self.optimizer.step()
            self.schedule.step()
            if self.ema is not None:
                self.ema.update_parameters(self.model)
            meter.update(logits, batch.targets)
            objective += torch.stack([losses.double().sum(), losses.new_tensor(len(losses)).double()])
            if on_step is not None:
                on_step(epoch, step, self.steps)
            checked = step % DIVERGENCE_CHECK_STEPS == 0
            yield from self.saver.delivered(wait=checked)
            if checked:
                agreement.require_finite(objective[0].clone(), worker, f"epoch {epoch}, step {step}")
            # Workers have to agree, which takes a moment of all: with the other things that they agree on.
            if (checked or worker.world_size == 1) and agreement.most(self.leaves(), worker):
                at = mid_epoch.Within(step, time.monotonic() - self.started, lr)
                mine = mid_epoch.captured(at, meter, objective, worker)
                self.saver.save_within(self.epoch, step, {**self._state(), "within": mine})
                raise Leaving(f"in epoch {epoch}, after step {step} of {self.steps}")
        meter.reduce()
        if worker.world_size > 1:
            dist.all_reduce(objective)
        self.epoch = epoch
        accuracy = meter.compute(self.data.names)["accuracy"]
        return {"loss": (objective[0] / objective[1]).item(), "accuracy": accuracy, "lr": lr}

    def validate(self) -> tuple[dict[str, float], list[Any]]:
        """Metrics over the whole validation split and, on rank 0, its class probabilities in file order."""
        worker = self.worker
        if worker.world_size > 1:
            with_rank_0s_buffers((self.model, self.evaluated))
        meter, heads = evaluate(self.evaluated, self.feed.validate(), self.data.class_counts, worker.device)
        meter.reduce()
        probabilities = to_probabilities(heads)
        if worker.world_size > 1:
            probabilities = gathered(probabilities, worker.world_size)
        return meter.compute(self.data.names), probabilities

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated, saved as best and promoted: the average where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def save(self, report: EpochReport, probabilities: list[Any]) -> None:
        """Begin to write this epoch's files."""
        self.history.append(report)
        best = None
        if report.metrics["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = report.metrics["val_loss"], report.epoch
            meta = {
                "format": checkpoint.FORMAT,
                "config": self.config.model_dump(mode="json"),
                "attributes": [{"name": a.name, "classes": list(a.classes)} for a in self.data.attributes],
                "data_fingerprint": self.data.fingerprint,
                "report": report.to_json(),
                **({"backbone": self.backbone_file} if self.backbone_file else {}),
            }
            best = Best(self.evaluated.state_dict(), meta, self.data.val.names, self.data.names, probabilities)
        self.saver.save(report, self._state(), best)

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump_json(),
            "fingerprint": self.data.fingerprint,
            "history": [report.to_json() for report in self.history],
            "attempt": self.attempt,
            "setting": asdict(self.setting),
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "rng": torch.get_rng_state(),
            **({"parts": self.parts} if self.parts > 1 else {}),
        }

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["schedule"].keys() != self.schedule.state_dict().keys():  # torch takes any
            raise ValueError("its schedule is another one's")
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        torch.set_rng_state(state["rng"])
        self.history = [EpochReport.from_json(row) for row in state["history"]]
        told = [(each.trial, each.epoch, each.epochs) for each in self.history]
        self.within = state.get("within")
        if not (told or self.within) or told != [
            (self.trial, n, self.config.train.epochs) for n in range(1, len(told) + 1)
        ]:
            raise ValueError(f"its reports are not those of trial {self.trial}")  # they would be recorded as they are
        self.epoch = len(told)
        self.attempt = state["attempt"] + 1
        if state["best_loss"] <= self.best_loss:
            self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]


def _mix(*numbers: int) -> int:
    """One seed from several, without the collisions of adding them (Python's hash of ints is fixed)."""
    return hash(numbers) % 2**31
