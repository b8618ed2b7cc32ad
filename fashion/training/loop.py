"""The training loop: `fit` is a generator of `EpochReport`s that knows nothing of Ray.

It is handed one `TrialInputs`. It leaves its checkpoints in the trial's folder, and in the bucket where the sweep's
storage is one, before it yields the report that they belong to, so that whoever iterates it may stop, kill or resume it
after any report. They are written while the next epoch begins, and uploaded while later epochs train: a report comes a
few steps after its epoch, or some epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fashion.config.trial import TrialConfig
from fashion.data.batches import ALONE, Worker, steps_per_epoch
from fashion.errors import Leaving, TrialDiverged
from fashion.model.folds.fold_mean import together
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST
from fashion.record.validate import attribute_entry
from fashion.storage.trial_objects import Attempt
from fashion.storage.trial_upload import Uploads
from fashion.training import agreement, checkpoint, micro_batches, state
from fashion.training.feed import TrainingData
from fashion.training.learners.learner import Learner
from fashion.training.learners.out_of_fold import validated
from fashion.training.saver import Best, Saver
from fashion.training.state import EpochTotals, MidEpoch, TrialState
from fashion.training.task import Note, TrialEvent

# Often enough that a diverged trial wastes seconds, seldom enough that the device is not stalled.
DIVERGENCE_CHECK_STEPS = 20


@dataclass(frozen=True)
class TrialInputs:
    """What the loop is handed.

    trial: its number. folder: where its checkpoints are kept; the files are rank 0's.
    best_epoch, best_loss: the best epoch (0: none) and its val_loss where epochs are trained that were recorded already
        (`checkpoint.mend_last`): its weights are kept until they are beaten.
    attempt: takes the files to the bucket; rank 0's, begun.
    leaves: says, on any worker, that its machine will be taken away.
    threads: says before each epoch how many threads compute it; None leaves them as they are.
    on_step: called after every optimiser step with the epoch, the step and the number of steps of an epoch.
    """

    config: TrialConfig
    data: TrainingData
    weights: ResolvedWeights
    folder: Path
    trial: int = 0
    worker: Worker = ALONE
    best_epoch: int = 0
    best_loss: float = math.inf
    attempt: Attempt | None = None
    leaves: Callable[[], bool] = lambda: False
    threads: Callable[[], int] | None = None
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None


def fit(inputs: TrialInputs) -> Iterator[EpochReport]:
    """Train one trial, yielding a report for each epoch: `train_trial` without its notes and heartbeats."""
    with closing(train_trial(inputs)) as events:
        yield from (event for event in events if isinstance(event, EpochReport))


def train_trial(inputs: TrialInputs) -> Generator[TrialEvent, None, None]:
    """Train one trial, yielding a report for each epoch and, on rank 0 alone, notes and heartbeats.

    A resumed trial first yields the reports that its checkpoint holds, so that none can be lost between the checkpoint
    and whoever records reports. All workers of a trial iterate it in step.

    Raises:
        Leaving: after `leaves()`: what was trained until then is in the files, also within an epoch.
        TrialDiverged: a loss became NaN or infinite.
        OutOfMemory: the folder holds a note of what to do about it: call this again.
        BlockedError: the disk refuses a checkpoint, or the bucket is away for too long.
        CheckpointError: the folder holds a checkpoint that can't be read or belongs to another configuration.
    """
    session = _Session(inputs)
    with closing(session.saver):
        yield from session.history
        try:
            while session.epoch < inputs.config.train.epochs:
                yield from session.run_epoch()
        except Exception as error:
            # What failed is a later epoch. (Of several workers, only what all of them raise: the others don't listen.)
            if session.worker.world_size == 1 or isinstance(error, TrialDiverged | Leaving):
                yield from session.saver.settled(to_the_last=True)
            raise
        yield from session.saver.settled(to_the_last=True)


class _Session:
    """What changes while a trial trains: its models, epoch and history."""

    def __init__(self, inputs: TrialInputs) -> None:
        self.inputs, self.worker = inputs, inputs.worker
        config, data, worker, train = inputs.config, inputs.data, inputs.worker, inputs.config.train
        if worker.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
            torch.backends.cudnn.benchmark = True  # shapes are fixed
            torch.cuda.reset_peak_memory_stats(worker.device)
        last = agreement.last_state(inputs.folder, config, data.fingerprint, worker)
        read_by = data.each_model()
        sizes = [steps_per_epoch(each.training_images, train.batch_size, worker.world_size) for each in read_by]
        self.steps = sum(sizes)
        self.setting = agreement.setting(config, data, last, worker, train.epochs * self.steps)
        self.parts = agreement.parts(inputs.folder, last, worker)
        owner = inputs.folder.parent if worker.rank == 0 else None  # one file of a backbone serves all trials
        self.learners: list[Learner] = []
        for each in read_by:
            torch.manual_seed(config.seed)
            self.learners.append(Learner(config, each, inputs.weights, worker, self.setting, owner, last is None))
        self.epoch, self.attempt, self.started = 0, 1, 0.0
        self.best_epoch, self.best_loss = inputs.best_epoch, inputs.best_loss
        self.history: list[EpochReport] = []
        self.mid_epoch: MidEpoch | None = None
        if last is not None:
            with checkpoint.contents_of(inputs.folder / LAST):
                self.resume(last)
        for learner in self.learners:
            learner.wrap()
        self.saver = Saver(inputs.folder, worker, Uploads(inputs.attempt) if inputs.attempt is not None else None)

    def run_epoch(self) -> Iterator[TrialEvent]:
        """Train and validate one epoch and begin to save it. Yields reports of earlier epochs."""
        self.started = time.monotonic()
        if self.inputs.threads is not None:
            torch.set_num_threads(self.inputs.threads())
        inputs, batch_size = self.inputs, self.inputs.config.train.batch_size
        with micro_batches.smaller_next_time(inputs.folder, self.epoch + 1, self.parts, batch_size, self.worker):
            totals = yield from self.train_one_epoch()
        validation = validated([learner.validate() for learner in self.learners], inputs.data)
        yield from self.saver.delivered(wait=True)
        self.save(self.report(totals, validation.metrics), validation.probabilities)
        if self.worker.world_size > 1:  # all workers yield at the same step
            yield from self.saver.settled()
        if self.epoch < inputs.config.train.epochs and agreement.most(inputs.leaves(), self.worker):
            raise Leaving(f"after epoch {self.epoch}")

    def train_one_epoch(self) -> Generator[TrialEvent, None, EpochTotals]:
        """One pass over the training images; with folds each model's own, one model after another."""
        worker, epoch = self.worker, self.epoch + 1
        data = self.inputs.data
        totals = EpochTotals(data.class_counts, worker, data.multi_label, data.train_complete)
        self.resume_within(totals)
        before = 0  # steps of the models before
        for learner in self.learners:
            first = totals.step - before
            before += learner.steps
            if first >= learner.steps > 0:
                continue  # trained before the trial left its machine
            if first == 0:
                # So that the epoch is a pure function of the checkpoint before it: a resumed trial draws the same.
                torch.manual_seed(_mix(self.inputs.config.seed, epoch, worker.rank))
                if (told := learner.solve()) and worker.rank == 0:
                    yield Note(told)
            learner.net.train()
            for batch in learner.feed.train(epoch, first):
                lr = learner.lr
                logits, losses = learner.optimise(batch, self.parts)
                totals.add(logits, batch.targets, losses, lr)
                self.inputs.on_step(epoch, totals.step, self.steps)
                yield from self.after_step(totals)
        totals.reduce(worker)
        self.epoch = epoch
        return totals

    def after_step(self, totals: EpochTotals) -> Iterator[TrialEvent]:
        """Between two steps: hand out reports that are ready, look for divergence, leave where the machine will go."""
        worker, epoch, step = self.worker, self.epoch + 1, totals.step
        checked = step % DIVERGENCE_CHECK_STEPS == 0
        yield from self.saver.delivered(wait=checked)
        if checked:
            agreement.require_finite(totals.objective[0].clone(), worker, f"epoch {epoch}, step {step}")
        # To agree takes a moment of all workers, so it is done together with the check.
        if (checked or worker.world_size == 1) and agreement.most(self.inputs.leaves(), worker):
            mid_epoch = state.capture(totals, time.monotonic() - self.started, worker)
            self.saver.save_mid_epoch(self.state(mid_epoch))
            raise Leaving(f"in epoch {epoch}, after step {step} of {self.steps}")

    def report(self, totals: EpochTotals, validation: Mapping[str, float]) -> EpochReport:
        """The epoch's report. Raises TrialDiverged when a loss is not finite."""
        metrics = {**totals.metrics(self.inputs.data.names), **validation, "lr": totals.lr}
        if self.worker.device.type == "cuda":
            metrics["gpu_peak_gb"] = torch.cuda.max_memory_allocated(self.worker.device) / 1e9
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(metrics[name]):
                raise TrialDiverged(f"epoch {self.epoch}: {name} is {metrics[name]}")
        return EpochReport(
            self.inputs.trial, self.attempt, self.epoch, self.inputs.config.train.epochs, metrics,
            round(time.monotonic() - self.started, 3), datetime.now(UTC).isoformat(),
            str(self.setting) + micro_batches.in_words(self.parts) + self.threads_in_words(),
        )  # fmt: skip

    def threads_in_words(self) -> str:
        """What a report says of them where they may change."""
        if self.inputs.threads is None:
            return ""
        count = torch.get_num_threads()
        return f", {count} thread" + ("s" if count > 1 else "")

    def save(self, report: EpochReport, probabilities: list[Any]) -> None:
        """Begin to write this epoch's files."""
        self.history.append(report)
        best = None
        if report.metrics["val_loss"] < self.best_loss or self.inputs.config.train.fit_on != "train":
            self.best_loss, self.best_epoch = report.metrics["val_loss"], report.epoch
            data, backbone = self.inputs.data, self.learners[0].backbone_file
            meta = {
                "format": checkpoint.FORMAT,
                "config": self.inputs.config.model_dump(mode="json"),
                "attributes": [attribute_entry(attribute) for attribute in data.attributes],
                "data_fingerprint": data.fingerprint,
                "report": report.to_json(),
                **({"backbone": backbone} if backbone else {}),
            }
            weights = together([learner.evaluated.state_dict() for learner in self.learners])
            best = Best(weights, meta, data.val.names, data.names, probabilities, data.multi_label)
        self.saver.save(report, self.state(), best)

    def state(self, mid_epoch: MidEpoch | None = None) -> TrialState:
        """What a checkpoint written now would hold."""
        return TrialState(
            config=self.inputs.config,
            fingerprint=self.inputs.data.fingerprint,
            history=tuple(self.history),
            attempt=self.attempt,
            setting=self.setting,
            best_epoch=self.best_epoch,
            best_loss=self.best_loss,
            learners=tuple(learner.state() for learner in self.learners),
            rng=torch.get_rng_state(),
            parts=self.parts,
            mid_epoch=mid_epoch,
        )

    def resume(self, last: TrialState) -> None:
        """Go on from a state. Raises LookupError, TypeError, ValueError or RuntimeError if it is another trial's."""
        last.require_reports_of(self.inputs.trial, self.inputs.config.train.epochs)
        for learner, state_of_it in zip(self.learners, last.learners, strict=True):
            learner.resume(state_of_it)
        torch.set_rng_state(last.rng)
        self.history, self.mid_epoch = list(last.history), last.mid_epoch
        self.epoch, self.attempt = len(last.history), last.attempt + 1
        if last.best_loss <= self.best_loss:
            self.best_epoch, self.best_loss = last.best_epoch, last.best_loss

    def resume_within(self, totals: EpochTotals) -> None:
        """Go on within an epoch, where the state that the trial goes on from is of such a moment."""
        if self.mid_epoch is None:
            return
        with checkpoint.contents_of(self.inputs.folder / LAST):
            state.restore(self.mid_epoch, totals, self.worker)
        self.started, self.mid_epoch = self.started - self.mid_epoch.seconds, None


def _mix(*numbers: int) -> int:
    """One seed from several, without the collisions of adding them (Python's hash of ints is fixed)."""
    return hash(numbers) % 2**31
