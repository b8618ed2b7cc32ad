"""Rows, counts, the choice of what a screen shows, and the forecast."""

from __future__ import annotations

import math

import pytest

from fashion.display.rows import (
    Row,
    by_importance,
    choose,
    counts,
    duration,
    leader,
    listed,
    row,
    seconds_left,
    short,
    short_names,
    varying,
)
from fashion.record.trial import EpochReport, Trial


def trial(number: int, losses: list[float], epochs: int = 10, ended: str | None = None, seconds: float = 2.0) -> Trial:
    made = Trial(number, {"train": {"lr": 0.1 * (number + 1), "epochs": epochs}, "model": {"backbone": "tiny"}})
    for epoch, loss in enumerate(losses, start=1):
        metrics = {"val_loss": loss, "val_accuracy": 1 - loss / 10}
        made.reports.append(EpochReport(number, 1, epoch, epochs, metrics, seconds, "2026-01-01T00:00:00+00:00"))
        made.decisions[epoch] = "continue"
    made.ended = ended  # type: ignore[assignment]
    return made


def rows(*trials: Trial, active: tuple[int, ...] = ()) -> list[Row]:
    return [row(each, ["train.lr"], active) for each in trials]


def test_a_row_shows_the_best_epoch_not_the_last() -> None:
    made = row(trial(3, [1.0, 0.5, 0.7], ended="stopped"), ["train.lr", "model.backbone", "train.absent"])
    assert (made.epoch, made.epochs, made.best, made.best_epoch, made.last) == (3, 10, 0.5, 2, 0.7)
    assert made.accuracy == 0.95
    assert made.values == {"train.lr": 0.4, "model.backbone": "tiny", "train.absent": None}
    assert made.status == "stopped"


def test_a_trial_without_worker_is_waiting_and_nan_never_leads() -> None:
    both = rows(trial(0, [math.nan]), trial(1, []), trial(2, [0.9]), active=(2,))
    assert [each.status for each in both] == ["failed", "waiting", "running"]
    best = leader(both)
    assert best is not None
    assert best.number == 2
    assert leader(both[:2]) is None
    assert counts(both, 10) == {"running": 1, "waiting": 8, "failed": 1}


def test_of_equal_trials_the_lower_number_leads() -> None:
    best = leader(rows(trial(7, [0.5]), trial(4, [0.5])))
    assert best is not None
    assert best.number == 4


def test_a_short_screen_shows_running_trials_and_the_best() -> None:
    many = [trial(number, [1 + number / 1000], ended="stopped") for number in range(150)]
    running = [trial(number, [0.5 + number / 1000]) for number in range(150, 158)]
    shown, left = choose(rows(*many, *running, active=tuple(range(150, 158))), 10)
    assert [each.number for each in shown] == [150, 151, 152, 153, 154, 0, 1, 2, 3, 4]
    assert len(shown) + len(left) == 158
    shown, left = choose(rows(*many, *running[:2], active=(150, 151)), 10)
    assert [each.number for each in shown] == [150, 151, 0, 1, 2, 3, 4, 5, 6, 7]
    shown, left = choose(rows(*running, active=tuple(range(150, 158))), 20)
    assert len(shown) == 8
    assert left == []


def test_forecast() -> None:
    assert seconds_left(rows(trial(0, [])), 4) is None
    # Two of four trials run side by side, half way through ten epochs of two seconds; two are to come.
    halfway = rows(trial(0, [1.0] * 5), trial(1, [1.0] * 5), active=(0, 1))
    assert seconds_left(halfway, 4) == pytest.approx((2 * 10 + 2 * 20) / 2)
    # Early stopping at a fifth of the schedule makes the trials to come cheap.
    stopped = [trial(number, [1.0, 1.0], ended="stopped") for number in range(2, 10)]
    assert seconds_left(rows(trial(0, [1.0] * 5), *stopped, active=(0,)), 19) == pytest.approx(10 + 10 * 4)
    # The longest trial bounds the end, however many workers there are.
    assert seconds_left(rows(trial(0, [1.0]), trial(1, [1.0] * 9), active=(0, 1)), 2) == pytest.approx(18)


def test_fields_by_importance() -> None:
    fields = ["model.dropout", "model.backbone", "train.mixup", "train.lr"]
    few = [row(trial(number, [1.0]), fields) for number in range(2)]
    assert by_importance(fields, few) == ["model.backbone", "train.lr", "model.dropout", "train.mixup"]
    many = [row(trial(number, [1.0]), fields) for number in range(10)]
    assert by_importance(fields, many)[0] == "train.lr", "all have the same backbone"


def test_names_that_do_not_fit_are_counted() -> None:
    assert listed(["dropout", "momentum", "at"], 40) == "dropout, momentum, at"
    assert listed(["dropout", "momentum", "at"], 17) == "dropout, 2 more"


def test_varying_fields_and_their_short_names() -> None:
    spec = {
        "data": {"root": "d", "resize": {"choice": [64, 96]}},
        "model": {"backbone": {"choice": ["tiny"]}},
        "train": {
            "epochs": 5,
            "lr": {"loguniform": [0.1, 1]},
            "momentum": {"when": {"train.optimizer": "sgd"}, "uniform": [0, 1]},
        },
        "search": {"trials": 3},
    }
    assert varying({"spec": spec}) == ["model.backbone", "data.resize", "train.lr", "train.momentum"]
    edited = {"spec": spec, "extensions": [{"edited": ["train.epochs"]}]}
    assert set(varying(edited)) - set(varying({"spec": spec})) == {"train.epochs"}
    assert short_names(["train.lr", "model.size", "data.size"]) == {
        "train.lr": "lr",
        "model.size": "model.size",
        "data.size": "data.size",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5900, "98 min"),
        (5990, "1 h 40 min"),
        (7260, "2 h 01 min"),
        (200_000, "2 d 8 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_short_values() -> None:
    shown = [short(value) for value in (None, True, 0.000123456, 32, "x" * 30)]
    assert shown == ["-", "yes", "0.000123", "32", "~" + "x" * 19]
