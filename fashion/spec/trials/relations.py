"""The rules between the fields of a trial, each with the fields that it reads.

A rule compares numbers and words only, as `possible.extremes` expects of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Literal

from pydantic import ValidationError

from fashion.model.backbones import row
from fashion.spec.fields import SAMPLED

Section = Literal["data", "model", "train"]
Values = Mapping[str, Any]  # "data.crop" -> its value in a trial


@dataclass(frozen=True)
class BrokenRule:
    """A rule that a trial breaks, in words, with the received values in brackets; and the section that says so."""

    section: str
    rule: str

    @property
    def kind(self) -> str:
        """The rule without the values."""
        return re.sub(r"\([^)]*\)|\d+", "", self.rule)


@dataclass(frozen=True)
class FieldRelation:
    """fields: what the rule reads. check: yields it in words if a trial of so many workers breaks it."""

    section: Section
    fields: tuple[str, ...]
    check: Callable[[Values, int], Iterator[str]]

    def broken(self, values: Values, workers: int) -> list[BrokenRule]:
        return [BrokenRule(self.section, rule) for rule in self.check(values, workers)]


def in_words(error: ValidationError) -> list[BrokenRule]:
    """The rules of `fashion.config` that a configuration breaks."""
    return [
        BrokenRule(str(each["loc"][0]), each["msg"].removeprefix("Value error, "))
        for each in error.errors()
        if each["loc"]
    ]


def _validated(section: Section, *names: str) -> FieldRelation:
    """A rule that the section's own model checks. The other fields have their defaults."""
    model = SAMPLED[section]
    required = {name: "." for name, field in model.model_fields.items() if field.is_required()}

    def check(values: Values, workers: int) -> Iterator[str]:
        try:
            model.model_validate({**required, **{name: values[f"{section}.{name}"] for name in names}})
        except ValidationError as error:
            yield from (each["msg"].removeprefix("Value error, ") for each in error.errors())

    return FieldRelation(section, tuple(f"{section}.{name}" for name in names), check)


# The fields that each validator of `fashion.config` compares.
SECTION_RULES = (
    _validated("data", "resize", "crop"),
    _validated("data", "resize", "crop", "train_crop", "train_crop_from", "crop_mode"),
    _validated("data", "resize", "crop", "eval_crops"),
    _validated("model", "feature_stages"),
    _validated("train", "epochs", "warmup_epochs"),
    _validated("train", "loss", "label_smoothing"),
    _validated("train", "mode", "freeze_backbone", "freeze_stages"),
)


# What a mode computes once for each image.
COMPUTED_ONCE: Mapping[str, str] = {"probe": "features", "tail": "maps"}


def _once(field: str, wanted: str, holds: Callable[[Values], bool]) -> FieldRelation:
    """What the modes that see each image once ask of a field of data."""

    def check(values: Values, workers: int) -> Iterator[str]:
        mode = values["train.mode"]
        if mode in COMPUTED_ONCE and not holds(values):
            why = f"for train.mode {mode}, whose {COMPUTED_ONCE[mode]} are computed once"
            yield f"{field} must {wanted} {why} ({values[f'data.{field}']})"

    others = ("data.crop",) if field == "train_crop" else ()
    return FieldRelation("data", ("train.mode", f"data.{field}", *others), check)


def _crop_cells(values: Values, workers: int) -> Iterator[str]:
    if values["data.crop_cells"] and values["train.mode"] != "tail":
        yield f"crop_cells ({values['data.crop_cells']}) must be 0 unless train.mode is tail: it crops cached maps"


def _init_heads(values: Values, workers: int) -> Iterator[str]:
    if values["train.init_heads"] == "probe" and values["model.weights"] == "none":
        yield "init_heads must be random with weights none: features of random weights are no beginning"


def _fit_on(values: Values, workers: int) -> Iterator[str]:
    if values["train.fit_on"] != "train" and values["data.folds"] is not None:
        yield f"fit_on must be train with data.folds ({values['data.folds']}), which train on both splits already"


def _solved(field: str, wanted: Any) -> FieldRelation:
    """What `train.optimizer: lbfgs` asks of a field: a convex problem, solved once."""

    def check(values: Values, workers: int) -> Iterator[str]:
        if values["train.optimizer"] == "lbfgs" and values[f"train.{field}"] != wanted:
            why = "for train.optimizer lbfgs, which solves the heads of a probe once"
            yield f"{field} must be {wanted} {why} ({values[f'train.{field}']})"

    return FieldRelation("train", ("train.optimizer", f"train.{field}"), check)


def _cutmix(values: Values, workers: int) -> Iterator[str]:
    if values["train.cutmix"] and values["train.mode"] == "probe":
        yield f"cutmix ({values['train.cutmix']}) must be 0 with mode probe: features have no area to cut boxes from"


def _adjusted(values: Values, workers: int) -> Iterator[str]:
    if values["train.logit_adjustment"] and values["train.loss"] == "report":
        yield f"logit_adjustment ({values['train.logit_adjustment']}) must be 0 with loss report"


def _imagenet(values: Values, workers: int) -> Iterator[str]:
    backbone = values["model.backbone"]
    if values["model.weights"] == "imagenet" and not row(backbone).has_imagenet:
        yield f"weights must be none for a backbone without ImageNet weights ({backbone})"


def _drop_path(values: Values, workers: int) -> Iterator[str]:
    backbone = values["model.backbone"]
    if values["model.drop_path"] > 0 and not row(backbone).drop_path:
        yield f"drop_path must be 0 for a backbone without stochastic depth ({backbone})"


def _one_image_each(values: Values, workers: int) -> Iterator[str]:
    size = values["train.batch_size"]
    if size < workers:
        yield f"batch_size ({size}) must be at least resources.workers ({workers}): each worker trains on its share"


def _two_images_each(values: Values, workers: int) -> Iterator[str]:
    size = values["train.batch_size"]
    if values["model.feature_norm"] == "batch" and workers <= size < 2 * workers:
        yield (
            f"batch_size ({size}) must be at least {2 * workers} with feature_norm batch{_each_of(workers)}: batch "
            "normalisation needs two images"
        )


def _two_images_for(values: Values, workers: int) -> Iterator[str]:
    """Batch normalisation of maps that have shrunk to one position is that of the pooled features."""
    size, backbone = values["train.batch_size"], row(values["model.backbone"])
    frozen = values["train.freeze_backbone"] or values["train.freeze_stages"] or values["train.mode"] == "probe"
    side = least_training_side(values)
    if workers <= size < 2 * workers and not frozen and backbone.native_size and side < backbone.least_side_alone:
        yield (
            f"batch_size ({size}) must be at least {2 * workers} for backbone {backbone.name} at {side} "
            f"px{_each_of(workers)}: its batch normalisation needs two images, or images of at least "
            f"{backbone.least_side_alone} px"
        )


def _size(field: str) -> FieldRelation:
    """The least size of images that a backbone of the table takes. (Others are built: `fashion.model.sizes`.)"""

    def check(values: Values, workers: int) -> Iterator[str]:
        backbone, side = row(values["model.backbone"]), values[f"data.{field}"]
        if side is not None and side < backbone.least_side:
            yield f"{field} ({side}) must be at least {backbone.least_side} for backbone {backbone.name}"

    return FieldRelation("data", ("model.backbone", f"data.{field}"), check)


def _stages(values: Values, workers: int) -> Iterator[str]:
    backbone, count = row(values["model.backbone"]), values["train.freeze_stages"]
    if backbone.parts and count:
        yield f"freeze_stages ({count}) must be 0 with several backbones ({backbone.name}), which form no chain"
    elif backbone.parts and values["train.mode"] == "tail":
        yield f"mode must be full or probe with several backbones ({backbone.name}), which can't be cut (tail)"
    elif backbone.native_size and count >= backbone.stages:
        yield (
            f"freeze_stages ({count}) must be less than the number of the backbone's stages, {backbone.stages} for "
            f"{backbone.name} (`fashion-sweep model {backbone.name}` lists them)"
        )


def _feature_stages(values: Values, workers: int) -> Iterator[str]:
    chosen, backbone = values["model.feature_stages"], row(values["model.backbone"])
    for part in backbone.singles:
        if part.native_size and chosen and chosen[-1] > part.stages:
            yield (
                f"feature_stages ({chosen[-1]}) must be at most the number of the backbone's stages, {part.stages} for "
                f"{part.name} (`fashion-sweep model {part.name}` lists them)"
            )


def _behind_the_cut(values: Values, workers: int) -> Iterator[str]:
    chosen, cut = values["model.feature_stages"], values["train.freeze_stages"]
    if values["train.mode"] == "tail" and chosen and chosen[0] <= cut:
        yield f"feature_stages ({chosen[0]}) must lie behind the cut of a tail, freeze_stages ({cut})"


def _one_normalisation(values: Values, workers: int) -> Iterator[str]:
    backbone = row(values["model.backbone"])
    if values["data.normalize"] == "weights" and len({(part.mean, part.std) for part in backbone.parts}) > 1:
        yield (
            f"normalize ({values['data.normalize']}) must be imagenet or half for these backbones ({backbone.name}), "
            "whose weights were trained with different channel statistics"
        )


def least_training_side(values: Values) -> int:
    """Side of the training input in pixels; of one that grows the first."""
    side: int = values["data.train_crop_from"] or values["data.train_crop"] or values["data.crop"]
    return side


def _each_of(workers: int) -> str:
    return f", two for each of {workers} workers" if workers > 1 else ""


# What a convex problem that is solved once leaves no room for.
SOLVED: Mapping[str, Any] = {
    "mode": "probe",
    "epochs": 1,
    "loss": "cross_entropy",
    "class_weighting": "none",
    "label_smoothing": 0,
    "mixup": 0,
    "logit_adjustment": 0,
    "balanced_sampling": 0,
    "teacher": None,
    "init_heads": "random",
    "ema": 0,
}
FROZEN = ("train.mode", "train.freeze_backbone", "train.freeze_stages")
FIELD_RULES = (
    _once("crop_mode", "be center", lambda values: values["data.crop_mode"] == "center"),
    _once(
        "train_crop",
        "be null or equal crop",
        lambda values: values["data.train_crop"] in (None, values["data.crop"]),
    ),
    _once("train_crop_from", "be null", lambda values: values["data.train_crop_from"] is None),
    _once("jitter", "be 0", lambda values: not values["data.jitter"]),
    _once("erase", "be 0", lambda values: not values["data.erase"]),
    _once("eval_crops", "be 1", lambda values: values["data.eval_crops"] == 1),
    _once("auto_augment", "be none", lambda values: values["data.auto_augment"] == "none"),
    FieldRelation("data", ("train.mode", "data.crop_cells"), _crop_cells),
    FieldRelation("train", ("train.init_heads", "model.weights"), _init_heads),
    FieldRelation("train", ("train.fit_on", "data.folds"), _fit_on),
    *starmap(_solved, SOLVED.items()),
    FieldRelation("train", ("train.cutmix", "train.mode"), _cutmix),
    FieldRelation("train", ("train.logit_adjustment", "train.loss"), _adjusted),
    FieldRelation("model", ("model.backbone", "model.weights"), _imagenet),
    FieldRelation("model", ("model.backbone", "model.drop_path"), _drop_path),
    FieldRelation("train", ("train.batch_size",), _one_image_each),
    FieldRelation("train", ("train.batch_size", "model.feature_norm"), _two_images_each),
    _size("crop"),
    _size("train_crop"),
    _size("train_crop_from"),
    FieldRelation(
        "train",
        ("train.batch_size", "model.backbone", "data.crop", "data.train_crop", "data.train_crop_from", *FROZEN),
        _two_images_for,
    ),
    FieldRelation("train", ("train.freeze_stages", "train.mode", "model.backbone"), _stages),
    FieldRelation("model", ("model.feature_stages", "model.backbone"), _feature_stages),
    FieldRelation("model", ("model.feature_stages", "train.mode", "train.freeze_stages"), _behind_the_cut),
    FieldRelation("data", ("data.normalize", "model.backbone"), _one_normalisation),
)
