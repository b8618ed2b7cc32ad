"""The section `data`: where the images are, how their labels are read, and what becomes of their pixels."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from fashion.config.base import OF_ITS_TIME, Frozen, Probability


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


PROGRESSIVE_STAGES = 4
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
    train_crop_from: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="progressive learning (Tan and Le 2021, EfficientNetV2): with crop_mode: resized the side of the "
        "training input grows from this to train_crop in four stages of equally many epochs; null: it does not",
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
    eval_crops: Literal[1, 5] = Field(
        1,
        description="5: evaluate the mean of the log-probabilities of five crops of each image, its centre and its "
        "corners, which needs a resize larger than crop (Krizhevsky et al. 2012, 4.1); with eval_flip of ten",
    )

    @property
    def training_side(self) -> int:
        """Side of the training input in pixels; of one that grows the last."""
        return self.train_crop or self.crop

    @property
    def least_training_side(self) -> int:
        """Side of the training input in the first epoch."""
        return self.train_crop_from or self.training_side

    def side_in(self, epoch: int, epochs: int) -> int:
        """Side of the training input in one epoch, from 1, of so many."""
        last = min(PROGRESSIVE_STAGES, epochs) - 1
        to_go = last - (epoch - 1) * (last + 1) // epochs
        smaller = (self.training_side - self.least_training_side) * to_go / (last or 1)
        return self.training_side - round(smaller)

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
        if self.train_crop_from is not None and self.crop_mode != "resized":
            raise ValueError(f"train_crop_from ({self.train_crop_from}) must be null unless crop_mode is resized")
        if self.train_crop_from is not None and self.train_crop_from >= self.training_side:
            raise ValueError(
                f"train_crop_from ({self.train_crop_from}) must be smaller than train_crop ({self.training_side})"
            )
        if self.eval_crops > 1 and self.crop == self.resize:
            raise ValueError(
                f"crop ({self.crop}) must be smaller than resize ({self.resize}) with eval_crops ({self.eval_crops}): "
                "else all crops are the same"
            )
        return self
