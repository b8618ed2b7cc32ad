"""One model of a trial with all that trains it: a trial has one, or with `data.folds` one for each fold.

Each fold's model is trained as the only one of a trial on that division would be, to the last bit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fashion.config.trial import TrialConfig
from fashion.data.augment import mixture
from fashion.data.batches import Batch, Worker, steps_per_epoch
from fashion.model.classifier import BIAS_INITS, build_model
from fashion.model.loss import build_loss, mixed
from fashion.model.metrics import Meter
from fashion.model.optim import OPTIMIZERS, build_ema, build_optimizer, build_schedule
from fashion.model.precision import Setting
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training import micro_batches
from fashion.training.distillation.objective import Distillation
from fashion.training.evaluate import evaluate, gathered, to_probabilities, with_rank_0s_buffers
from fashion.training.features import Features
from fashion.training.feed import TrainingData, make_feed
from fashion.training.initial.heads import HEAD_INITS
from fashion.training.saver import set_backbone_aside
from fashion.training.solved.heads import measured, solve_heads
from fashion.training.state import LearnerState


@dataclass(frozen=True, eq=False)
class Validation:
    """meter: of all images that were validated, on all workers. probabilities: on rank 0, per head (n, classes) in file
    order."""

    meter: Meter
    probabilities: list[Any]


class Learner:
    """A model with its optimiser, schedule, average and batches. The caller seeds torch's generator before it is made,
    from which random weights come.

    data: what this model reads. owner: the folder that keeps the backbone of a probe or a tail, or None for who doesn't
    write it. fresh: whether nothing will be resumed: the heads then begin as `train.init_heads` says.
    `steps` of an epoch; `lr` of the heads in the next step.
    """

    def __init__(
        self, config: TrialConfig, data: TrainingData, weights: ResolvedWeights, worker: Worker, setting: Setting,
        owner: Path | None, fresh: bool = True,
    ) -> None:  # fmt: skip
        train = config.train
        self.data, self.worker, self.setting = data, worker, setting
        self.clip_grad = train.clip_grad
        self.steps = steps_per_epoch(data.training_images, train.batch_size, worker.world_size)
        model = build_model(config.model, data.class_counts, weights)
        self.config, self.solves = config, OPTIMIZERS[train.optimizer].solves
        BIAS_INITS[train.init_biases](model, data.label_counts)
        if fresh:  # else they are in the checkpoint
            HEAD_INITS[train.init_heads](model, data.train_features, data.train_labels, data.attributes)
        self.backbone_file = set_backbone_aside(model, config, weights, owner) if train.mode != "full" else None
        self.model = setting.arrange(model, worker.device)
        if train.mode != "probe":
            self.model.freeze(train)
        self.optimizer = build_optimizer(train, self.model.backbone_layers(), self.model.head_parameters())
        self.schedule = build_schedule(train, self.optimizer, self.steps)
        self.ema = build_ema(train, self.model)
        self.criterion = build_loss(train, data.class_counts, data.label_counts, data.multi_label)
        self.teacher = _teacher(config, data, worker)
        self.feed = make_feed(config, data, worker)
        self.net: nn.Module = self.model

    def wrap(self) -> None:
        """Make the network that is trained. After loading: DDP sends rank 0's weights to every worker."""
        net: nn.Module = DistributedDataParallel(self.model) if self.worker.world_size > 1 else self.model
        self.net = self.setting.compiled(net)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[-1]["lr"])

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated, saved as best and promoted: the average where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def solve(self) -> str:
        """Where the optimiser solves the heads, on all training images at once, do that. Returns what is to be told of
        it; empty where it doesn't."""
        if not self.solves:
            return ""
        assert self.data.cached is not None, "lbfgs goes with mode: probe"
        features, rows = self.data.cached[0], self.data.train_rows
        assert isinstance(features, Features), "a probe's"
        return solve_heads(self.model, features.among(rows), self.data.attributes, self.config)

    def optimise(self, batch: Batch, parts: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """One step. Returns, detached, each head's logits (n, classes) and the losses (n,) of this worker's images.
        parts: the number of micro-batches."""
        # DDP averages gradients over workers; shards may be uneven, so each counts by its images.
        scale = self.worker.world_size / batch.global_count
        images = batch.images if self.setting.channels_last else batch.images.contiguous()
        criterion: micro_batches.Criterion
        criterion = self.criterion.of_batch(batch.known, batch.global_count, self.data.class_counts)
        if self.solves:
            return measured(self.model, criterion, batch)
        targets = batch.targets
        if self.teacher is not None:
            assert batch.rows is not None, "training batches have them"
            criterion, targets = self.teacher.beside(criterion), self.teacher.with_rows(targets, batch.rows)
        train = self.config.train
        if train.mixup or train.cutmix:
            images, others, share = mixture(images, targets, train.mixup, train.cutmix)
            # Side by side, so that micro-batches keep them together.
            criterion, targets = mixed(criterion, share), torch.cat([targets, others], dim=1)

        self.optimizer.zero_grad(set_to_none=True)
        logits, losses = micro_batches.add_gradients(self.net, criterion, images, targets, scale, parts, self._autocast)
        if self.clip_grad > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.optimizer.step()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return logits, losses

    def _autocast(self) -> AbstractContextManager[None]:
        return self.setting.autocast(self.worker.device)

    def validate(self) -> Validation:
        """Of the images that this model is measured by."""
        worker, data = self.worker, self.data
        if worker.world_size > 1:
            with_rank_0s_buffers((self.model, self.evaluated))
        batches, counts = self.feed.validate(), data.class_counts
        meter, heads = evaluate(self.evaluated, batches, counts, worker.device, data.multi_label, data.val_complete)
        meter.reduce()
        probabilities = to_probabilities(heads, data.multi_label)
        if worker.world_size > 1:
            probabilities = gathered(probabilities, worker.world_size)
        return Validation(meter, probabilities)

    def state(self) -> LearnerState:
        """What a checkpoint written now would hold of it."""
        return LearnerState(
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            ema=self.ema.state_dict() if self.ema is not None else None,
        )

    def resume(self, last: LearnerState) -> None:
        """Go on from a state. Raises LookupError, TypeError, ValueError or RuntimeError if it is another model's."""
        self.model.load_state_dict(last.model)
        self.optimizer.load_state_dict(last.optimizer)
        if last.schedule.keys() != self.schedule.state_dict().keys():  # torch takes any
            raise ValueError("its schedule is another one's")
        self.schedule.load_state_dict(last.schedule)
        if self.ema is not None:
            if last.ema is None:
                raise ValueError("it has no average of the weights")
            self.ema.load_state_dict(last.ema)


def _teacher(config: TrialConfig, data: TrainingData, worker: Worker) -> Distillation | None:
    train = config.train
    if train.teacher is None:
        return None
    if data.soft_labels is None:
        raise ValueError(f"train.teacher: {train.teacher} needs its soft labels")
    return Distillation(
        data.soft_labels, data.class_counts, data.multi_label, train.teacher_weight, train.teacher_temperature,
        worker.device,
    )  # fmt: skip
