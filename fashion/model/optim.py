"""Optimisers and learning-rate schedules by name, and weight averaging; all are torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from fashion.config.train import TrainConfig

Group = dict[str, Any]
Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


@dataclass(frozen=True)
class OptimizerRow:
    """make: from the settings and the groups of parameters. decays_all: whether weight decay applies to biases and
    normalisation scales, too. solves: whether it solves the heads once (`training/solved`) and steps no further."""

    make: Callable[[TrainConfig, list[Group]], torch.optim.Optimizer]
    decays_all: bool
    solves: bool = False


def lbfgs(groups: list[Group], rough: bool = False) -> torch.optim.LBFGS:
    """L-BFGS as a solver (Liu and Nocedal 1989): one `step` with the whole objective goes on until it is solved, in a
    rough way as far as the objective's third decimal."""
    return torch.optim.LBFGS(
        groups, lr=1.0, max_iter=100 if rough else 500, tolerance_grad=1e-3 if rough else 1e-6,
        tolerance_change=1e-7 if rough else 1e-12, history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip


# torch's fused kernels update all parameters in one pass, on CPUs as on GPUs. The keys are the words that
# `TrainConfig.optimizer` allows. Adam and SGD decay everything, as the report did; AdamW follows the usual recipe for
# transfer learning.
OPTIMIZERS: Mapping[str, OptimizerRow] = {
    "sgd": OptimizerRow(
        lambda train, groups: torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, fused=True), decays_all=True
    ),
    "adam": OptimizerRow(
        lambda train, groups: torch.optim.Adam(groups, lr=train.lr, betas=(train.momentum, 0.999), fused=True),
        decays_all=True,
    ),
    "adamw": OptimizerRow(
        lambda train, groups: torch.optim.AdamW(groups, lr=train.lr, betas=(train.momentum, 0.999), fused=True),
        decays_all=False,
    ),
    "lbfgs": OptimizerRow(lambda train, groups: lbfgs(groups), decays_all=True, solves=True),
}

# Whether biases and normalisation scales are decayed, from an optimiser's row and whether only heads are trained. The
# keys are the words that `TrainConfig.decay_biases` allows.
DECAYS: Mapping[str, Callable[[OptimizerRow, bool], bool]] = {
    "auto": lambda row, probe: row.decays_all and not probe,
    "optimizer": lambda row, probe: row.decays_all,
    "always": lambda row, probe: True,
    "never": lambda row, probe: False,
}


def build_optimizer(
    train: TrainConfig, backbone: Sequence[Iterable[nn.Parameter]], heads: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser that `train` asks for, over the parameters that require gradients. backbone: by layer, from the
    input on.

    The heads learn at `train.lr`, the backbone's last layer at `train.lr * train.backbone_lr_scale`, and each layer
    before it at `train.layer_decay` times the next one's rate.
    """
    chosen = OPTIMIZERS[train.optimizer]
    decays_all = chosen.solves or DECAYS[train.decay_biases](chosen, train.mode == "probe")
    scale = train.lr * train.backbone_lr_scale
    if train.layer_decay == 1:
        rates: list[tuple[Iterable[nn.Parameter], float]] = [(chain.from_iterable(backbone), scale)]
    else:
        rates = [(layer, scale * train.layer_decay**behind) for behind, layer in enumerate(reversed(backbone))][::-1]
    groups: list[Group] = []
    for parameters, lr in (*rates, (heads, train.lr)):
        trainable = [p for p in parameters if p.requires_grad]
        plain = [] if decays_all else [p for p in trainable if p.ndim <= 1]
        kept = {id(p) for p in plain}
        decayed = [p for p in trainable if id(p) not in kept]
        if decayed:
            groups.append({"params": decayed, "lr": lr, "weight_decay": train.weight_decay})
        if plain:
            groups.append({"params": plain, "lr": lr, "weight_decay": 0.0})
    return chosen.make(train, groups)


def build_schedule(
    train: TrainConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """The learning-rate schedule that `train` asks for: one value for each step of the trial's own `epochs`."""
    warmup = round(train.warmup_epochs * steps_per_epoch)
    return SCHEDULES[train.schedule](optimizer, train.epochs * steps_per_epoch, warmup)


def _cosine(optimizer: torch.optim.Optimizer, total: int, warmup: int) -> lr_scheduler.LRScheduler:
    return _warmed_up(optimizer, warmup, lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(total - warmup, 1)))


def _constant(optimizer: torch.optim.Optimizer, total: int, warmup: int) -> lr_scheduler.LRScheduler:
    return _warmed_up(optimizer, warmup, lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0))


def _one_cycle(optimizer: torch.optim.Optimizer, total: int, warmup: int) -> lr_scheduler.LRScheduler:
    """Smith & Topin 2018. It has a warm-up of its own."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=total, cycle_momentum=False)


def _warmed_up(
    optimizer: torch.optim.Optimizer, warmup: int, after: lr_scheduler.LRScheduler
) -> lr_scheduler.LRScheduler:
    if warmup == 0:
        return after
    ramp = lr_scheduler.LinearLR(optimizer, start_factor=1.0 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [ramp, after], milestones=[warmup])


# The keys are the words that `TrainConfig.schedule` allows; a row takes the optimiser and the numbers of all steps and
# of those that warm up.
SCHEDULES: Mapping[str, Callable[[torch.optim.Optimizer, int, int], lr_scheduler.LRScheduler]] = {
    "cosine": _cosine,
    "constant": _constant,
    "onecycle": _one_cycle,
}


def build_ema(train: TrainConfig, model: nn.Module) -> AveragedModel | None:
    """Exponential moving average of weights and normalisation statistics; None where `train.ema` is 0.

    After n updates the decay is (1 + n) / (10 + n), until it reaches `train.ema` (as in TensorFlow). So the average of
    a young model does not consist mostly of its initial weights, and early rungs compare what was learnt.
    """
    if train.ema == 0.0:
        return None

    def average(averaged: Tensors, current: Tensors, _: object) -> None:
        if not torch.is_floating_point(averaged[0]):
            torch._foreach_copy_(averaged, current)  # batch counters
            return
        updates = int(ema.n_averaged)  # on the CPU: reading it does not wait for the device
        decay = min(train.ema, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(averaged, current, 1.0 - decay)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema
