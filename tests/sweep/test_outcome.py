"""What a sweep came to, from its record alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion.record.run import Run
from fashion.sweep.outcome import SweepOutcome, outcome_of
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record


@pytest.fixture
def run(tmp_path: Path) -> Run:
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    return Run.create(tmp_path / "runs", "s", manifest)


def test_a_sweep_with_trials_to_do_was_interrupted(run: Run) -> None:
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    assert outcome_of(run, 2) == SweepOutcome("interrupted")
    assert outcome_of(run, 2).exit_code == 130
    assert outcome_of(run, 1) == SweepOutcome("completed")
    assert outcome_of(run, 1).exit_code == 0


def test_what_the_bucket_lacks_comes_before_all_else(run: Run) -> None:
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    assert outcome_of(run, 1, "given up", "two reports") == SweepOutcome("interrupted", lacking="two reports")


def test_a_sweep_that_was_given_up_or_learnt_nothing_failed(run: Run) -> None:
    assert outcome_of(run, 1, "the first 3 trials failed") == SweepOutcome("failed", "the first 3 trials failed")
    record(run, 0, [float("nan")])
    run.record_end(0, "failed", "val_loss is nan")
    failed = outcome_of(run, 1)
    assert (failed.kind, failed.exit_code) == ("failed", 1)
    assert failed.reason.startswith("no trial has a finite val_loss")
