"""Where configurations come from: the spec alone, or an Optuna study that the record alone can rebuild."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from fashion.record.run import Run
from fashion.record.trial import End, EpochReport
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.search import OptunaSource, SeededSource, make_source

TEXT = """\
name: sweep
data: {root: nowhere, resize: 32, crop: 32}
model: {backbone: tiny, weights: none, dropout: {choice: [0.0, 0.25]}}
train:
  epochs: {int: [2, 4]}
  batch_size: {int: [8, 64], log: true}
  optimizer: {choice: [sgd, adamw]}
  lr:
    switch: train.optimizer
    cases:
      sgd: {loguniform: [0.01, 0.5]}
      adamw: {loguniform: [0.0001, 0.01]}
  momentum: {when: {train.optimizer: sgd}, uniform: [0.8, 0.99]}
search: {method: optuna, trials: 30, seed: 5}
"""
EVERYWHERE = {"model.dropout", "train.epochs", "train.batch_size", "train.optimizer"}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return load_spec(tmp_path / "sweep.yaml")


def new_run(folder: Path, name: str = "run") -> Run:
    manifest: dict[str, Any] = {"spec": {}, "data_fingerprint": "f", "attributes": [], "label_counts": {}}
    return Run.create(folder / "runs", name, manifest)


def record(run: Run, spec: SweepSpec, number: int, config: Any, losses: list[float], end: End | None) -> None:
    run.record_trial(number, config.model_dump(mode="json"))
    run.record_attempt(number)
    for epoch, loss in enumerate(losses, start=1):
        metrics = {"val_loss": loss, "val_accuracy": 1 - loss / 2}
        report = EpochReport(number, 1, epoch, 4, metrics, 1.0, "2026-01-01T00:00:00+00:00")
        run.record_report(report, "stop" if end == "stopped" and epoch == len(losses) else "continue")
    if end is not None:
        run.record_end(number, end)


def test_random_and_grid_are_functions_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(TEXT)
    spec = load_spec(tmp_path / "sweep.yaml", ["search.method=random"])
    source = make_source(spec, new_run(tmp_path))
    assert isinstance(source, SeededSource)
    assert [source.config(number) for number in (4, 2)] == [spec.trial(4), spec.trial(2)]


def test_the_same_seed_gives_the_same_first_configurations(spec: SweepSpec, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    first, again = (OptunaSource(spec, run) for _ in range(2))
    configs = [first.config(number) for number in range(6)]
    assert configs == [again.config(number) for number in range(6)]
    assert len({config.train.lr for config in configs}) == 6
    (tmp_path / "other.yaml").write_text(TEXT.replace("seed: 5", "seed: 6"))
    other = OptunaSource(load_spec(tmp_path / "other.yaml"), run)
    assert other.config(0) != configs[0]


def test_dimensions_exist_only_where_they_apply(spec: SweepSpec, tmp_path: Path) -> None:
    source = OptunaSource(spec, new_run(tmp_path))
    kinds = set()
    for number in range(20):
        config = source.config(number)
        sgd = config.train.optimizer == "sgd"
        kinds.add(sgd)
        own = {"train.lr[sgd]", "train.momentum"} if sgd else {"train.lr[adamw]"}
        assert set(source.asked[number].params) == EVERYWHERE | own
        assert (0.01 if sgd else 0.0001) <= config.train.lr <= (0.5 if sgd else 0.01)
        assert (0.8 <= config.train.momentum <= 0.99) if sgd else config.train.momentum == 0.9
        assert config.seed == spec.drawn(number).seed
    assert kinds == {True, False}


ENDS: list[tuple[list[float], End]] = [
    ([0.9, 0.5, 0.6], "completed"),
    ([1.2], "stopped"),
    ([], "failed"),
    ([0.8, float("nan")], "failed"),
    ([0.7, 0.65], "completed"),
]
STATES = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]


def test_the_study_knows_what_the_record_knows(spec: SweepSpec, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    live = OptunaSource(spec, run)
    for number, (losses, end) in enumerate(ENDS):
        record(run, spec, number, live.config(number), losses, end)
        live.ended(run.trials[number])
    record(run, spec, 5, live.config(5), [0.3], None)  # interrupted: not told
    rebuilt = OptunaSource(spec, Run.open(run.path))
    for study in (live.study, rebuilt.study):
        told = study.trials[:5]
        assert [trial.state for trial in told] == STATES
        assert [trial.value for trial in told if trial.state == TrialState.COMPLETE] == [0.5, 0.65]
        assert told[1].intermediate_values == {1: 1.2}
        assert study.best_value == 0.5
    assert len(rebuilt.study.trials) == 5
    for one, two in zip(live.study.trials[:5], rebuilt.study.trials, strict=True):
        assert one.params == two.params
        assert one.distributions == two.distributions


def test_a_resumed_trial_is_told_when_it_ends(spec: SweepSpec, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    record(run, spec, 0, OptunaSource(spec, run).config(0), [0.4], None)
    resumed = OptunaSource(spec, Run.open(run.path))
    assert not resumed.study.trials
    run.record_end(0, "completed")
    resumed.ended(run.trials[0])
    assert [trial.value for trial in resumed.study.trials] == [0.4]
    # What comes next is new: a sampler that began again would suggest the first trial once more.
    assert resumed.config(1).train.lr != run.trials[0].config["train"]["lr"]


def test_metrics_that_get_better_upwards_are_maximised(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(TEXT + "scheduler: {metric: val_accuracy}\n")
    spec, run = load_spec(tmp_path / "sweep.yaml"), new_run(tmp_path)
    source = OptunaSource(spec, run)
    record(run, spec, 0, source.config(0), [0.9, 0.5, 0.6], "completed")
    source.ended(run.trials[0])
    assert source.study.direction.name == "MAXIMIZE"
    assert source.study.best_value == 0.75  # of all epochs


def test_it_searches(spec: SweepSpec, tmp_path: Path) -> None:
    """After random first trials the estimator proposes more of what was good."""
    run = new_run(tmp_path)
    source = OptunaSource(spec, run)
    losses = []
    for number in range(40):
        config = source.config(number)
        losses.append(abs(math.log(config.train.batch_size / 16)))
        record(run, spec, number, config, [losses[-1]], "completed")
        source.ended(run.trials[number])
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_edited_ranges_leave_out_what_they_no_longer_hold(spec: SweepSpec, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    live = OptunaSource(spec, run)
    for number in range(12):
        record(run, spec, number, live.config(number), [0.5 + number / 100], "completed")
        live.ended(run.trials[number])
    kinds = [trial.config["train"]["optimizer"] for trial in run.trials.values()]
    assert set(kinds) == {"sgd", "adamw"}
    (tmp_path / "edited.yaml").write_text(
        TEXT.replace("adamw: {loguniform: [0.0001, 0.01]}", "adamw: {loguniform: [1, 2]}")
    )
    edited = OptunaSource(load_spec(tmp_path / "edited.yaml"), run)
    assert [trial.params["train.optimizer"] for trial in edited.study.trials] == ["sgd"] * kinds.count("sgd")
    fixed = OptunaSource(load_spec(tmp_path / "sweep.yaml", ["train.weight_decay=0.3"]), run)
    assert not fixed.study.trials
    moved = OptunaSource(load_spec(tmp_path / "sweep.yaml", ["data.root=elsewhere"]), run)
    assert len(moved.study.trials) == 12


def test_a_suggestion_at_the_very_end_of_a_range_is_made_anew(spec: SweepSpec, tmp_path: Path) -> None:
    """No draw is 2.0, so that loading allows the range, but Optuna may take its end."""
    ends = ("train.epochs=2", "train.warmup_epochs={uniform: [0, 2]}")
    source = OptunaSource(load_spec(tmp_path / "sweep.yaml", ends), new_run(tmp_path))
    source.study.enqueue_trial({"train.warmup_epochs": 2.0})
    assert source.config(0).train.warmup_epochs < 2
    assert [trial.state for trial in source.study.trials] == [TrialState.FAIL, TrialState.RUNNING]
    assert list(source.asked) == [0]
