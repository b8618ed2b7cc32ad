"""Rules between fields hold for every trial, whatever their number, or the spec is refused before anything starts."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from fashion.config.data import DataConfig
from fashion.config.model import ModelConfig
from fashion.config.train import TrainConfig
from fashion.errors import SpecError
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.spec.trials.possible import MOST_DRAWN
from fashion.spec.trials.relations import FIELD_RULES, SECTION_RULES

Load = Callable[..., SweepSpec]
FAR_CORNER = """\
data: {{root: data, resize: {{grid: [32, 16]}}, crop: 24}}
model:
  backbone: tiny
  weights: none
  dropout: {{grid: [{}]}}
train: {{lr: {{grid: [{}]}}}}
search: {{method: grid}}
""".format(
    ", ".join(str(n / 100) for n in range(30)),
    ", ".join(str(n / 100) for n in range(1, 41)),
)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *overrides: str) -> SweepSpec:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return load_spec(path, overrides)

    return load


def small(data: str = "", model: str = "", train: str = "", more: str = "") -> str:
    return (
        f"data: {{root: data, resize: 64, crop: 64{data}}}\n"
        f"model: {{backbone: tiny, weights: none{model}}}\ntrain: {{epochs: 2{train}}}\n{more}\n"
    )


def refused(load: Load, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as error:
        load(text, *overrides)
    (problem,) = error.value.problems
    return str(problem)


def test_the_far_corner_of_a_grid_is_found(load: Load) -> None:
    text = refused(load, FAR_CORNER)
    assert "spec.yaml:1 data.crop: crop (24) must not be larger than resize (16)" in text
    assert "This concerns trial 1200 and perhaps others: when or switch can keep such values apart" in text


def test_a_grid_that_ends_before_its_bad_half_is_taken(load: Load) -> None:
    assert load(FAR_CORNER, "search.trials=1200").total_trials == 1200
    assert "trial 1200" in refused(load, FAR_CORNER, "search.trials=1201")


def test_a_corner_that_random_trials_reach_late_is_found(load: Load) -> None:
    steps = ", ".join([*(str(n) for n in range(64, 64 + 1500)), "16"])
    text = small().replace("resize: 64, crop: 64", f"resize: {{grid: [{steps}]}}, crop: 24")
    assert load(text, "search.trials=1500").total_trials == 1500
    assert "trial 1500" in refused(load, text, "search.trials=1501")


def test_a_corner_that_hardly_any_trial_reaches_is_refused_by_the_space(load: Load) -> None:
    text = small(
        train=", warmup_epochs: {{choice: [{}, 2.5]}}".format(", ".join(str(n / 10_000) for n in range(6000))),
        data=", jitter: {uniform: [0, 1]}",
    )
    found = refused(load, text, "search.method=optuna")
    assert "warmup_epochs (2.5) must be less than epochs (2)" in found
    assert "The space allows train.epochs 2 and train.warmup_epochs 2.5 together" in found


def test_the_cost_does_not_grow_with_the_number_of_trials(load: Load) -> None:
    text = small(data=", jitter: {uniform: [0, 1]}", train=", lr: {loguniform: [0.001, 0.1]}")

    def calls(trials: int) -> int:
        profile = cProfile.Profile()
        profile.runcall(load, text, f"search.trials={trials}")
        return sum(entry.callcount for entry in profile.getstats())

    calls(10)  # what the first load alone does
    assert calls(1_000_000) < 1.05 * calls(MOST_DRAWN)


def test_adaptive_trials_are_known_by_their_space(load: Load) -> None:
    apart = ", optimizer: {choice: [sgd, adam]}"
    switch = apart + ", batch_size: {switch: train.optimizer, cases: {sgd: 4, adam: {int: [2, 8]}}}"
    workers = "search: {method: optuna}\nresources: {workers: 2}"
    load(small(train=switch, more=workers))
    found = refused(load, small(train=switch.replace("[2, 8]", "[1, 5000]"), more=workers))
    assert "batch_size (1) must be at least resources.workers (2)" in found
    never = small(train=switch.replace("int: [2, 8]", "choice: [2, 1]"), more=workers)
    assert "batch_size (1)" in refused(load, never)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (small(train=", batch_size: 1", model=", feature_norm: batch"), "batch_size (1) must be at least 2 with feat"),
        (
            small(train=", batch_size: 3", model=", feature_norm: batch", more="resources: {workers: 2}"),
            "batch_size (3) must be at least 4 with feature_norm batch, two for each of 2 workers",
        ),
        (small(train=", batch_size: 3", more="resources: {workers: 4}"), "batch_size (3) must be at least resources.w"),
        (
            small(train=", batch_size: 1").replace("crop: 64", "crop: 16"),
            "batch_size (1) must be at least 2 for backbone tiny at 16 px: its batch normalisation needs two images",
        ),
        (
            small().replace("tiny", "convnext_tiny").replace("crop: 64", "crop: 16"),
            "crop (16) must be at least 32 for backbone convnext_tiny",
        ),
        (
            small(data=", train_crop: 24").replace("tiny", "convnext_tiny"),
            "train_crop (24) must be at least 32 for backbone convnext_tiny",
        ),
        (small(train=", freeze_stages: 4"), "freeze_stages (4) must be less than the number of the backbone's stages"),
        (
            small(train=", freeze_stages: 1", data=", normalize: half").replace("tiny", "[tiny, resnet18]"),
            "freeze_stages (1) must be 0 with several backbones (tiny+resnet18)",
        ),
        (
            small(data=", normalize: weights").replace("tiny", "[tiny, resnet18]"),
            "normalize (weights) must be imagenet or half for these backbones (tiny+resnet18)",
        ),
        (small(model=", feature_stages: [2, 5]"), "feature_stages (5) must be at most the number of the backbone's st"),
        (small(model=", feature_stages: [3, 2]"), "feature_stages ([3, 2]) must ascend"),
        (
            small(model=", feature_stages: [2, 3]", train=", mode: tail, freeze_stages: 2"),
            "feature_stages (2) must lie behind the cut of a tail, freeze_stages (2)",
        ),
        (
            small(data=", train_crop_from: 48, crop_mode: random"),
            "train_crop_from (48) must be null unless crop_mode is resized",
        ),
        (
            small(data=", train_crop_from: 64, crop_mode: resized"),
            "train_crop_from (64) must be smaller than train_crop (64)",
        ),
        (
            small(data=", train_crop_from: 24, crop_mode: resized").replace("tiny", "convnext_tiny"),
            "train_crop_from (24) must be at least 32 for backbone convnext_tiny",
        ),
        (small(data=", eval_crops: 5"), "crop (64) must be smaller than resize (64) with eval_crops (5)"),
        (
            small(data=", eval_crops: 5", train=", mode: probe").replace("crop: 64", "crop: 56"),
            "eval_crops must be 1 for train.mode probe",
        ),
        (small(train=", mode: probe, cutmix: 1.0"), "cutmix (1.0) must be 0 with mode probe"),
        (small(train=", loss: report, logit_adjustment: 1.0"), "logit_adjustment (1.0) must be 0 with loss report"),
        (small().replace("tiny", "[tiny, tiny]"), "must name each backbone once"),
        (small().replace("tiny", "[tiny, resnet]"), "must be known backbones ('resnet' is none)"),
        (small(model=", feature_stages: {choice: [[1], [2]]}"), "can't be sampled"),
    ],
)
def test_what_every_trial_would_fail_with_is_refused(load: Load, text: str, rule: str) -> None:
    assert rule in refused(load, text)


@pytest.mark.parametrize(
    "text",
    [
        small(train=", batch_size: 1"),  # maps of 4 x 4 are left
        small(train=", batch_size: 1, freeze_backbone: true").replace("crop: 64", "crop: 16"),
        small(train=", batch_size: 1, mode: probe").replace("crop: 64", "crop: 16"),
        small(train=", batch_size: 2", model=", feature_norm: batch"),
        small(train=", batch_size: 2", more="resources: {workers: 2}"),
        small(train=", batch_size: 1").replace("tiny", "convnext_tiny").replace("crop: 64", "crop: 32"),
        small(train=", freeze_stages: 3"),
        small(data=", normalize: half").replace("tiny", "[tiny, resnet18]"),
        small(data=", normalize: half").replace("tiny", "{choice: [[tiny, resnet18], tiny]}"),
        small(model=", feature_stages: [3]", train=", mode: tail, freeze_stages: 2"),
    ],
)
def test_what_trains_is_taken(load: Load, text: str) -> None:
    load(text)


def test_rules_read_fields_that_there_are() -> None:
    models: dict[str, type[BaseModel]] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
    for rule in (*SECTION_RULES, *FIELD_RULES):
        for name in rule.fields:
            section, field = name.split(".")
            assert field in models[section].model_fields
