from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashion.record.run import Run
from fashion.record.scheduler import replay, scheduler_of
from fashion.record.trial import EpochReport
from fashion.schedulers.asha import Asha, Hyperband, _Rung
from fashion.schedulers.base import Fifo, Scheduler
from fashion.schedulers.median import Median
from fashion.schedulers.registry import make_scheduler

SETTINGS = {"name": "asha", "metric": "val_loss", "grace": 0.1, "reduction": 3.0, "compare": "fraction", "brackets": 1}


def config(**changes: Any) -> Any:
    return SimpleNamespace(**{**SETTINGS, **changes})


def loss(value: float) -> dict[str, float]:
    return {"val_loss": value}


def feed(scheduler: Scheduler, progress: float, *losses: float) -> list[str]:
    """One report of trials 0, 1, ... each at the same progress."""
    return [scheduler.report(trial, progress, loss(value)) for trial, value in enumerate(losses)]


def report(trial: int, epoch: int, epochs: int, val_loss: float) -> EpochReport:
    return EpochReport(trial, 1, epoch, epochs, loss(val_loss), 1.0, "")


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=40),
    st.sampled_from([1.5, 2.0, 3.0, 4.0, 10.0]),
)
@settings(max_examples=200, deadline=None)
def test_cutoff_is_numpys_percentile_to_the_bit(rewards: list[float], reduction: float) -> None:
    assert _Rung(1.0, sorted(rewards)).cutoff(reduction) == np.percentile(rewards, (1 - 1 / reduction) * 100)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("grace", "reduction", "bracket"), [(1, 2, 0), (1, 3, 0), (2, 4, 0), (1, 2, 1), (1, 3, 2)])
def test_decisions_equal_rays_bracket_at_unit_steps(mode: Any, grace: int, reduction: int, bracket: int) -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket

    generator = random.Random(f"{mode}{grace}{reduction}{bracket}")
    compared = stops = 0
    for _ in range(20):
        longest = 60
        theirs = _Bracket(grace, 10_000, reduction, bracket)
        ours = Asha(grace, reduction, mode, brackets=bracket + 1, compare="epoch")
        numbers = [bracket + (bracket + 1) * index for index in range(15)]  # those of that bracket
        epoch = dict.fromkeys(numbers, 0)
        level = {number: generator.gauss(0, 1) for number in numbers}
        while epoch:
            number = generator.choice(list(epoch))
            epoch[number] += 1
            value = round(level[number] + generator.gauss(0, 0.5), 1)  # rounded: ties are wanted
            sign = 1.0 if mode == "max" else -1.0
            trial: Any = SimpleNamespace(trial_id=number)
            expected = theirs.on_result(trial, epoch[number], sign * value)
            assert ours.report(number, epoch[number], loss(value)) == expected.lower()
            compared += 1
            stops += expected == "STOP"
            if expected == "STOP" or epoch[number] == longest:
                del epoch[number]
        recorded = {rung: rewards for rung, rewards in theirs._rungs if rewards}
        states = [state for state in ours.rungs() if state.bracket == bracket]
        assert {state.rung: state.entries for state in states} == {
            rung: len(rewards) for rung, rewards in recorded.items()
        }
    assert compared > 1000
    assert stops > 100


def test_nine_configurations_as_in_the_paper() -> None:
    """Li et al. 2018, figure 1: 9 configurations, eta 3, r 1, R 9: 9 at rung 1, 3 at rung 3, 1 at rung 9.

    Of nine entries exactly the best three are at or above the cutoff; what the stopping variant lets by depends on the
    order of arrival. Arriving from worst to best nobody is stopped, from best to worst everybody but the first.
    """
    losses = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    worst_first, best_first = Asha(1, 3, compare="epoch"), Asha(1, 3, compare="epoch")
    assert feed(worst_first, 1, *losses) == ["continue"] * 9
    assert feed(best_first, 1, *losses[::-1]) == ["continue"] + ["stop"] * 8
    for scheduler, promoted in ((worst_first, 9), (best_first, 1)):
        (rung,) = scheduler.rungs()
        assert (rung.bracket, rung.rung, rung.entries, rung.promoted) == (0, 1.0, 9, promoted)
        assert rung.cutoff is not None
        assert sum(value <= rung.cutoff for value in losses) == 3

    # By hand: the cutoff after n losses is the interpolated 1/3 quantile from the best:
    # {5}: 5; {5,3}: 3.667; {5,3,4}: 3.667; {5,3,4,3.5}: 3.5; {.., 1}: 3.167; {.., 3.2}: 3.133
    mixed = Asha(1, 3, compare="epoch")
    assert feed(mixed, 1, 5, 3, 4, 3.5, 1, 3.2, 3.1) == [
        "continue",
        "continue",
        "stop",
        "continue",
        "continue",
        "stop",
        "continue",
    ]
    assert feed(mixed, 3, 2) == ["continue"]
    assert mixed.report(1, 3, loss(2.5)) == "stop"
    assert [(state.rung, state.entries, state.promoted) for state in mixed.rungs()] == [(1.0, 7, 5), (3.0, 2, 1)]


def curve(epoch: int, epochs: int, final: float) -> float:
    """A loss under a cosine schedule: high while the learning rate is, `final` at the end of its own schedule."""
    return final + 0.5 * (1 + math.cos(math.pi * epoch / epochs)) / 2


@pytest.mark.parametrize(("compare", "grace", "winner"), [("fraction", 0.1, 3), ("epoch", 1, 0)])
def test_comparing_by_epoch_kills_the_true_best_and_by_fraction_keeps_it(
    compare: str, grace: float, winner: int
) -> None:
    """Three trials of 9 epochs, one of 45 whose final loss is the lowest; its learning rate is still high when theirs
    has fallen, so that it looks worst at every epoch they have in common."""
    plans = {0: (9, 0.60), 1: (9, 0.65), 2: (9, 0.62), 3: (45, 0.50)}
    scheduler = make_scheduler(config(compare=compare, grace=grace))
    reached: dict[int, float] = {}
    running = dict(plans)
    for epoch in range(1, 46):
        for trial, (epochs, final) in list(running.items()):
            reached[trial] = curve(epoch, epochs, final)
            if scheduler.observe(report(trial, epoch, epochs, reached[trial])) == "stop" or epoch == epochs:
                del running[trial]
    assert min(reached, key=lambda trial: reached[trial]) == winner
    assert (reached[3] == pytest.approx(0.50)) is (compare == "fraction")


def test_rungs_by_fraction_are_hit_in_spite_of_rounding_and_end_below_one() -> None:
    scheduler = Asha(0.1, 3)
    for epoch in range(1, 11):
        scheduler.observe(report(0, epoch, 10, 1.0))
    assert 3 / 10 < 0.1 * 3
    expected: Any = [(pytest.approx(0.1), 1), (pytest.approx(0.3), 1), (pytest.approx(0.9), 1)]
    assert [(state.rung, state.entries) for state in scheduler.rungs()] == expected
    assert scheduler.report(1, 0.1, loss(2.0)) == "stop"
    assert scheduler.report(2, 3 / 10, loss(0.5)) == "continue"
    assert [state.entries for state in scheduler.rungs()] == [3, 2, 1]
    third = Asha(1 / 3, 3)
    third.report(0, 1.0, loss(1.0))
    assert [state.rung for state in third.rungs()] == [1 / 3]  # 1/3 * 3 is the end: nothing to stop


def test_report_past_several_rungs_is_entered_and_judged_in_each() -> None:
    scheduler = Asha(0.1, 3)
    assert scheduler.report(0, 0.1, loss(0.5)) == "continue"
    assert scheduler.report(1, 1.0, loss(0.7)) == "stop"  # a trial of one epoch: worse than the first rung's only entry
    assert [state.entries for state in scheduler.rungs()] == [2, 1, 1]
    assert [state.promoted for state in scheduler.rungs()] == [1, 0, 0]
    assert scheduler.report(2, 0.5, loss(0.4)) == "continue"
    assert [state.entries for state in scheduler.rungs()] == [3, 2, 1]


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "fifo"])
def test_same_report_again_is_the_same_decision_and_changes_nothing(name: str) -> None:
    once, twice = make_scheduler(config(name=name)), make_scheduler(config(name=name))
    generator = random.Random(name)
    for step in range(1, 11):
        for trial in range(12):
            value = loss(generator.random())
            decision = once.report(trial, step / 10, value)
            assert twice.report(trial, step / 10, value) == decision
            assert twice.report(trial, step / 10, loss(99.0)) == decision
    assert once.rungs() == twice.rungs()


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "fifo"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_stops_and_ranks_nowhere(name: str, value: float) -> None:
    scheduler = make_scheduler(config(name=name))
    assert scheduler.report(0, 0.1, loss(value)) == "stop"
    assert scheduler.rungs() == []
    assert scheduler.report(3, 0.1, loss(5.0)) == "continue"
    assert [(state.entries, state.cutoff) for state in scheduler.rungs()] == (
        [(1, 5.0)] if isinstance(scheduler, Asha) else []
    )
    assert scheduler.report(0, 0.2, loss(0.1)) == "stop"  # a stop is for good
    with pytest.raises(KeyError):
        scheduler.report(5, 0.1, {"val_accuracy": 1.0})


def test_accuracy_is_maximised_and_losses_minimised() -> None:
    scheduler = make_scheduler(config(metric="val_accuracy"))
    assert scheduler.report(0, 0.1, {"val_accuracy": 0.5}) == "continue"
    assert scheduler.report(1, 0.1, {"val_accuracy": 0.4}) == "stop"
    assert scheduler.report(2, 0.1, {"val_accuracy": 0.6}) == "continue"
    (rung,) = scheduler.rungs()
    assert rung.cutoff == pytest.approx(np.percentile([0.5, 0.4, 0.6], 100 * (1 - 1 / 3)))
    minimised = make_scheduler(config(metric="val_loss_report"))
    assert minimised.mode == "min"


def test_hyperbands_brackets_begin_later_and_do_not_mix() -> None:
    scheduler = make_scheduler(config(name="hyperband", brackets=3))
    assert isinstance(scheduler, Hyperband)
    for trial in range(6):
        scheduler.report(trial, 0.1, loss(trial))
    assert [(state.bracket, state.rung, state.entries) for state in scheduler.rungs()] == [(0, 0.1, 2)]
    assert scheduler.report(4, 0.3, loss(4.0)) == "continue"  # the first of bracket 1, whatever bracket 0 holds
    assert scheduler.report(1, 0.3, loss(5.0)) == "stop"
    assert scheduler.report(3, 0.3, loss(9.0)) == "stop"
    assert {state.bracket for state in scheduler.rungs()} == {0, 1}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_median_rule_equals_rays(mode: Any) -> None:
    from ray.tune.schedulers import MedianStoppingRule

    generator = random.Random(7)
    stops = 0
    for _ in range(10):
        theirs: Any = MedianStoppingRule("epoch", "val_loss", mode, grace_period=2, min_samples_required=3)
        ours = Median(2, 3, mode, compare="epoch")
        by_identity = {number: _Hashable(number) for number in range(10)}
        controller = SimpleNamespace(get_live_trials=list)
        epoch = dict.fromkeys(by_identity, 0)
        while epoch:
            number = generator.choice(list(epoch))
            epoch[number] += 1
            value = generator.gauss(number, 2)
            result = {"epoch": epoch[number], "val_loss": value}
            expected = theirs.on_trial_result(controller, by_identity[number], result).lower()
            assert ours.report(number, epoch[number], loss(value)) == expected
            stops += expected == "stop"
            if expected == "stop" or epoch[number] == 12:
                del epoch[number]
    assert stops > 10


@pytest.mark.parametrize("compare", ["fraction", "epoch"])
def test_median_rule_is_what_looking_at_every_trial_says(compare: Any) -> None:
    """Trials of different lengths, side by side in any order, against the rule as it is written."""
    generator = random.Random(3)
    stops = 0
    for _ in range(20):
        ours = Median(0.2 if compare == "fraction" else 2, 3, compare=compare)
        rewards: dict[int, list[tuple[float, float]]] = {}
        left = {number: (0, generator.choice([3, 5, 10, 30])) for number in range(25)}
        while left:
            number = generator.choice(list(left))
            epoch, epochs = left[number][0] + 1, left[number][1]
            left[number] = epoch, epochs
            value = generator.gauss(number % 7, 2)
            progress = epoch / epochs if compare == "fraction" else float(epoch)
            rewards.setdefault(number, []).append((progress, -value))
            expected = median_rule(rewards, number, ours.grace)
            assert ours.report(number, progress, loss(value)) == expected
            stops += expected == "stop"
            if expected == "stop" or epoch == epochs:
                del left[number]
    assert stops > 50


def median_rule(rewards: dict[int, list[tuple[float, float]]], number: int, grace: float) -> str:
    progress = rewards[number][-1][0]
    means = []
    for other, course in rewards.items():
        until = [reward for at, reward in course if grace - 1e-9 <= at <= progress + 1e-9]
        if other != number and course[-1][0] >= progress - 1e-9 and until:
            means.append(sum(until) / len(until))
    best = max(reward for _, reward in rewards[number])
    judged = progress >= grace - 1e-9 and len(means) >= 3
    return "stop" if judged and best < float(np.median(means)) else "continue"


class _Hashable:
    """Stands for Ray's Trial, of which its rule uses the identity and the number only."""

    def __init__(self, trial_id: int) -> None:
        self.trial_id = trial_id


def test_fifo_never_stops_a_number() -> None:
    assert feed(make_scheduler(config(name="fifo")), 0.9, 5, 4, 3, 99) == ["continue"] * 4
    assert isinstance(make_scheduler(config(name="fifo")), Fifo)


def test_unknown_names_and_impossible_settings_raise() -> None:
    with pytest.raises(KeyError, match="pbt"):
        make_scheduler(config(name="pbt"))
    for changes in ({"grace": 0}, {"reduction": 1}, {"brackets": 0}):
        with pytest.raises(ValueError, match="grace > 0"):
            make_scheduler(config(**changes))


def test_record_fed_once_more_rebuilds_decisions_and_rungs(tmp_path: Path) -> None:
    manifest = {
        "spec": {"scheduler": SETTINGS},
        "data_fingerprint": "",
        "attributes": [],
        "label_counts": {"train": [], "val": []},
    }
    run = Run.create(tmp_path, "night", manifest)
    live = make_scheduler(config())
    generator = random.Random(1)
    epochs = {number: generator.choice([2, 5, 10]) for number in range(8)}
    for number in epochs:
        run.record_trial(number, {})
    waiting = dict.fromkeys(epochs, 1)
    while waiting:
        number = generator.choice(list(waiting))
        one = report(number, waiting[number], epochs[number], generator.random())
        decision = run.record_report(one, live.observe(one))
        waiting[number] += 1
        if decision == "stop" or one.epoch == one.epochs:
            del waiting[number]
    again = Run.open(run.path)
    rebuilt = make_scheduler(config())
    assert replay(rebuilt, again.history) == []
    assert rebuilt.rungs() == live.rungs() == scheduler_of(again).rungs()
    assert "stop" in {decision for _, decision in again.history}

    lenient = replay(make_scheduler(config(name="fifo")), again.history)
    assert {(recorded, decided) for _, recorded, decided in lenient} == {("stop", "continue")}
    assert json.loads(json.dumps(again.manifest)) == run.manifest


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_replay_tells_where_changed_settings_decide_otherwise(name: str) -> None:
    generator = random.Random(2)
    history: list[Any] = [
        (report(number, epoch, 20, generator.random()), "continue") for epoch in range(1, 21) for number in range(20)
    ]
    changed = replay(make_scheduler(config(name=name)), history)
    assert changed
    assert {(recorded, decided) for _, recorded, decided in changed} == {("continue", "stop")}
