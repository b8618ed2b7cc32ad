"""`train.freeze_bn_stats`: the backbone's running statistics stay, everything else is trained."""

from __future__ import annotations

import torch
from torch import nn

from fashion.config.model import ModelConfig
from fashion.config.train import TrainConfig
from fashion.model.classifier import build_model


def test_the_statistics_stay_and_scale_and_shift_are_trained() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone="tiny", weights="none", feature_norm="batch"), (3,))
    model.freeze(TrainConfig(freeze_bn_stats=True, freeze_stages=1))
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    (logits,) = model(torch.randn(4, 3, 32, 32))
    logits.square().sum().backward()
    changed = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert changed == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    trained = {name for name, value in model.named_parameters() if value.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("backbone.stem")}
    assert isinstance(model.backbone.get_submodule("stage1.norm1"), nn.BatchNorm2d)
    assert "backbone.stage1.norm1.weight" in trained
