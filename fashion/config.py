"""A trial's configuration: frozen, validated, complete. In a sweep spec every field of `data`, `model` and `train`,
except the data root, may be a distribution; `fashion.spec` samples them into a `TrialConfig`.

Recorded configurations outlive the version that wrote them: they are read by `read_config`, and compared as objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# What a record that lacks a field means, by "section.field" (`train.lr`, `data.fit`), where that is not the field's
# default. A record lacks a field if it was written before the field existed. So a new field whose default changes what
# a trial does gets an entry here, with the value that gives the behaviour of the versions before it; a new field whose
# default is that behaviour needs none.
OF_ITS_TIME: dict[str, Any] = {
    "data.orientation": "ignore",
    "data.depth": "maximum",
    "train.decay_biases": "optimizer",
}

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Form(NamedTuple):
    """How an image becomes a square of bytes, and so what a packed cache holds: data.resize (pixels), data.fit,
    data.interpolation, data.orientation and data.depth."""

    resize: int
    fit: str = "stretch"
    interpolation: str = "bicubic"
    orientation: str = "apply"
    depth: str = "declared"

    def __str__(self) -> str:
        """As the name of a cache file has it. A value that a record lacks goes without saying, so that the caches of
        versions without that setting keep their names."""
        told = [
            value for name, value in zip(self._fields, self, strict=True) if value != OF_ITS_TIME.get(f"data.{name}")
        ]
        return "-".join(map(str, told))


class SplitRule(Frozen):
    """How a data set without splits is divided: `val` and `test` are shares of its images, the rest is for training.

    seed: another one gives another division. group: a column of the label file whose equal values stay on one side.
    """

    model_config = ConfigDict(strict=True)

    val: float = Field(0.15, gt=0.0, lt=1.0)
    test: float = Field(0.15, ge=0.0, lt=1.0)
    seed: int = Field(0, ge=0, lt=2**31)
    group: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val ({self.val}) and test ({self.test}) must leave images for training")
        return self

    def __str__(self) -> str:
        group = f", group: {self.group}" if self.group is not None else ""
        return f"{{val: {self.val:g}, test: {self.test:g}, seed: {self.seed}{group}}}"


class LabelReading(NamedTuple):
    """How labels are read: data.attributes, data.missing, data.split and data.folds."""

    attributes: tuple[str, ...] | None = None
    missing: int | None = None
    split: SplitRule | None = None
    folds: int | None = None


AS_WRITTEN = LabelReading()  # what the defaults of these fields say


class DataConfig(Frozen):
    """Preprocessing and augmentation; the defaults are the report's ("Preprocessing of data")."""

    root: str = Field(
        description="the data set: a label file, a folder in one of the forms of data.md, or s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX"
    )
    attributes: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="the columns of a label file that are learnt; null: every column that has no other meaning"
    )
    missing: Literal[-1] | None = Field(
        None, description="-1: a label of -1 is missing, like an empty one; null: -1 is a class like any other"
    )
    split: Annotated[SplitRule, Field(strict=False)] | None = Field(
        None,
        description="how data without splits are divided, stratified over all attributes: {val: 0.15, test: "
        "0.15, seed: 0, group: COLUMN}; null: so, without groups, where a label file has no splits",
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=20,
        description="K: a trial trains K models, each without one of K folds of train and val together, and is "
        "measured by what each predicts for the fold that it has not seen; null: one model, measured on val",
    )
    resize: int = Field(
        320, ge=8, le=2048, description="side in pixels that every image is resized to, once, into the cache"
    )
    fit: Literal["stretch", "pad"] = Field(
        "stretch", description="stretch ignores the aspect ratio (the report); pad keeps it and pads to a square"
    )
    interpolation: Literal["bicubic", "bilinear"] = Field("bicubic", description="filter of that resize")
    orientation: Literal["apply", "ignore"] = Field(
        "apply", description="apply turns an image as its EXIF orientation says, which is how people see it"
    )
    depth: Literal["declared", "maximum"] = Field(
        "declared",
        description="how greys of more than 8 bits and floats become bytes: by the range that the file declares or, "
        "where it declares none, the smallest usual one that holds the image; maximum: as versions before 0.2 did",
    )
    on_error: Literal["refuse", "skip"] = Field(
        "refuse", description="an image that can't be decoded: refuse the data set, or skip the image and count it"
    )
    follow_links: bool = Field(
        False, description="read images through symbolic links that lead out of the data set's folder"
    )
    crop: int = Field(
        300,
        ge=8,
        le=2048,
        description="side of the centre crop that is evaluated (and trained on, unless train_crop says otherwise)",
    )
    train_crop: int | None = Field(
        None, ge=8, le=2048, description="side of the training input; null: the same as crop"
    )
    crop_mode: Literal["center", "random", "resized"] = Field(
        "center", description="how the training crop is taken; resized: a random area of at least crop_scale"
    )
    crop_scale: float = Field(
        0.35, gt=0.0, le=1.0, description="smallest share of the area that crop_mode: resized takes"
    )
    flip: Probability = Field(0.5, description="probability of a horizontal flip in training")
    jitter: float = Field(0.0, ge=0.0, le=1.0, description="strength of random brightness and contrast in training")
    auto_augment: Literal["none", "trivial"] = Field(
        "none",
        description="trivial: one of 14 operations on each training image, at a random strength (TrivialAugment, "
        "Müller and Hutter 2021)",
    )
    erase: Probability = Field(0.0, description="probability of random erasing in training (Zhong et al. 2020)")
    crop_cells: int = Field(
        0,
        ge=0,
        le=64,
        description="train.mode: tail takes random crops of the maps in training, which are up to this many cells "
        "smaller each way; 0: none",
    )
    normalize: Literal["weights", "imagenet", "half"] = Field(
        "weights", description="channel means and deviations: the backbone weights' own, ImageNet's, or 0.5"
    )
    eval_flip: bool = Field(False, description="evaluate the mean of an image's and its mirror's log-probabilities")

    @property
    def form(self) -> Form:
        """What the packed cache of these settings holds."""
        return Form(self.resize, self.fit, self.interpolation, self.orientation, self.depth)

    @property
    def label_reading(self) -> LabelReading:
        """How the labels of the data set are read."""
        return LabelReading(self.attributes, self.missing, self.split, self.folds)

    @model_validator(mode="after")
    def _crops_fit(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop ({self.crop}) must not be larger than resize ({self.resize})")
        if self.train_crop is not None and self.train_crop > self.resize and self.crop_mode != "resized":
            raise ValueError(
                f"train_crop ({self.train_crop}) must not be larger than resize ({self.resize}) "
                "unless crop_mode is resized"
            )
        return self


JOINT = "+"  # between the names of backbones that are one model's


def _as_one(names: Any) -> Any:
    """Several backbones, written as a list, as one name."""
    listed = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return JOINT.join(names) if listed else names


class ModelConfig(Frozen):
    backbone: Annotated[str, BeforeValidator(_as_one, json_schema_input_type=str | list[str])] = Field(
        description="a name that `fashion-sweep model --list` shows, or timm:NAME; of several, [NAME, NAME], the "
        "features stand side by side"
    )
    weights: str = Field("imagenet", description="none, imagenet, or the path of a local .safetensors/.pth file")
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="dropout before each head")
    drop_path: float = Field(0.0, ge=0.0, lt=1.0, description="stochastic depth rate, for backbones that have it")
    feature_norm: Literal["none", "batch"] = Field(
        "none",
        description="batch: normalise the pooled features before the heads, without scale and shift, as linear "
        "probes do "
        "(He et al. 2022, A.1)",
    )
    feature_stages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = Field(
        (),
        description="the heads also see the maps behind these stages of the backbone, pooled (`fashion-sweep model` "
        "lists the stages; the first is 1)",
    )
    feature_stats: Literal["mean", "mean_std"] = Field(
        "mean", description="how maps of feature_stages are pooled: the mean of each channel, or its deviation, too"
    )
    feature_root: bool = Field(
        False,
        description="the heads see the features' signed square roots (Perronnin et al. 2010, 3.2), which suit linear "
        "probes of ReLU features",
    )

    @model_validator(mode="after")
    def _stages_ascend(self) -> Self:
        if any(one >= other for one, other in pairwise(self.feature_stages)):
            raise ValueError(f"feature_stages ({list(self.feature_stages)}) must ascend")
        return self


class TrainConfig(Frozen):
    """Optimisation; the defaults are the report's final recipe, with a proper cross entropy."""

    mode: Literal["full", "probe", "tail"] = Field(
        "full",
        description="probe: the backbone is frozen and sees each image once; its features are cached, and trials train "
        "the heads alone, in seconds; tail: the same for the first freeze_stages stages, whose output is cached as "
        "maps, and trials train the rest on them",
    )
    fit_on: Literal["train", "train+val"] = Field(
        "train",
        description="train+val: the validation images are trained on, too, so that no score of them counts and a "
        "trial's last epoch is its best; for one trial, as `run --refit` trains it",
    )
    epochs: int = Field(
        50, ge=1, le=10_000, description="passes over the training images; the schedule spans all of them"
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="global: split over the workers of a trial")
    optimizer: Literal["sgd", "adam", "adamw", "lbfgs"] = Field(
        "sgd",
        description="adamw leaves biases and normalisation scales undecayed; lbfgs, with mode: probe and epochs: 1, "
        "solves the heads, each with an L2 strength that folds of the training images choose; lr, weight_decay and "
        "dropout then have no say",
    )
    decay_biases: Literal["auto", "optimizer", "always", "never"] = Field(
        "auto",
        description="whether biases and normalisation scales are decayed; optimizer: sgd and adam do, as the report "
        "did, adamw does not; auto: the same, but never those of a probe's heads",
    )
    init_biases: Literal["random", "prior"] = Field(
        "random",
        description="prior: the heads' biases start as the logarithms of how often the classes occur in training (Lin "
        "et al. 2017)",
    )
    lr: float = Field(0.1, gt=0.0, le=100.0, description="peak learning rate of the heads")
    backbone_lr_scale: float = Field(1.0, gt=0.0, le=10.0, description="the backbone's learning rate is lr times this")
    layer_decay: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="each stage of the backbone learns at this many times the rate of the next one (Clark et al. 2020, "
        "ELECTRA); 1: all alike",
    )
    freeze_backbone: bool = Field(False, description="train the heads alone")
    freeze_stages: int = Field(
        0,
        ge=0,
        description="number of the backbone's first stages that are frozen (`fashion-sweep model` lists the stages); "
        "with mode: tail, where the backbone is cut",
    )
    init_heads: Literal["random", "probe"] = Field(
        "random",
        description="probe: the heads begin as the linear probe of the backbone's features, a convex problem that is "
        "solved first (LP-FT, Kumar et al. 2022)",
    )
    freeze_bn_stats: bool = Field(
        False,
        description="the backbone's batch normalisation keeps the statistics that came with its weights; its scale and "
        "shift are trained like other weights",
    )
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="sgd's momentum; adam's beta1")
    weight_decay: float = Field(
        1e-5, ge=0.0, le=10.0, description="decoupled for adamw (Loshchilov & Hutter 2019), else an L2 penalty"
    )
    schedule: Literal["cosine", "constant", "onecycle"] = Field(
        "cosine", description="learning-rate schedule over all epochs, updated at every step"
    )
    warmup_epochs: float = Field(
        0.0, ge=0.0, description="linear warm-up (cosine and constant); must be shorter than epochs"
    )
    loss: Literal["cross_entropy", "focal", "report"] = Field(
        "cross_entropy", description="training objective; report is the padded double softmax"
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of the target spread over all classes (Szegedy et al. 2016)"
    )
    mixup: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="pairs of training images are mixed by a share from Beta(mixup, mixup), and their losses alike "
        "(Zhang et al. 2018); with mode: tail their maps; 0: none",
    )
    cutmix: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="a box of each training image is that of another, of an area from Beta(cutmix, cutmix), and the "
        "losses are mixed alike (Yun et al. 2019); with mixup, too, each batch takes one of the two at random; 0: none",
    )
    logit_adjustment: float = Field(
        0.0,
        ge=0.0,
        le=4.0,
        description="training adds this many times the logarithm of a class's share to its logit, so that rare classes "
        "are predicted more often (Menon et al. 2021); 1 aims at balanced accuracy; 0: none",
    )
    focal_gamma: float = Field(2.0, ge=0.0, le=10.0, description="focusing exponent of loss: focal (Lin et al. 2017)")
    class_weighting: Literal["none", "inverse", "sqrt_inverse"] = Field(
        "none", description="weight a class by (the root of) its inverse frequency"
    )
    ema: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="decay of an exponential moving average of the weights, which is then what is evaluated; 0: none",
    )
    clip_grad: float = Field(0.0, ge=0.0, description="largest gradient norm; 0: no clipping")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="bf16: autocast; fp32: TF32 where a GPU has it; auto: the faster, measured once per machine for "
        "each backbone, size and batch",
    )
    layout: Literal["auto", "nchw", "channels_last"] = Field(
        "auto", description="memory layout of images and convolutions; auto: the faster, measured like precision"
    )
    compile: Literal["none", "auto", "default", "reduce-overhead"] = Field(
        "none",
        description="torch.compile of the training step, in torch's modes; reduce-overhead uses CUDA graphs. The first "
        "steps then take a minute or two; auto: where that was measured to pay within the trial",
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be less than epochs ({self.epochs})")
        if self.loss == "report" and self.label_smoothing:
            raise ValueError("label_smoothing does not apply to loss: report")
        return self

    @model_validator(mode="after")
    def _tail_has_a_cut(self) -> Self:
        if self.mode == "tail" and self.freeze_backbone:
            raise ValueError("freeze_backbone must be false with mode tail: mode probe trains the heads alone")
        if self.mode == "tail" and not self.freeze_stages:
            raise ValueError(f"freeze_stages ({self.freeze_stages}) must be at least 1 with mode tail: it is the cut")
        return self


class TrialConfig(Frozen):
    """One sample of the search space. A trial is a pure function of it, the data and the code."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    seed: int = Field(0, ge=0, lt=2**31, description="seeds weights, order and augmentation")

    def anywhere(self) -> TrialConfig:
        """The same without where the data set lies, in which two trials that are the same may differ."""
        return self.model_copy(update={"data": self.data.model_copy(update={"root": ""})})


def of_its_time(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration or spec with the values of OF_ITS_TIME for the fields that it lacks. `recorded` maps
    sections to mappings of fields; a section that is missing, or is no mapping, is left as it is."""
    complete = dict(recorded)
    for name, value in OF_ITS_TIME.items():
        section, field = name.split(".")
        if isinstance(complete.get(section), Mapping):
            complete[section] = {field: value, **complete[section]}
    return complete


def read_config(recorded: Any) -> TrialConfig:
    """A configuration that this or an earlier version recorded, as a mapping or as JSON text.

    Raises pydantic's ValidationError (a ValueError) for one that is not valid in this version, ValueError for no JSON.
    """
    form = json.loads(recorded) if isinstance(recorded, str) else recorded
    return TrialConfig.model_validate(of_its_time(form) if isinstance(form, Mapping) else form)


def same_anywhere(one: Any, other: Any) -> bool:
    """Whether two recorded configurations are the same trial's, wherever its data set lies. One that is not valid in
    this version is the same as none."""
    try:
        return read_config(_rooted(one)).anywhere() == read_config(_rooted(other)).anywhere()
    except ValueError:
        return False


def _rooted(recorded: Any) -> Any:
    """With some data.root, which a configuration that is compared may lack."""
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("data"), Mapping):
        return recorded
    return {**recorded, "data": {"root": "", **recorded["data"]}}


def value_lacking(section: Literal["data", "model", "train"], field: str) -> Any:
    """What a record means that lacks this field: the value of its time, else the default. Raises KeyError for a field
    that has neither."""
    sections: dict[str, type[BaseModel]] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
    found = sections[section].model_fields[field]
    if f"{section}.{field}" in OF_ITS_TIME:
        return OF_ITS_TIME[f"{section}.{field}"]
    if found.is_required():
        raise KeyError(f"{section}.{field}")
    return found.default
