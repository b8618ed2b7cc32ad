"""Backbones, heads, freezing, the parameter counts of the report, and `fashion-sweep model`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fashion.cli.model import model as command
from fashion.config.model import ModelConfig
from fashion.errors import UserError
from fashion.model import backbones
from fashion.model.classifier import BIAS_INITS, MultiHeadClassifier, build_model, normalization, prior_biases
from fashion.model.loss import cross_entropy
from fashion.model.network import classifier_parameters, complete_row, make_backbone
from fashion.model.summary import summarize

REPORT_CLASSES = (7, 3, 3, 4, 6, 3)


def build(backbone: str, classes: tuple[int, ...] = (2, 5, 9), **more: object) -> MultiHeadClassifier:
    config = ModelConfig.model_validate({"backbone": backbone, "weights": "none", **more})
    return build_model(config, classes, None)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, fashion.model.backbones; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_every_row_says_what_it_builds(name: str) -> None:
    row = backbones.row(name)
    if row.source == "timm":
        pytest.importorskip("timm")
    with torch.device("meta"):
        backbone, features = make_backbone(row, 0.1)
        assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, features)
    assert count(backbone) == row.parameters


@pytest.mark.parametrize("name", [row.name for row in backbones.BACKBONES.values() if row.source == "torchvision"])
def test_every_row_says_torchvisions_normalisation_and_size(name: str) -> None:
    import torchvision

    row = backbones.row(name)
    weights = torchvision.models.get_weight(row.weights_name)
    transforms = weights.transforms()
    assert weights == torchvision.models.get_model_weights(name).DEFAULT
    assert (list(row.mean), list(row.std)) == (transforms.mean, transforms.std)
    assert row.native_size == transforms.crop_size[0]


@pytest.mark.parametrize("name", [n for n in backbones.BACKBONES if n != "convnext_small"])
def test_forward_and_backward(name: str) -> None:
    if backbones.row(name).source == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = build(name, drop_path=0.1)
    targets = torch.tensor([[0, 4, 8], [1, 0, 3]])
    logits = model(torch.randn(2, 3, 40, 40))
    assert [tuple(head.shape) for head in logits] == [(2, 2), (2, 5), (2, 9)]
    cross_entropy(logits, targets).mean().backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None]
    assert not lacking


def test_the_reports_parameter_counts() -> None:
    with torch.device("meta"):
        model = build("efficientnet_b3", REPORT_CLASSES)
    assert count(model) == 10_736_194
    assert sum(p.numel() for p in model.head_parameters()) == 39_962
    summary = summarize(model, 300, backbones.row("efficientnet_b3"))
    assert summary.parameters == 10_736_194 == sum(stage.parameters for stage in summary.stages)
    assert summary.unused_classifier == 1_537_000
    assert summary.parameters + summary.unused_classifier == 12_273_194
    assert "12,273,194" in summary.text()
    last_convolution = next(stage for stage in summary.stages if stage.name == "features.8")
    assert last_convolution.shape == (1536, 10, 10)


def test_a_classifier_that_is_left_out_is_the_imagenet_one() -> None:
    assert classifier_parameters(backbones.row("resnet18")) == 512 * 1000 + 1000
    assert classifier_parameters(backbones.row("convnext_tiny")) == 768 * 1000 + 1000
    assert classifier_parameters(backbones.row("mobilenet_v3_small")) == 1024 * 1000 + 1000
    assert classifier_parameters(backbones.row("tiny")) == 0


def test_features_are_what_torchvisions_own_classifier_sees() -> None:
    import torchvision

    for name, last in (("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3"), ("convnext_tiny", "classifier.2")):
        own = torchvision.models.get_model(name, weights=None).eval()
        backbone, _ = make_backbone(backbones.row(name))
        backbone.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith(last)})
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(own.get_submodule(last)(backbone.eval()(images)), own(images))


def test_frozen_backbone_keeps_weights_and_batch_statistics() -> None:
    torch.manual_seed(0)
    model = build("tiny", dropout=0.5)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.freeze_backbone()
    model.train()
    assert model.training
    assert model.dropout.training
    assert not model.backbone.training
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    head = model.heads[0].get_parameter("weight").detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.zeros(4, 3, dtype=torch.int64)).mean().backward()
        optimizer.step()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(head, model.heads[0].get_parameter("weight"))
    assert not [p for p in model.backbone_parameters() if p.requires_grad]


def test_each_head_has_a_dropout_of_its_own() -> None:
    torch.manual_seed(0)
    model = build("tiny", (4, 4), dropout=0.5)
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    images = torch.randn(3, 3, 32, 32)
    first, second = model(images)
    assert not torch.equal(first, second)
    first, second = model.eval()(images)
    assert torch.equal(first, second)


def test_the_same_seed_gives_the_same_model() -> None:
    models = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        models.append(build("tiny").state_dict())
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert not torch.equal(models[0]["heads.0.weight"], models[2]["heads.0.weight"])


def test_drop_path_reaches_the_blocks() -> None:
    def rates(backbone: str) -> set[float]:
        blocks: Iterator[Any] = build(backbone, drop_path=0.2).modules()
        return {block.p for block in blocks if type(block).__name__ == "StochasticDepth"}

    assert max(rates("efficientnet_b0")) > 0.15
    assert rates("resnet18") == set()


def test_the_tiny_network_learns() -> None:
    torch.manual_seed(0)
    model = build("tiny", (2, 2), dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images = torch.randn(64, 3, 32, 32) * 0.3
    targets = torch.randint(0, 2, (64, 2))
    images[targets[:, 0] == 1, 0, :16] += 0.5  # colour above
    images[targets[:, 1] == 1, 2, :, 16:] += 0.5  # colour at the right
    for _ in range(15):
        optimizer.zero_grad()
        cross_entropy(model(images), targets).mean().backward()
        optimizer.step()
    right = torch.stack([head.argmax(1) for head in model(images)], 1) == targets
    assert right.float().mean() > 0.95


def test_normalisations() -> None:
    lite = backbones.row("efficientnet_lite0")
    mean, std = normalization("weights", lite)
    assert mean[0] * 255 == pytest.approx(127)
    assert std[0] * 255 == pytest.approx(128)
    assert normalization("imagenet", lite) == (backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
    assert normalization("half", lite) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'efficientnet_b33'.*efficientnet_b3"):
        backbones.row("efficientnet_b33")
    with pytest.raises(UserError, match="timm:NAME"):
        backbones.row("timm:")


def test_timm_by_name() -> None:
    pytest.importorskip("timm")
    row = complete_row(backbones.row("timm:vit_tiny_patch16_224"))
    assert row.native_size == 224
    assert row.mean == (0.5, 0.5, 0.5)
    model = build("timm:mobilenetv3_small_050", drop_path=0.1)
    assert [tuple(head.shape) for head in model(torch.randn(2, 3, 64, 64))] == [(2, 2), (2, 5), (2, 9)]
    assert build("timm:vgg11", drop_path=0.1).feature_count == 4096  # vgg11 has no stochastic depth
    with pytest.raises(UserError, match="timm:resnet18"):
        complete_row(backbones.row("timm:resnet1888"))


def test_summary_accounts_for_every_parameter() -> None:
    for name in ("tiny", "resnet18", "timm:vit_tiny_patch16_224"):
        if name.startswith("timm:"):
            pytest.importorskip("timm")
        row = complete_row(backbones.row(name))
        with torch.device("meta"):
            model = build(name)
        model.freeze_backbone()
        summary = summarize(model, row.native_size, row, ["collar", "hem", "cut"])
        assert sum(stage.parameters for stage in summary.stages) == summary.parameters == count(model)
        assert summary.trainable == summary.head_parameters
        assert [s.name for s in summary.stages if s.parameters and not s.frozen] == [
            "head collar",
            "head hem",
            "head cut",
        ]
    with pytest.raises(UserError, match="32 x 32"):
        summarize(model, 32, row)


def challenge_layout(root: Path) -> Path:
    (root / "split").mkdir(parents=True)
    (root / "img").mkdir()
    for split in ("train", "val"):
        names = [f"img/{split}{n}.jpg" for n in range(9)]
        for name in names:
            (root / name).write_bytes(b"")
        (root / "split" / f"{split}.txt").write_text("\n".join(names) + "\n")
        (root / "split" / f"{split}_attr.txt").write_text("".join(f"{n % 2} {n % 5} {n}\n" for n in range(9)))
    return root


def test_the_command_prints_table_and_json(tmp_path: Path) -> None:
    root = str(challenge_layout(tmp_path / "data"))
    text = CliRunner().invoke(command, ["efficientnet_b0", "--data", root], catch_exceptions=False).output
    assert "features.8" in text
    assert "1280 x 7 x 7" in text
    assert "1,281,000" in text
    answer = CliRunner().invoke(command, ["tiny", "--data", root, "--freeze", "--size", "96", "--json"])
    found = json.loads(answer.stdout)
    assert found["size"] == 96
    assert found["head_parameters"] == found["trainable"] == 161 * (2 + 5 + 9)
    assert CliRunner().invoke(command, ["tiny"]).exit_code == 0
    assert "--data" in CliRunner().invoke(command, ["tiny"]).output
    listed = CliRunner().invoke(command, ["--list"]).output
    assert all(name in listed for name in backbones.BACKBONES)
    rows = json.loads(CliRunner().invoke(command, ["--list", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(backbones.BACKBONES)


def test_heads_may_begin_with_what_occurs_how_often() -> None:
    model = build("tiny", (3, 2))
    before = [head.get_parameter("weight").clone() for head in model.heads]
    BIAS_INITS["random"](model, [np.array([1, 2, 3]), np.array([[1, 2], [3, 4]])])
    prior_biases(model, [np.array([69, 29, 0]), np.array([[79, 19], [9, 89]])])
    assert model.heads[0].get_parameter("bias").softmax(0).tolist() == pytest.approx(
        [70 / 101, 30 / 101, 1 / 101], abs=1e-6
    )
    assert model.heads[1].get_parameter("bias").sigmoid().tolist() == pytest.approx([0.2, 0.9], abs=1e-6)
    assert all(
        torch.equal(head.get_parameter("weight"), weight) for head, weight in zip(model.heads, before, strict=True)
    )


@pytest.mark.real
def test_the_command_on_the_real_data(real_root: Path) -> None:
    answer = CliRunner().invoke(command, ["efficientnet_b3", "--data", str(real_root)], catch_exceptions=False)
    assert "10,736,194" in answer.output
    assert "12,273,194" in answer.output
