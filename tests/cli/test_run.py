"""What `run` says when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fashion.api.recorded_run import RecordedRun
from fashion.cli.run import _prediction
from fashion.cli.run import run as run_command
from fashion.record.run import Run
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"splits": {"train": 9, "val": 3, "test": 3}}, "--predict"),
        ({"splits": {"train": 9, "val": 3}}, "--predict --split val, or --predict --images FOLDER"),
        ({}, "--predict"),
    ],
    ids=["with test", "without", "not recorded"],
)
def test_what_can_be_predicted_is_recommended(tmp_path: Path, splits: dict[str, object], said: str) -> None:
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    assert _prediction(RecordedRun(Run.create(tmp_path / "runs", "s", {**manifest, **splits}))) == said


@pytest.mark.parametrize("arguments", [[], ["s.yaml", "--data", "labels.csv"]])
def test_a_spec_or_a_data_set_is_named(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(run_command, arguments)
    assert done.exit_code == 2
    assert "Name a spec, or with --data a data set" in done.output
    assert not list(tmp_path.iterdir())
