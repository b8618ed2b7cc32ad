"""Where a backbone can be cut, and that the two parts are the whole."""

from __future__ import annotations

import pytest
import torch

from fashion.model.backbones import row
from fashion.model.network import complete_row, make_backbone
from fashion.model.parts.cut import is_chain, map_shape, maps_behind, why_not_cut


@pytest.mark.parametrize(
    ("backbone", "side", "cut"),
    [("tiny", 32, 2), ("resnet18", 33, 2), ("mobilenet_v3_small", 40, 6), ("efficientnet_lite0", 48, 5)],
)
def test_the_tail_of_the_maps_gives_the_features_of_the_whole(backbone: str, side: int, cut: int) -> None:
    assert is_chain(row(backbone), side, cut)
    shape = map_shape(row(backbone), side, cut)
    network = make_backbone(row(backbone))[0].eval()
    with torch.inference_mode():
        assert maps_behind(network, [cut], torch.zeros(1, 3, side, side))[0].shape[1:] == shape
    assert why_not_cut(row(backbone), side, cut, crop_cells=shape[1] - 1) == ""
    assert f"{shape[1]} x {shape[1]} cells" in why_not_cut(row(backbone), side, cut, crop_cells=shape[1])


def test_a_network_that_does_more_between_its_stages_is_refused() -> None:
    pytest.importorskip("timm")
    vit = complete_row(row("timm:test_vit"))
    assert "more between its stages" in why_not_cut(vit, vit.native_size, 1)
    assert "can't be cropped" in why_not_cut(vit, vit.native_size, 2, crop_cells=1)
    assert why_not_cut(vit, vit.native_size, 99) == ""  # told of any frozen stages
