"""The ways to compute: what stays in fp32 under bf16, and that a copied model computes with its own weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fashion.config.model import ModelConfig
from fashion.model import precision
from fashion.model.classifier import build_model
from fashion.model.precision import Setting, imitated

CPU = torch.device("cpu")
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def model(backbone: str = "mobilenet_v3_small") -> nn.Module:
    torch.manual_seed(0)
    built = build_model(ModelConfig(backbone=backbone, weights="none", dropout=0.0), (3, 2))
    return Setting(True, True).arrange(built, CPU)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "efficientnet_lite0"])
def test_under_bf16_depthwise_convolutions_compute_in_fp32_and_the_others_do_not(backbone: str) -> None:
    seen: dict[bool, set[torch.dtype | str]] = {True: set(), False: set()}

    def note(module: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        depthwise = module.groups == module.in_channels > 1
        # What arrives at the weight in the backward pass is what the convolution computed with.
        seen[depthwise].add(output.grad_fn.next_functions[0][0].name() if depthwise else output.dtype)  # type: ignore

    arranged = model(backbone)
    convolutions = [module for module in arranged.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        module.register_forward_hook(note)
    with Setting(True, True).autocast(CPU):
        logits = arranged(IMAGES)
    assert seen[False] == {torch.bfloat16}
    assert seen[True] == {"ConvolutionBackward0"}  # then the cast to bf16: the output's own function is ToCopy
    torch.stack([head.float().sum() for head in logits]).sum().backward()
    assert all(module.weight.grad is not None and module.weight.grad.dtype == torch.float32 for module in convolutions)


def test_in_fp32_nothing_changes() -> None:
    """Validation and prediction compute without autocast: to the last bit as a model that was never arranged."""
    torch.manual_seed(0)
    plain = build_model(ModelConfig(backbone="mobilenet_v3_small", weights="none", dropout=0.0), (3, 2))
    plain = plain.to(memory_format=torch.channels_last).eval()
    arranged = model().eval()
    assert arranged.state_dict().keys() == plain.state_dict().keys()
    with torch.inference_mode():
        for ours, expected in zip(arranged(IMAGES), plain(IMAGES), strict=True):
            assert torch.equal(ours, expected)


def test_a_deep_copy_computes_with_its_own_weights() -> None:
    first = model().eval()
    second = copy.deepcopy(first)
    for parameter in second.parameters():
        nn.init.zeros_(parameter)
    with torch.inference_mode():
        assert all(head.abs().max() == 0 for head in second(IMAGES))
        assert all(head.abs().max() > 0 for head in first(IMAGES))


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (Setting(False, True), "fp32 channels_last"),
        (Setting(True, False), "bf16 nchw"),
        (Setting(True, True, "default"), "bf16 channels_last compiled (default)"),
    ],
)
def test_a_setting_says_what_it_is(setting: Setting, shown: str) -> None:
    assert str(setting) == shown


def test_a_precision_fixed_by_hand_that_the_device_only_imitates_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bf16", lambda device: False)
    assert imitated("bf16", CPU).startswith("train.precision: bf16 is only imitated on this machine")
    assert imitated("fp32", CPU) == imitated("auto", CPU) == ""
    monkeypatch.setattr(precision, "computes_bf16", lambda device: True)
    assert imitated("bf16", CPU) == ""
