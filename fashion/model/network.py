"""Builds a backbone of the table: a network from images to pooled features, without its ImageNet classifier."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fashion.config.names import TIMM_PREFIX
from fashion.errors import UserError
from fashion.model.backbones import BackboneRow, Provider, joined
from fashion.model.parts.composed import JoinedBackbones, StageFeatures
from fashion.model.tiny import TinyNet

# torchvision's and timm's names for a container whose members are the stages.
OPENED = ("features", "blocks", "stages", "layers")
# Their names for the classifier, which this project replaces with its own heads.
CLASSIFIER_NAMES = ("classifier", "fc", "head", "heads", "head_dist", "last_linear")


def import_timm(why: str) -> ModuleType:
    """The timm package. Raises UserError with the remedy if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"{why} needs the package timm ({error}). Install it: pip install 'fashion-sweep[timm]'"
        ) from None
    return timm


def complete_row(row: BackboneRow) -> BackboneRow:
    """The row of `timm:NAME` with the size and normalisation that timm knows; any other row as it is.

    Raises UserError, with the nearest names, when timm has no such network.
    """
    if row.parts:
        return joined([complete_row(part) for part in row.parts])
    if not row.name.startswith(TIMM_PREFIX):
        return row
    timm = import_timm(f"model.backbone: {row.name}")
    name = row.timm_name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join('timm:' + n for n in near)}?" if near else "timm.list_models() names them."
        raise UserError(f"model.backbone: timm {timm.__version__} has no network of that name; got {name!r}. {hint}")
    known = timm.models.get_pretrained_cfg(name)
    if known is None:
        return replace(row, native_size=224)
    return replace(row, native_size=known.input_size[-1], mean=tuple(known.mean), std=tuple(known.std))


def make_backbone(row: BackboneRow, drop_path: float = 0.0) -> tuple[nn.Module, int]:
    """The network of `row` with random weights from torch's global generator, and its number of features F.

    It maps images (n, 3, H, W) to (n, F). `drop_path` is the stochastic depth rate (Huang et al. 2016) of the last
    block; backbones without stochastic depth ignore it, so that one spec may sweep over both kinds.
    """
    return BUILDERS[row.source](row, drop_path)


@lru_cache(maxsize=64)
def meta_backbone(row: BackboneRow) -> tuple[nn.Module, int]:
    """`make_backbone(row)` on the meta device, where its tensors take no memory. It is built once in a process, for
    whoever asks about shapes and sizes, so nobody may change it."""
    with torch.device("meta"):
        return make_backbone(row)


def stages_of(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a backbone that an image passes one after another, with their names, from the input on."""
    if isinstance(backbone, StageFeatures):
        return [(f"network.{name}", module) for name, module in stages_of(backbone.network)]
    found: list[tuple[str, nn.Module]] = []
    for name, child in backbone.named_children():
        if name in OPENED and isinstance(child, nn.Sequential | nn.ModuleList):
            found += [(f"{name}.{inner}", module) for inner, module in child.named_children()]
        elif not all(isinstance(part, nn.Identity | nn.Sequential) for part in child.modules()):
            found.append((name, child))  # the remains of the classifier are not a stage
    return found


def take_off(backbone: nn.Module, stages: Iterable[tuple[str, nn.Module]]) -> None:
    """Let these of a backbone's stages, the first ones, pass on what they are given: maps instead of images."""
    for name, _ in stages:
        backbone.set_submodule(name, nn.Identity())


@lru_cache(maxsize=64)
def classifier_parameters(row: BackboneRow) -> int:
    """Parameters of the ImageNet classifier that `make_backbone` leaves out (0 for a network without one).

    The report's count includes it although its forward pass never uses it ("Number of parameters of model").
    """
    with torch.device("meta"):
        full = WITH_CLASSIFIER[row.source](row)
    kept, _ = meta_backbone(row)
    return sum(p.numel() for p in full.parameters()) - sum(p.numel() for p in kept.parameters())


def _own_backbone(row: BackboneRow, drop_path: float) -> tuple[nn.Module, int]:
    network = OWN[row.name]()
    return network, network.num_features


def _torchvision_backbone(row: BackboneRow, drop_path: float) -> tuple[nn.Module, int]:
    network = _torchvision_network(row, drop_path)
    return network, _take_off_classifier(network)


def _torchvision_network(row: BackboneRow, drop_path: float) -> nn.Module:
    import torchvision

    more: dict[str, Any] = {"stochastic_depth_prob": drop_path} if row.drop_path else {}
    network: nn.Module = torchvision.models.get_model(row.name, weights=None, **more)
    return network


def _take_off_classifier(network: nn.Module) -> int:
    """Replace the last Linear by Identity, and so the classifier's dropouts: each head has its own. Returns F."""
    name = "fc" if hasattr(network, "fc") else "classifier"
    part = getattr(network, name)
    if isinstance(part, nn.Linear):
        setattr(network, name, nn.Identity())
        return part.in_features
    last = len(part) - 1
    features: int = part[last].in_features
    for index, module in enumerate(part):
        if index == last or isinstance(module, nn.Dropout):
            part[index] = nn.Identity()
    return features


def _timm_backbone(row: BackboneRow, drop_path: float) -> tuple[nn.Module, int]:
    timm = import_timm(f"model.backbone: {row.name}")
    row = complete_row(row)
    more: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        network = timm.create_model(row.timm_name, pretrained=False, num_classes=0, **more)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        network = timm.create_model(row.timm_name, pretrained=False, num_classes=0)
    # Some networks (MobileNetV3's) have a layer between pooling and classifier, which num_features does not count.
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


def _joined_backbones(row: BackboneRow, drop_path: float) -> tuple[nn.Module, int]:
    built = [make_backbone(part, drop_path) for part in row.parts]
    names = [part.name for part in row.parts]
    return JoinedBackbones(names, [backbone for backbone, _ in built]), sum(features for _, features in built)


# This project's own networks by the name of their row; `num_features` of each is its F.
OWN: Mapping[str, type[TinyNet]] = {"tiny": TinyNet}
# For each source of networks: the backbone of a row with its F, and the network with the classifier that it had.
BUILDERS: Mapping[Provider, Callable[[BackboneRow, float], tuple[nn.Module, int]]] = {
    "own": _own_backbone,
    "torchvision": _torchvision_backbone,
    "timm": _timm_backbone,
    "joined": _joined_backbones,
}
WITH_CLASSIFIER: Mapping[Provider, Callable[[BackboneRow], nn.Module]] = {
    "own": lambda row: _own_backbone(row, 0.0)[0],
    "torchvision": lambda row: _torchvision_network(row, 0.0),
    "timm": lambda row: import_timm(row.name).create_model(complete_row(row).timm_name, pretrained=False),
    "joined": lambda row: nn.ModuleList([WITH_CLASSIFIER[part.source](part) for part in row.parts]),
}
