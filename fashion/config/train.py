"""The section `train`: the objective, and how it is optimised."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fashion.config.base import Frozen, Probability


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
    teacher: str | None = Field(
        None,
        description="knowledge distillation (Hinton et al. 2015): the folder of a run, or a Parquet file as `best "
        "--predict --split train` writes, whose class probabilities of the training images are soft labels; null: none",
    )
    teacher_weight: float = Field(
        0.5, gt=0.0, le=1.0, description="the soft labels' share of the objective; the labels have the rest"
    )
    teacher_temperature: float = Field(
        1.0,
        gt=0.0,
        le=100.0,
        description="softens the teacher's and the trial's probabilities in the loss between them; usual are 1 to 4",
    )
    balanced_sampling: Probability = Field(
        0.0,
        description="images are drawn with replacement, those of rare classes more often: by 1 / (images of the class) "
        "to this power (Kang et al. 2020); 0: each image once an epoch, 0.5: square-root, 1: class-balanced sampling",
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
        "each backbone, size and batch. Unless it is fp32, features and maps to train on are made in bf16 where the "
        "device computes it; what is evaluated always is fp32",
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
