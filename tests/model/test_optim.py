"""Schedules against closed forms and torch's own, parameter groups, and the moving average computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fashion.config.model import ModelConfig
from fashion.config.train import TrainConfig
from fashion.config.trial import read_config
from fashion.model.classifier import build_model
from fashion.model.network import stages_of
from fashion.model.optim import build_ema, build_optimizer, build_schedule

STEPS = 10  # an epoch


def settings(**options: Any) -> TrainConfig:
    return TrainConfig.model_validate({"epochs": 4, "lr": 0.2, **options})


class Net(nn.Module):
    """A backbone with a convolution, biases and normalisation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images).mean((2, 3)))
        return logits


def optimizer_of(net: Net, train: TrainConfig) -> torch.optim.Optimizer:
    return build_optimizer(train, [net.backbone.parameters()], net.head.parameters())


def rates(train: TrainConfig, steps: int = 4 * STEPS) -> list[list[float]]:
    """The learning rates of every group, as each step uses them."""
    optimizer = optimizer_of(Net(), train)
    schedule, found = build_schedule(train, optimizer, STEPS), []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0.0, 1.0, 1.25])
def test_cosine_after_a_linear_warm_up(warmup: float) -> None:
    found = rates(settings(schedule="cosine", warmup_epochs=warmup, backbone_lr_scale=0.1))
    ramp = round(warmup * STEPS)
    for step, (backbone, head) in enumerate(found):
        done = (step - ramp) / (4 * STEPS - ramp)
        share = (step + 1) / (ramp + 1) if step < ramp else (1 + math.cos(math.pi * done)) / 2
        assert head == pytest.approx(0.2 * share, rel=1e-6)
        assert backbone == pytest.approx(0.02 * share, rel=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_constant_after_a_linear_warm_up(warmup: float) -> None:
    ramp = round(warmup * STEPS)
    expected = [0.2 * min((step + 1) / (ramp + 1), 1.0) for step in range(4 * STEPS)]
    assert [head for _, head in rates(settings(schedule="constant", warmup_epochs=warmup))] == pytest.approx(expected)


def test_one_cycle_equals_torchs_own() -> None:
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(reference, max_lr=0.2, total_steps=4 * STEPS, cycle_momentum=False)
    found = rates(settings(schedule="onecycle", backbone_lr_scale=0.5))
    for backbone, head in found:
        assert head == pytest.approx(reference.param_groups[0]["lr"], rel=1e-9)
        assert backbone == pytest.approx(head / 2, rel=1e-9)
        reference.step()
        cycle.step()
    assert max(head for _, head in found) == pytest.approx(0.2, rel=0.01)
    assert found[-1][1] < 1e-4


@pytest.mark.parametrize("schedule", ["cosine", "constant", "onecycle"])
@pytest.mark.parametrize("stop", [3, 10, 25])
def test_a_schedule_goes_on_from_its_saved_state(schedule: str, stop: int) -> None:
    train = settings(schedule=schedule, warmup_epochs=0.0 if schedule == "onecycle" else 1.0)
    optimizer = optimizer_of(Net(), train)
    states = None
    course = build_schedule(train, optimizer, STEPS)
    for _ in range(stop):
        optimizer.step()
        course.step()
    states = optimizer.state_dict(), course.state_dict()
    optimizer = optimizer_of(Net(), train)
    course = build_schedule(train, optimizer, STEPS)
    optimizer.load_state_dict(states[0])
    course.load_state_dict(states[1])
    found = []
    for _ in range(stop, 4 * STEPS):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        course.step()
    assert found == rates(train)[stop:]


def test_the_three_optimisers_and_what_they_decay() -> None:
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        net = Net()
        train = settings(optimizer=name, momentum=0.8, weight_decay=0.01, backbone_lr_scale=0.25)
        optimizer = optimizer_of(net, train)
        assert type(optimizer) is kind
        settled = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        assert len(settled) == sum(len(group["params"]) for group in optimizer.param_groups) == 6  # each once
        for part, parameter in net.named_parameters():
            group = settled[id(parameter)]
            assert group["lr"] == (0.2 if part.startswith("head") else 0.05)
            plain = name == "adamw" and parameter.ndim == 1  # biases and normalisation scales
            assert group["weight_decay"] == (0.0 if plain else 0.01)
            assert (group["momentum"] if name == "sgd" else group["betas"][0]) == 0.8
        # The last group is the heads': that is the rate that reports show.
        assert optimizer.param_groups[-1]["lr"] == 0.2


def test_each_layer_learns_at_a_share_of_the_next_ones_rate() -> None:
    model = build_model(ModelConfig(backbone="tiny", weights="none"), (3,))
    train = settings(optimizer="adamw", backbone_lr_scale=0.5, layer_decay=0.7, schedule="constant")
    optimizer = build_optimizer(train, model.backbone_layers(), model.head_parameters())
    rate = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rate.keys() == {id(parameter) for parameter in model.parameters()}
    stages = [stage for _, stage in stages_of(model.backbone) if any(True for _ in stage.parameters())]
    for behind, stage in enumerate(reversed(stages)):
        for parameter in stage.parameters():
            assert rate[id(parameter)] == pytest.approx(0.2 * 0.5 * 0.7**behind)
    assert {rate[id(parameter)] for parameter in model.head_parameters()} == {0.2}
    # What no stage holds comes first, as an embedding of the input does.
    model.backbone.token = nn.Parameter(torch.zeros(2, 2))
    assert any(parameter is model.backbone.token for parameter in model.backbone_layers()[0])


def test_without_layer_decay_the_groups_are_those_of_versions_before_it() -> None:
    model = build_model(ModelConfig(backbone="resnet18", weights="none"), (3,))
    optimizer = build_optimizer(settings(), model.backbone_layers(), model.head_parameters())
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted = [*model.backbone.parameters(), *model.heads.parameters()]
    assert len(held) == len(wanted)
    assert all(one is other for one, other in zip(held, wanted, strict=True))


def test_a_frozen_backbone_has_no_group() -> None:
    net = Net()
    net.backbone.requires_grad_(False)
    optimizer = optimizer_of(net, settings(optimizer="adamw"))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.head.parameters()}


def test_no_average_without_a_decay() -> None:
    assert build_ema(settings(ema=0.0), Net()) is None


def test_the_average_equals_a_hand_computation() -> None:
    torch.manual_seed(0)
    net, limit = Net(), 0.5
    ema = build_ema(settings(ema=limit), net)
    assert ema is not None
    expected: dict[str, Tensor] = {}
    for update in range(15):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        net.train()
        net(torch.randn(4, 1, 6, 6))  # moves the batch statistics and their counter
        ema.update_parameters(net)
        decay = min(limit, (1 + update) / (10 + update))
        for name, value in net.state_dict().items():
            if update == 0 or not value.is_floating_point():  # the first is a copy, counters always are
                expected[name] = value.clone()
            else:
                expected[name] = decay * expected[name] + (1 - decay) * value
    averaged = ema.module.state_dict()
    assert averaged.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value)
    assert not torch.equal(averaged["head.weight"], net.state_dict()["head.weight"])
    assert averaged["backbone.1.num_batches_tracked"].item() == 15


def test_the_average_goes_on_from_its_saved_state() -> None:
    torch.manual_seed(0)
    nets = [Net() for _ in range(6)]
    whole, first = build_ema(settings(ema=0.9), nets[0]), build_ema(settings(ema=0.9), nets[0])
    assert whole is not None
    assert first is not None
    for net in nets:
        whole.update_parameters(net)
    for net in nets[:3]:
        first.update_parameters(net)
    second = build_ema(settings(ema=0.9), Net())
    assert second is not None
    second.load_state_dict(first.state_dict())
    for net in nets[3:]:
        second.update_parameters(net)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("optimizer", "mode", "word", "decayed"),
    [
        ("sgd", "full", "auto", True),
        ("adam", "full", "auto", True),
        ("adamw", "full", "auto", False),
        ("sgd", "probe", "auto", False),
        ("sgd", "probe", "optimizer", True),
        ("adamw", "full", "always", True),
        ("sgd", "full", "never", False),
    ],
)
def test_which_biases_are_decayed(optimizer: str, mode: str, word: str, decayed: bool) -> None:
    net = Net()
    train = settings(optimizer=optimizer, mode=mode, decay_biases=word, weight_decay=0.1, lr=0.01)
    decays = {id(p): group["weight_decay"] for group in optimizer_of(net, train).param_groups for p in group["params"]}
    assert {decays[id(p)] for p in net.parameters() if p.ndim > 1} == {0.1}
    assert {decays[id(p)] for p in net.parameters() if p.ndim <= 1} == {0.1 if decayed else 0.0}


def test_a_record_without_the_field_decays_as_its_optimiser_did() -> None:
    recorded = {"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": {"mode": "probe", "optimizer": "sgd"}}
    assert read_config(recorded).train.decay_biases == "optimizer"
    assert TrainConfig().decay_biases == "auto"
