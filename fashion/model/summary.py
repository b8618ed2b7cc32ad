"""The parts of a model, as in the report's Figure 3: stages, output shapes, parameters, and what is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fashion.config.model import ModelConfig
from fashion.errors import UserError
from fashion.model import backbones
from fashion.model.backbones import BackboneRow
from fashion.model.classifier import MultiHeadClassifier
from fashion.model.network import classifier_parameters, complete_row, meta_backbone, stages_of
from fashion.model.parts.stage_features import feature_count


@dataclass(frozen=True)
class Stage:
    """One part. `shape` is the output for one image, without the batch; empty if the output is not a single tensor."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    frozen: bool


@dataclass(frozen=True)
class Summary:
    """Stages in the order of the forward pass, and totals. `unused_classifier` counts the parameters left out."""

    backbone: str
    size: int
    stages: tuple[Stage, ...]
    backbone_parameters: int
    head_parameters: int
    trainable: int
    unused_classifier: int

    @property
    def parameters(self) -> int:
        return self.backbone_parameters + self.head_parameters

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "parameters": self.parameters}

    def text(self) -> str:
        """The table for a terminal, followed by the totals."""
        rows = [("stage", "layer", "output", "parameters", "")]
        for stage in self.stages:
            shape = " x ".join(map(str, stage.shape)) or "-"
            rows.append((stage.name, stage.kind, shape, f"{stage.parameters:,}", "frozen" if stage.frozen else ""))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:>{widths[2]}}  {count:>{widths[3]}}  {note}".rstrip()
            for name, kind, shape, count, note in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines += ["", f"input        3 x {self.size} x {self.size}"]
        lines += [
            f"parameters   {self.parameters:,} (backbone {self.backbone_parameters:,}, heads {self.head_parameters:,})"
        ]
        lines += [f"trainable    {self.trainable:,}"]
        if self.unused_classifier:
            whole = self.parameters + self.unused_classifier
            lines.append(
                f"left out     {self.unused_classifier:,}: the backbone's ImageNet classifier, which no head uses;"
                f" a count that includes it, as the report's does, is {whole:,}"
            )
        return "\n".join(lines)


def summarize(
    model: MultiHeadClassifier, size: int, row: BackboneRow, attribute_names: Sequence[str] | None = None
) -> Summary:
    """Follow one image of `size` x `size` pixels through `model`, which may be on the meta device.

    `row` is the model's backbone. Raises UserError if the backbone can't take images of that size.
    """
    named = stages_of(model.backbone)
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        shapes[module] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

    hooks = [module.register_forward_hook(note) for _, module in named]
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        with torch.no_grad():
            features = model.features(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--size: {row.name} can't take images of {size} x {size}: {reason}") from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    stages = [_stage(name, module, shapes.get(module, ())) for name, module in named]
    backbone = _count(model.backbone.parameters())
    if rest := backbone - sum(stage.parameters for stage in stages):
        stages.append(
            Stage(
                "(others)",
                "tokens and the like",
                (),
                rest,
                not any(p.requires_grad for p in model.backbone_parameters()),
            )
        )
    stages.append(Stage("dropout", f"Dropout {model.dropout.p:g}", tuple(features.shape[1:]), 0, False))
    names = attribute_names or [str(head) for head in range(len(model.class_counts))]
    for name, head, count in zip(names, model.heads, model.class_counts, strict=True):
        stages.append(_stage(f"head {name}", head, (count,)))
    return Summary(
        row.name,
        size,
        tuple(stages),
        backbone_parameters=backbone,
        head_parameters=_count(model.head_parameters()),
        trainable=_count(p for p in model.parameters() if p.requires_grad),
        unused_classifier=classifier_parameters(row),
    )


def _stage(name: str, module: nn.Module, shape: tuple[int, ...]) -> Stage:
    parameters = list(module.parameters())
    frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
    return Stage(name, type(module).__name__, shape, _count(parameters), frozen)


def _count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


def backbone_size(model: ModelConfig) -> dict[str, Any]:
    """What a run's manifest keeps of a backbone: its `parameters` without a classifier, the number of `features` that
    the heads see, and its `stages` in order of the forward pass, {name, kind, parameters} each. Raises UserError for a
    network that timm does not have."""
    row = complete_row(backbones.row(model.backbone))
    backbone, features = meta_backbone(row)[0], feature_count(row, model)
    return {
        "parameters": _count(backbone.parameters()),
        "features": features,
        "stages": [
            {"name": name, "kind": type(module).__name__, "parameters": _count(module.parameters())}
            for name, module in stages_of(backbone)
        ],
    }
