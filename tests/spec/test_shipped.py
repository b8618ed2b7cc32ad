"""The shipped specs: all load, every trial of each is valid, and they say what the report did."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion.spec.space import Choice, Scalar
from fashion.spec.sweep_spec import load_spec

FOLDER = Path(__file__).parents[2] / "sweeps"
PATHS = sorted(FOLDER.glob("*.yaml"))
NAMES = [
    "augment",
    "backbones",
    "finetune",
    "finetune_cpu",
    "loss",
    "loss_cpu",
    "lr",
    "probe",
    "quickstart",
    "report",
    "schedule",
    "scratch_cpu",
    "tail_cpu",
]


def test_all_are_there() -> None:
    assert [path.stem for path in PATHS] == NAMES


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_loads_and_every_trial_is_valid(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name == path.stem
    configs = [spec.trial(number) for number in range(spec.total_trials)]
    assert len({config.model_dump_json() for config in configs}) == spec.total_trials
    for name, distribution in spec.space.items():
        if "[" not in name and isinstance(distribution, Choice):
            section, field = name.split(".")
            drawn = {getattr(getattr(config, section), field) for config in configs}
            assert drawn >= set(distribution.values), f"{name}: some value is never tried"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_its_comment_says_how_to_run_it_and_what_it_costs(path: Path) -> None:
    head = path.read_text().split("name:")[0]
    assert f"fashion-sweep run sweeps/{path.name}" in head
    assert "Cost:" in head
    assert "?" in head


def test_the_real_specs_read_one_folder_and_the_quickstart_the_demo() -> None:
    roots = {path.stem: load_spec(path).fixed["data.root"] for path in PATHS}
    assert roots.pop("quickstart") == "data/demo"
    assert set(roots.values()) == {"data/FashionDataset"}


def test_the_reports_recipe_is_the_reports() -> None:
    trial = load_spec(FOLDER / "report.yaml").trial(0)
    assert (trial.data.resize, trial.data.crop, trial.data.fit, trial.data.interpolation) == (
        320,
        300,
        "stretch",
        "bicubic",
    )
    assert (trial.data.crop_mode, trial.data.flip, trial.data.normalize) == ("center", 0.5, "imagenet")
    assert (trial.model.backbone, trial.model.weights, trial.model.dropout) == ("efficientnet_b3", "imagenet", 0.2)
    train = trial.train
    assert (train.optimizer, train.lr, train.momentum, train.weight_decay) == ("sgd", 0.1, 0.9, 1e-5)
    assert (train.schedule, train.epochs, train.batch_size, train.loss) == ("cosine", 50, 32, "report")


def test_the_backbones_are_the_reports() -> None:
    space = load_spec(FOLDER / "backbones.yaml").space

    def values(name: str) -> tuple[Scalar, ...]:
        distribution = space[name]
        assert isinstance(distribution, Choice)
        return distribution.values

    assert values("model.backbone") == ("resnet50", "efficientnet_b3", "efficientnet_v2_s")
    assert values("train.batch_size") == (16, 32, 64)
    assert values("train.epochs") == (10, 20, 30, 50)
    assert values("train.optimizer") == ("sgd", "adam")
