"""What a run's own files tell of its winner: computed once, kept, and never that of another state of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import fashion
from fashion.display.certainty import certainty_json, certainty_lines
from fashion.reading.certainty import NAME, certainty
from fashion.record import excerpt
from fashion.record.run import VAL_LABELS, Run
from fashion.statistics import resampling
from tests.support.predicted import drawn, predicted_run, write_predictions
from tests.support.servers.s3_server import Server

LABELS, MODELS = drawn(4)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return predicted_run(tmp_path / "runs", LABELS, MODELS, [9_000_000, 5_300_000, 7_000_000, 8_000_000])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the images are drawn."""
    calls: list[int] = []
    real = resampling.resample

    def resample(*arguments: object) -> resampling.Resampled:
        calls.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(resampling, "resample", resample)
    return calls


def test_intervals_are_around_the_recorded_metrics(run: Run) -> None:
    found = fashion.open_run(run.path).certainty()
    assert (found.winner, found.images, found.untold) == (fashion.open_run(run.path).best().trial, 120, "")
    assert len(found.trials) == 4
    for each in found.trials:
        recorded = run.trials[each.trial].reports[0].metrics
        assert {name: interval.value for name, interval in each.intervals.items()} == pytest.approx(recorded, rel=1e-5)
        assert all(interval.low <= interval.value <= interval.high for interval in each.intervals.values())
        assert all(interval.reliable for interval in each.intervals.values())
    assert found.tied[0] == found.winner
    assert found.cheapest in found.tied
    assert found.fastest == min(found.tied), "trial N needed N + 1 seconds for an epoch"
    raw, expected = found.intervals()["val_accuracy"], found.corrected["val_accuracy"]
    assert expected.value <= raw.value
    assert expected.high - expected.low == pytest.approx(raw.high - raw.low)
    assert all(each.gains.value > 0 for each in found.disagreements)


def test_it_is_computed_once_and_read_again(run: Run, counted: list[int]) -> None:
    first = certainty(Run.open(run.path))
    assert certainty(Run.open(run.path)) == first
    assert len(counted) == 1
    (run.path / NAME).write_text("{")
    assert certainty(Run.open(run.path)) == first
    assert len(counted) == 2


def test_what_was_computed_from_the_whole_record_serves_its_excerpt(run: Run, counted: list[int]) -> None:
    journal = run.journal_path.read_text().splitlines()
    (at, first), *_ = ((n, e) for n, line in enumerate(journal) if (e := json.loads(line))["event"] == "report")
    worse = first["report"]["metrics"] | {"val_loss": 9.0}
    later = [first | {"report": first["report"] | {"epoch": n, "epochs": 3, "metrics": worse}} for n in (2, 3)]
    run.journal_path.write_text("\n".join([*journal[: at + 1], *map(json.dumps, later), *journal[at + 1 :], ""]))
    found = certainty(Run.open(run.path))
    excerpt.save(Run.open(run.path))
    short = excerpt.glance(run.path)
    assert short.trials[first["report"]["trial"]].left_out == 1
    assert certainty(short) == found
    assert len(counted) == 1


def test_what_takes_long_shows_how_far_it_is(run: Run) -> None:
    calls: list[tuple[str, int, int]] = []
    certainty(run, progress=lambda *call: calls.append(call))
    read, compared = "validation predictions", "comparing trials"
    assert calls == [*((read, done, 4) for done in range(5)), *((compared, done, 5) for done in range(6))]
    certainty(run, progress=lambda *call: calls.append(call))
    assert len(calls) == 11, "what is kept is read at once"


def test_a_run_that_goes_on_is_computed_again(run: Run, counted: list[int]) -> None:
    before = certainty(run)
    images = [f"img/{index}.jpg" for index in range(120)]
    write_predictions(run, 1, images, [np.full_like(head, 1 / head.shape[1]) for head in MODELS[1]])
    os.utime(run.trial_dir(1) / "val-0001.parquet", ns=(1, 1))
    after = certainty(run)
    assert after.intervals(1) != before.intervals(1)
    run.trials[2].reports.clear()
    assert {each.trial for each in certainty(run).trials} == {0, 1, 3}
    assert len(counted) == 3


def test_a_run_that_can_only_be_read_is_told_of_and_nothing_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert certainty(run).tied
    assert not (run.path / NAME).exists()


def test_missing_labels_count_nowhere(tmp_path: Path) -> None:
    labels = [[None if index < 30 else int(each) for index, each in enumerate(LABELS[0])], LABELS[1].tolist()]
    run = predicted_run(tmp_path, labels, MODELS)
    rest = predicted_run(tmp_path / "rest", [column[30:] for column in LABELS], [[h[30:] for h in m] for m in MODELS])
    name = "val_accuracy/sleeve"
    assert certainty(run).intervals(0)[name].value == pytest.approx(certainty(rest).intervals(0)[name].value)
    assert (
        certainty(run).intervals(0)["val_accuracy/fit"].value != certainty(rest).intervals(0)["val_accuracy/fit"].value
    )


def test_what_is_missing_is_told_and_the_rest_as_well(run: Run) -> None:
    winner = certainty(run).winner
    others = [number for number in run.trials if number != winner]
    (run.trial_dir(others[0]) / "val-0001.parquet").unlink()
    (run.trial_dir(others[1]) / "val-0001.parquet").write_bytes(b"PAR1")
    write_predictions(run, others[2], ["x"] * 120, MODELS[others[2]])
    found = certainty(run)
    assert f"trial {others[0]} has no validation predictions" in found.untold
    assert f"trial {others[1]} has damaged validation predictions" in found.untold
    assert f"trial {others[2]} has predictions of other images" in found.untold
    assert found.tied == (winner,)
    (run.trial_dir(winner) / "val-0001.parquet").unlink()
    assert certainty(run).tied == ()


def test_without_labels_one_line_says_why(run: Run) -> None:
    (run.path / VAL_LABELS).unlink()
    assert "the run has no val-labels.parquet" in certainty(run).untold
    for path in run.path.glob("trials/*/val-*"):
        path.unlink()
    assert certainty(run).untold == "trials 0, 1, 2, 3 have no validation predictions"


def test_best_says_it_in_three_lines(run: Run) -> None:
    found = certainty(run)
    best = fashion.open_run(run.path).best()
    first, second, third = certainty_lines(run, best, found)
    interval = found.intervals()["val_accuracy"]
    right = f"{100 * interval.value:.1f} % right, {100 * interval.low:.1f} to {100 * interval.high:.1f}"
    assert first == f"{right} with 95 % confidence (120 images)"
    assert second.startswith("can't be told from trial")
    assert "; the cheapest of them is " in second
    assert third == f"as the best of 4 expect {100 * found.corrected['val_accuracy'].value:.1f} % on new images"
    values = json.loads(json.dumps(certainty_json(best, found)))
    assert values["interval"]["val_accuracy"]["low"] == interval.low
    assert values["tied"] == list(found.tied)
    assert set(values["corrected"]) == set(values["interval"])
    other = fashion.open_run(run.path).at(found.tied[-1])
    assert (
        certainty_lines(run, other, found)[1] == f"can't be told from trial {best.trial}, which has the lowest val_loss"
    )


def test_a_run_in_a_bucket_is_told_of_as_one_in_a_folder(s3: Server, machine: Path, run: Run) -> None:
    for path in sorted(run.path.rglob("*")):
        if path.is_file() and path.name != "journal.jsonl":
            s3.write("sweeps", f"lr/{path.relative_to(run.path)}", path.read_bytes())
    s3.write("sweeps", "lr/journal/000000000000000.jsonl", run.journal_path.read_bytes())
    assert fashion.open_run("s3://sweeps/lr").certainty() == certainty(run)
