"""Features of several backbones and of earlier stages, compared with what plain torch makes of the same networks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from fashion.config.model import ModelConfig
from fashion.errors import UserError
from fashion.model.backbones import row
from fashion.model.classifier import MultiHeadClassifier, build_model
from fashion.model.network import make_backbone, stages_of
from fashion.model.parts.composed import SignedRoot
from fashion.model.parts.stage_features import feature_count


def built(**fields: Any) -> MultiHeadClassifier:
    torch.manual_seed(3)
    return build_model(ModelConfig.model_validate({"weights": "none", **fields}), (3, 2)).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_several_backbones_give_their_features_side_by_side() -> None:
    torch.manual_seed(3)
    first, _ = make_backbone(row("tiny"))
    second, _ = make_backbone(row("resnet18"))
    model = built(backbone="tiny+resnet18")
    with torch.inference_mode():
        apart = torch.cat([first.eval()(images()), second.eval()(images())], 1)
        assert torch.equal(model.features(images()), apart)
    assert model.feature_count == apart.shape[1] == feature_count(row("tiny+resnet18"), ModelConfig(backbone="tiny"))
    whole = sum(p.numel() for p in [*first.parameters(), *second.parameters()])
    assert sum(p.numel() for p in model.backbone_parameters()) == whole == row("tiny+resnet18").parameters


def followed(backbone: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the backbone, and what each of its stages, makes of the images. (ResNet goes on to change some in place.)"""
    seen: list[torch.Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda m, i, output: seen.append(output.clone()))
        for _, stage in stages_of(backbone)
    ]
    pooled = backbone(images())
    for hook in hooks:
        hook.remove()
    return pooled, seen


@pytest.mark.parametrize(("stats", "numbers"), [("mean", 1), ("mean_std", 2)])
@pytest.mark.parametrize("backbone", ["tiny", "tiny+resnet18"])
def test_stages_add_the_means_and_deviations_of_their_channels(backbone: str, stats: str, numbers: int) -> None:
    plain, rich = built(backbone=backbone), built(backbone=backbone, feature_stages=[2, 3], feature_stats=stats)
    parts = [*plain.backbone.children()] if "+" in backbone else [plain.backbone]
    wanted = []
    with torch.inference_mode():
        for part in parts:
            pooled, seen = followed(part)
            wanted.append(pooled)
            for number in (2, 3):
                flat = seen[number - 1].flatten(2)
                wanted += [flat.mean(2), flat.std(2, correction=0)][:numbers]
        found = rich.features(images())
    torch.testing.assert_close(found, torch.cat(wanted, 1), rtol=1e-5, atol=1e-5)
    assert rich.feature_count == found.shape[1]
    assert rich.heads[0].in_features == found.shape[1]
    assert (
        feature_count(row(backbone), ModelConfig(backbone=backbone, feature_stages=(2, 3), feature_stats=stats))
        == (found.shape[1])
    )


def test_a_model_that_predicts_in_several_threads_keeps_their_images_apart() -> None:
    model = built(backbone="tiny", feature_stages=[1, 2], feature_stats="mean_std")
    batches = [images(8) * scale for scale in (0.1, 0.4, 0.7, 1.0)]

    def features(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.features(batch)

    alone = [features(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            assert all(map(torch.equal, pool.map(features, batches), alone))


def test_the_signed_root_is_one_and_has_a_slope_everywhere() -> None:
    numbers = torch.tensor([-4.0, -1.0, 0.0, 1e-3, 9.0], requires_grad=True)
    root = SignedRoot()(numbers)
    torch.testing.assert_close(root, torch.tensor([-2.0, -1.0, 0.0, 1e-3**0.5, 3.0]), rtol=0, atol=2e-3)
    root.sum().backward()
    assert numbers.grad is not None
    assert numbers.grad.isfinite().all()
    assert isinstance(built(backbone="tiny", feature_root=True).root, SignedRoot)
    assert isinstance(built(backbone="tiny").root, nn.Identity)


def test_stages_are_still_frozen_and_cut_by_their_numbers() -> None:
    model = built(backbone="tiny", feature_stages=[3])
    model.freeze_stages(2)
    frozen = [name for name, part in stages_of(model.backbone) if not any(p.requires_grad for p in part.parameters())]
    assert frozen == [name for name, _ in stages_of(model.backbone)][:2]
    with torch.inference_mode():
        whole, maps = model.features(images()), nn.Sequential(*(part for _, part in stages_of(model.backbone)[:2]))
        cut = maps(images())
        torch.testing.assert_close(model.without_stages(2).features(cut), whole)


@pytest.mark.parametrize(
    ("backbone", "stages", "rule"),
    [("tiny", (9,), "of which there are 4"), ("efficientnet_lite0", (12,), "make maps of channels, height and width")],
)
def test_a_stage_that_is_none_or_has_no_maps_is_refused(backbone: str, stages: tuple[int, ...], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        feature_count(row(backbone), ModelConfig(backbone=backbone, feature_stages=stages))
