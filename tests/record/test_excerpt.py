"""An excerpt says what the whole journal says, is never taken for another journal's, and may be lost."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from fashion.display.pages import overview, run_json
from fashion.record import excerpt, ranking
from fashion.record.run import Run
from fashion.record.scheduler import scheduler_of
from fashion.record.trial import EpochReport
from fashion.schedulers.registry import make_scheduler
from fashion.spec.settings import SchedulerConfig


@pytest.fixture
def recorded(tmp_path: Path) -> Run:
    """Forty trials of up to nine epochs under ASHA, one of them diverged, some unfinished."""
    settings = {"name": "asha", "metric": "val_accuracy", "grace": 0.2, "reduction": 3.0, "compare": "fraction"}
    manifest = {
        "spec": {"name": "x", "search": {"trials": 50}, "scheduler": {**settings, "brackets": 2}},
        "data_fingerprint": "f",
        "attributes": [{"name": "a", "classes": ["p", "q"]}],
        "label_counts": {"train": [[3, 1]], "val": [[2, 2]]},
    }
    run = Run.create(tmp_path, "x", manifest)
    scheduler, chance = make_scheduler(SchedulerConfig(**manifest["spec"]["scheduler"])), random.Random(0)  # type: ignore[index]
    for number in range(40):
        run.record_trial(number, {"train": {"epochs": 9}, "seed": number})
        run.record_attempt(number)
        for epoch in range(1, 10):
            loss = float("nan") if (number, epoch) == (7, 3) else chance.random()
            metrics = {"val_loss": loss, "val_accuracy": chance.random(), "val_accuracy/a": 0.5}
            report = EpochReport(number, 1, epoch, 9, metrics, chance.random(), "2026-01-01T00:00:00+00:00")
            decision = run.record_report(report, "stop" if loss != loss else scheduler.observe(report))
            if decision == "stop" or (number > 35 and epoch == 5):
                break
        if number <= 35 and number != 7:
            run.record_end(number, "completed" if epoch == 9 else "stopped")
    run.close()
    return run


def test_a_glance_shows_what_the_journal_shows(recorded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpt, "WORTH", 0)
    whole = Run.open(recorded.path)
    excerpt.glance(recorded.path)
    glanced = excerpt.glance(recorded.path)
    assert len(glanced.history) < len(whole.history)
    assert run_json(glanced) == run_json(whole)
    assert scheduler_of(glanced).rungs() == scheduler_of(whole).rungs() != []
    assert ranking.best(glanced) == ranking.best(whole)
    from fashion.display.rows import row

    for number, trial in whole.trials.items():
        one, other = row(trial), row(glanced.trials[number])
        assert one.seconds == pytest.approx(other.seconds)
        assert (one.status, one.best, one.best_epoch, one.epoch) == (
            other.status, other.best, other.best_epoch, other.epoch,
        )  # fmt: skip


@pytest.mark.parametrize("writable", [True, False])
def test_a_long_journal_is_read_in_the_memory_of_its_excerpt(
    recorded: Run, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    whole = Run.open(recorded.path)
    monkeypatch.setattr(excerpt, "WORTH", 20)
    monkeypatch.setattr(excerpt, "PIECE", 50)
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    held = []

    class Held(Run):
        def refresh(self, *arguments: Any, **options: Any) -> int:
            found = super().refresh(*arguments, **options)
            held.append(sum(len(trial.reports) for trial in self.trials.values()))
            return found

    monkeypatch.setattr(excerpt, "Run", Held)
    glanced = excerpt.glance(recorded.path)
    assert len(held) > 3
    assert max(held) < 0.8 * len(whole.history)
    assert (recorded.path / excerpt.NAME).exists() == writable
    assert run_json(glanced) == run_json(whole)
    assert scheduler_of(glanced).rungs() == scheduler_of(whole).rungs()
    for number, trial in whole.trials.items():
        assert glanced.trials[number].left_out + len(glanced.trials[number].reports) == len(trial.reports)
    if writable:
        assert run_json(excerpt.glance(recorded.path)) == run_json(whole)


def test_what_came_since_is_added(recorded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    excerpt.save(recorded)
    metrics = {"val_loss": 1e-6, "val_accuracy": 1.0, "val_accuracy/a": 1.0}
    recorded.record_report(EpochReport(39, 1, 6, 9, metrics, 1.0, "2026-01-01T00:00:00+00:00"), "continue")
    recorded.record_trial(40, {"train": {"epochs": 9}, "seed": 40})
    for _ in range(3):  # an excerpt of an excerpt and its tail is one, too
        glanced = excerpt.glance(recorded.path)
        assert ranking.best(glanced).trial == 39
        assert overview(glanced) == overview(Run.open(recorded.path))
        assert scheduler_of(glanced).rungs() == scheduler_of(Run.open(recorded.path)).rungs()
        monkeypatch.setattr(excerpt, "WORTH", 0)


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "other journal", "shorter journal", "other format"])
def test_a_foreign_or_damaged_excerpt_is_ignored(recorded: Run, damage: str) -> None:
    excerpt.save(recorded)
    path = recorded.path / excerpt.NAME
    content = path.read_bytes()
    lines = recorded.journal_path.read_text().splitlines(keepends=True)
    if damage == "gone":
        path.unlink()
    elif damage in ("empty", "half"):
        path.write_bytes(content[: len(content) // 2 if damage == "half" else 0])
    elif damage == "other format":
        path.write_text(json.dumps({**json.loads(content), "format": 0}))
    elif damage == "shorter journal":
        recorded.journal_path.write_text("".join(lines[:-3]))
    else:
        recorded.journal_path.write_text("".join([*lines[:-1], lines[-1].replace("39", "38")]))
    glanced, whole = excerpt.glance(recorded.path), Run.open(recorded.path)
    assert len(glanced.history) == len(whole.history)
    assert run_json(glanced) == run_json(whole)


def test_a_short_journal_needs_none(recorded: Run) -> None:
    excerpt.glance(recorded.path)
    assert not (recorded.path / excerpt.NAME).exists()


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"backbone": "tiny", "dropout": 0.5}, "train": {"epochs": 9, "lr": 0.1}, "seed": 0},
        {"model": {"backbone": "tiny", "dropout": 0}, "train": {"epochs": 9, "lr": 1.0}, "seed": 1},  # 0 is no 0.0
        {"model": {"backbone": None, "dropout": False}, "train": {"epochs": 9, "lr": [1, 2]}, "seed": 1},
        {
            "model": {"dropout": 0.0, "backbone": "tiny"},
            "train": {"epochs": 9, "lr": 1.0},
            "seed": 1,
        },  # in another order
        {"model": {}, "train": {"epochs": 9, "lr": 0.1}, "seed": 0},
        {"train": {"epochs": 9}},
        {"other": 3, "extra": {"a": {"b": 1}}},
        {},
    ],
)
def test_a_configuration_comes_back_to_the_letter(tmp_path: Path, config: dict[str, Any]) -> None:
    """The excerpt keeps what differs from the first trial's."""
    first = {"model": {"backbone": "tiny", "dropout": 0.0}, "train": {"epochs": 9, "lr": 1.0}, "seed": 1}
    settings = {"name": "fifo", "metric": "val_loss", "grace": 0.2, "reduction": 3.0, "compare": "epoch", "brackets": 1}
    manifest = {
        "spec": {"search": {"trials": 2}, "scheduler": settings}, "data_fingerprint": "f",
        "attributes": [], "label_counts": {},
    }  # fmt: skip
    run = Run.create(tmp_path, "x", manifest)
    run.record_trial(0, first)
    run.record_trial(1, config)
    run.close()
    excerpt.save(run)
    known = excerpt.load(run.journal_path)
    assert known is not None
    assert [json.dumps(trial.config) for trial in known[0].values()] == [json.dumps(first), json.dumps(config)]


@pytest.mark.parametrize("shared", [None, 3, [], {}, {"train": 3}, {"seed": 1}])
def test_an_excerpt_with_foreign_common_settings_is_ignored(recorded: Run, shared: Any) -> None:
    excerpt.save(recorded)
    path = recorded.path / excerpt.NAME
    content = json.loads(path.read_text())
    content["trials"][5]["config"] = [["train", "epochs", 0]]
    path.write_text(json.dumps({**content, "shared": shared}))
    assert excerpt.load(recorded.journal_path) is None
    assert run_json(excerpt.glance(recorded.path)) == run_json(Run.open(recorded.path))
