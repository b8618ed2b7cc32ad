"""A spec's trials: reproducible, independent between dimensions, crossed, conditional, and recorded exactly."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fashion.errors import SpecError
from fashion.spec.space import Distribution, Scalar
from fashion.spec.sweep_spec import SweepSpec, load_spec

BASE = """\
name: base
data: {root: data/here, resize: 64, crop: 56}
model: {backbone: tiny, weights: none}
train:
"""
# Of a spec's text and `--set`s.
Load = Callable[..., SweepSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *overrides: str) -> SweepSpec:
        (tmp_path / "base.yaml").write_text(text)
        return load_spec(tmp_path / "base.yaml", overrides)

    return load


def test_the_least_spec_gets_every_default(load: Load) -> None:
    spec = load("data: {root: d}\nmodel: {backbone: resnet18}\n")
    assert spec.name == "base"  # the file's
    assert spec.total_trials == 10
    assert spec.storage == "runs"
    assert not spec.space
    assert spec.scheduler.grace == 0.1
    assert spec.scheduler.mode == "min"
    assert spec.resources.gpus_per_worker == "auto"
    trial = spec.trial(0)
    assert (trial.data.resize, trial.data.crop, trial.train.lr, trial.train.epochs) == (320, 300, 0.1, 50)
    assert spec.fixed["train.lr"] == 0.1


def test_trials_are_a_function_of_spec_and_number(load: Load) -> None:
    text = BASE + "  lr: {loguniform: [0.001, 0.1]}\n  batch_size: {int: [8, 64], step: 8}\n"
    spec = load(text)
    forwards = [spec.trial(number) for number in range(10)]
    assert [spec.trial(number) for number in reversed(range(10))] == forwards[::-1]
    assert [load(text).trial(number) for number in range(10)] == forwards
    assert len({trial.train.lr for trial in forwards}) == 10
    assert len({trial.seed for trial in forwards}) == 10
    assert load(text, "search.seed=1").trial(0) != forwards[0]


def test_the_same_trials_in_another_process(load: Load, tmp_path: Path) -> None:
    spec = load(BASE + "  lr: {loguniform: [0.001, 0.1]}\n")
    code = (
        "from fashion.spec.sweep_spec import load_spec; "
        f"print(load_spec({str(tmp_path / 'base.yaml')!r}).trial(3).model_dump_json())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == spec.trial(3).model_dump(mode="json")


def test_another_dimension_leaves_the_others_as_they_were(load: Load) -> None:
    before = load(BASE + "  lr: {loguniform: [0.001, 0.1]}\n")
    after = load(
        BASE + "  lr: {loguniform: [0.001, 0.1]}\n  momentum: {uniform: [0.5, 0.9]}\n  ema: {grid: [0.0, 0.9]}\n"
    )
    assert [before.trial(n).train.lr for n in range(20)] == [after.trial(n).train.lr for n in range(20)]
    assert [before.trial(n).seed for n in range(20)] == [after.trial(n).seed for n in range(20)]


def test_more_trials_begin_with_the_same_trials(load: Load) -> None:
    text = BASE + "  lr: {loguniform: [0.001, 0.1]}\n  epochs: {grid: [3, 5, 7]}\nsearch: {trials: 4}\n"
    few, many = load(text), load(text, "search.trials=9")
    assert [few.trial(n) for n in range(4)] == [many.trial(n) for n in range(4)]
    assert few.differences(many) == ["search.trials: 4 -> 9"]


def test_random_crosses_its_grids(load: Load) -> None:
    spec = load(
        BASE + "  epochs: {grid: [3, 5]}\n  optimizer: {grid: [sgd, adam, adamw]}\n  lr: {uniform: [0.1, 0.2]}\n"
    )
    pairs = [(spec.trial(n).train.epochs, spec.trial(n).train.optimizer) for n in range(12)]
    assert pairs[:6] == [(e, o) for e in (3, 5) for o in ("sgd", "adam", "adamw")]
    assert pairs[6:] == pairs[:6]
    assert len({spec.trial(n).train.lr for n in range(12)}) == 12


def test_grid_enumerates_the_product_and_trials_caps_it(load: Load) -> None:
    text = BASE + "  epochs: {grid: [3, 5]}\n  optimizer: {choice: [sgd, adam, adamw]}\nsearch: {method: grid}\n"
    spec = load(text)
    assert spec.total_trials == 6
    assert len({(spec.trial(n).train.epochs, spec.trial(n).train.optimizer) for n in range(6)}) == 6
    assert load(text, "search.trials=4").total_trials == 4
    assert load(text, "search.trials=40").total_trials == 6


def test_a_grid_with_conditions_has_no_trial_twice(load: Load) -> None:
    spec = load(
        BASE
        + "  loss: {grid: [cross_entropy, focal, report]}\n"
        + "  label_smoothing: {when: {train.loss: cross_entropy}, grid: [0.0, 0.1]}\n"
        + "  focal_gamma: {when: {train.loss: focal}, grid: [1.0, 2.0, 3.0]}\n"
        + "search: {method: grid}\n"
    )
    trials = [
        (t.loss, t.label_smoothing, t.focal_gamma) for t in (spec.trial(n).train for n in range(spec.total_trials))
    ]
    assert trials == [
        ("cross_entropy", 0.0, 2.0), ("cross_entropy", 0.1, 2.0),
        ("focal", 0.0, 1.0), ("focal", 0.0, 2.0), ("focal", 0.0, 3.0), ("report", 0.0, 2.0),
    ]  # fmt: skip


def test_when_falls_back_to_the_default_or_to_else(load: Load) -> None:
    spec = load(
        BASE
        + "  optimizer: {choice: [sgd, adam]}\n"
        + "  momentum: {when: {train.optimizer: sgd}, uniform: [0.95, 0.99]}\n"
        + "  clip_grad: {when: {train.optimizer: [sgd]}, value: 2, else: {choice: [3, 4]}}\n"
    )
    for train in (spec.trial(number).train for number in range(30)):
        assert 0.95 <= train.momentum <= 0.99 if train.optimizer == "sgd" else train.momentum == 0.9
        assert train.clip_grad == 2 if train.optimizer == "sgd" else train.clip_grad in (3, 4)
    assert set(spec.space) == {"train.optimizer", "train.momentum", "train.clip_grad[else]"}


def test_switch_takes_numbers_booleans_and_null_as_cases(load: Load) -> None:
    spec = load(
        BASE.replace("crop: 56}", "crop: 56, train_crop: {choice: [null, 32]}}")
        + "  batch_size: {choice: [16, 32]}\n"
        + "  lr: {switch: train.batch_size, cases: {16: 0.1, 32: {uniform: [0.2, 0.3]}}}\n"
        + "  freeze_backbone: {choice: [true, false]}\n"
        + "  ema: {switch: train.freeze_backbone, cases: {true: 0.5}, else: 0.25}\n"
        + "  epochs: {switch: data.train_crop, cases: {null: 3, 32: 4}}\n"
    )
    for trial in (spec.trial(number) for number in range(30)):
        assert trial.train.lr == 0.1 if trial.train.batch_size == 16 else 0.2 <= trial.train.lr <= 0.3
        assert trial.train.ema == (0.5 if trial.train.freeze_backbone else 0.25)
        assert trial.train.epochs == (3 if trial.data.train_crop is None else 4)
    assert SweepSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_set_overrides_values_distributions_and_absent_sections(load: Load) -> None:
    text = BASE + "  lr: {loguniform: [0.001, 0.1]}\n"
    spec = load(text, "train.lr=1e-2", "resources.workers=2", "name=other", "train.ema={choice: [0.9, 0.99]}")
    assert spec.trial(0).train.lr == 0.01
    assert spec.resources.workers == 2
    assert spec.name == "other"
    assert list(spec.space) == ["train.ema"]
    assert load("data: {root: d}\n", "model.backbone=tiny", "model.weights=none").trial(0).model.backbone == "tiny"


def test_set_may_leave_cases_idle_and_the_record_still_reads(load: Load) -> None:
    text = BASE + "  optimizer: {choice: [sgd, adam]}\n  lr: {switch: train.optimizer, cases: {sgd: 0.1, adam: 0.01}}\n"
    spec = load(text, "train.optimizer=adam")
    assert spec.trial(0).train.lr == 0.01
    assert SweepSpec.from_json(spec.to_json()) == spec


def test_optuna_is_asked_for_what_applies(load: Load) -> None:
    spec = load(
        BASE
        + "  optimizer: {choice: [sgd, adam]}\n"
        + "  lr: {switch: train.optimizer, cases: {sgd: {uniform: [0.1, 0.2]}, adam: {uniform: [0.01, 0.02]}}}\n"
        + "search: {method: optuna, trials: 5}\n"
    )
    with pytest.raises(ValueError, match="optuna"):
        spec.trial(0)
    asked: list[str] = []

    def nearly_last(name: str, distribution: Distribution) -> Scalar:
        asked.append(name)
        return distribution.at(0.99)

    trial = spec.build(nearly_last, 4)
    assert asked == ["train.optimizer", "train.lr[adam]"]
    values: dict[str, Scalar] = {"train.optimizer": "adam", "train.lr[adam]": trial.train.lr, "train.lr[sgd]": 9.9}
    assert spec.build(lambda name, d: values[name], 4) == trial


def test_grace_and_brackets_follow_their_kind(load: Load) -> None:
    assert load(BASE, "scheduler.compare=epoch").scheduler.grace == 1
    assert load(BASE, "scheduler.name=hyperband").scheduler.brackets == 3
    assert load(BASE, "scheduler.name=hyperband", "scheduler.brackets=2").scheduler.brackets == 2
    assert load(BASE, "scheduler.metric=val_accuracy").scheduler.mode == "max"


def test_yaml_reads_numbers_as_people_write_them(load: Load) -> None:
    spec = load(BASE + "  lr: 1e-3\n  weight_decay: 0\n  clip_grad: 5\n")
    train = spec.trial(0).train
    assert (train.lr, train.weight_decay, train.clip_grad) == (0.001, 0.0, 5.0)
    assert isinstance(spec.fixed["train.clip_grad"], float)


def test_anchors_are_expanded(load: Load) -> None:
    spec = load(BASE + "  lr: &few {choice: [0.1, 0.2]}\n  weight_decay: *few\n")
    assert spec.space["train.lr"] == spec.space["train.weight_decay"]


def test_a_spec_travels_to_other_processes(load: Load) -> None:
    spec = load(BASE + "  lr: {loguniform: [0.001, 0.1]}\n")
    spec.trial(0)
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec
    assert copy.trial(5) == spec.trial(5)


def test_a_record_that_this_version_can_not_read_is_refused(load: Load) -> None:
    form = load(BASE).to_json()
    form["train"]["from_the_future"] = 1
    with pytest.raises(SpecError, match=r"recorded spec train\.from_the_future: unknown field"):
        SweepSpec.from_json(form)


def test_importing_the_spec_is_cheap() -> None:
    code = (
        "import sys, fashion.spec.sweep_spec; "
        "print([m for m in ('torch', 'ray', 'numpy', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# -- any spec that loads


numbers = st.floats(1e-4, 0.5)
ranges = st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted)
real = st.one_of(
    numbers,
    st.lists(numbers, min_size=1, max_size=4, unique=True).map(lambda v: {"choice": v}),
    st.lists(numbers, min_size=1, max_size=3, unique=True).map(lambda v: {"grid": v}),
    ranges.map(lambda r: {"uniform": r}),
    ranges.map(lambda r: {"loguniform": r}),
)
whole = st.one_of(
    st.integers(4, 99),
    st.lists(st.integers(4, 99), min_size=1, max_size=4, unique=True).map(lambda v: {"choice": v}),
    st.lists(st.integers(4, 99), min_size=2, max_size=2, unique=True).map(lambda v: {"int": sorted(v), "log": True}),
)
conditional = st.one_of(
    real,
    st.tuples(real, real).map(lambda p: {"switch": "train.optimizer", "cases": {"sgd": p[0]}, "else": p[1]}),
    real.map(lambda v: {"when": {"train.optimizer": ["sgd", "adam"]}, **(v if isinstance(v, dict) else {"value": v})}),
)
specs = st.fixed_dictionaries(
    {"lr": conditional, "weight_decay": conditional, "momentum": conditional, "epochs": whole, "batch_size": whole},
    optional={"label_smoothing": real, "clip_grad": conditional},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=specs, seed=st.integers(0, 2**31 - 1), method=st.sampled_from(["random", "optuna"]))
def test_any_spec_round_trips_and_draws_inside_its_space(
    tmp_path: Path, train: dict[str, Any], seed: int, method: str
) -> None:
    train["optimizer"] = {"grid": ["sgd", "adam", "adamw"]}  # a grid: grids may depend on it
    form = {
        "data": {"root": "d"},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": train,
        "search": {"seed": seed, "method": method},
    }
    path = tmp_path / "any.yaml"
    path.write_text(json.dumps(form))  # JSON is YAML
    spec = load_spec(path)
    again = SweepSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert not spec.differences(again)
    for number in range(spec.total_trials):
        seen: dict[str, Scalar] = {}

        def suggest(
            name: str, distribution: Distribution, seen: dict[str, Scalar] = seen, number: int = number
        ) -> Scalar:
            seen[name] = spec.space[name].at((number + 0.5) / 10)
            assert distribution == spec.space[name]
            assert distribution.contains(seen[name])
            return seen[name]

        built = spec.build(suggest, number)

        def again_so(name: str, distribution: Distribution, seen: dict[str, Scalar] = seen) -> Scalar:
            return seen[name]

        assert spec.build(again_so, number) == built
        assert again.drawn(number) == spec.drawn(number)
