"""The table's sizes and stages are those of the networks, and what is tried is what training does."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from fashion.model.backbones import BACKBONES, row
from fashion.model.network import make_backbone, meta_backbone, stages_of
from fashion.model.sizes import _forward, why_it_fails

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
# One of each family; the others are as slow as they are large.
QUICK = ("tiny", "resnet18", "mobilenet_v3_small", "efficientnet_lite0")
NAMES = [
    pytest.param(name, marks=[needs_timm] * (each.source == "timm") + [pytest.mark.slow] * (name not in QUICK))
    for name, each in BACKBONES.items()
]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_a_backbone_takes(name: str) -> None:
    each = row(name)
    assert each.stages == len(stages_of(meta_backbone(each)[0]))
    network, _ = meta_backbone(each)
    for images, least in ((2, each.least_side), (1, each.least_side_alone)):
        assert not _forward(network, least, images, True, 0, "meta")
        if least > 8:
            assert _forward(network, least - 1, images, True, 0, "meta")
    assert each.least_side <= each.least_side_alone


def test_a_size_that_is_refused_is_refused_by_training() -> None:
    convnext = row("convnext_tiny")
    network, _ = make_backbone(convnext)
    assert "Kernel size" in why_it_fails(convnext, 16)
    with pytest.raises(RuntimeError, match="Kernel size"):
        network(torch.zeros(2, 3, 16, 16))


def test_frozen_stages_need_no_second_image() -> None:
    tiny = row("tiny")
    assert "more than 1 value per channel" in why_it_fails(tiny, 16, images=1)
    assert not why_it_fails(tiny, 16, images=1, frozen_stages=None)
    assert why_it_fails(tiny, 16, images=1, frozen_stages=3)
    assert not why_it_fails(tiny, 16, images=1, training=False)
    assert meta_backbone(tiny)[0].training


@needs_timm
def test_a_transformer_takes_its_own_size_alone() -> None:
    vit = row("timm:vit_tiny_patch16_224")
    assert not why_it_fails(vit, 224, images=1)
    assert "224" in why_it_fails(vit, 300)
