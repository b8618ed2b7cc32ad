"""Optimiser, learning-rate schedule and weight averaging, all torch's own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from fashion.config import TrainConfig

Group = dict[str, object]
Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def build_optimizer(
    train: TrainConfig, backbone: Iterable[nn.Parameter], heads: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the parameters that require gradients.

    The heads learn at `train.lr`, the backbone at `train.lr * train.backbone_lr_scale`. AdamW leaves biases and
    normalisation scales undecayed (the usual transfer recipe); SGD and Adam decay everything, as the report did. torch's
    fused kernels update all parameters in one pass, on CPUs as on GPUs.
    """
    groups: list[Group] = []
    for parameters, lr in ((backbone, train.lr * train.backbone_lr_scale), (heads, train.lr)):
        trainable = [p for p in parameters if p.requires_grad]
        plain = [p for p in trainable if p.ndim <= 1] if train.optimizer == "adamw" else []
        kept = {id(p) for p in plain}
        decayed = [p for p in trainable if id(p) not in kept]
        if decayed:
            groups.append({"params": decayed, "lr": lr, "weight_decay": train.weight_decay})
        if plain:
            groups.append({"params": plain, "lr": lr, "weight_decay": 0.0})
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, fused=True)
    kind = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=train.lr, betas=(train.momentum, 0.999), fused=True)


def build_schedule(
    train: TrainConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """One value a step: cosine to zero, constant, or one-cycle (Smith & Topin 2018), over the trial's own `epochs`."""
    total = train.epochs * steps_per_epoch
    if train.schedule == "onecycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=total, cycle_momentum=False)
    warmup = round(train.warmup_epochs * steps_per_epoch)
    after: lr_scheduler.LRScheduler
    if train.schedule == "cosine":
        after = lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(total - warmup, 1))
    else:
        after = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    if warmup == 0:
        return after
    ramp = lr_scheduler.LinearLR(optimizer, start_factor=1.0 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [ramp, after], milestones=[warmup])


def build_ema(train: TrainConfig, model: nn.Module) -> AveragedModel | None:
    """Exponential moving average of weights and normalisation statistics; None where `train.ema` is 0.

    The decay grows as (1 + n) / (10 + n) until it reaches `train.ema` (as TensorFlow's does), so that the average of a
    young model is not mostly its initial weights: early rungs compare what was learnt.
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
