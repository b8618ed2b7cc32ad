"""What `run` says when it ends."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fashion.api.recorded_run import RecordedRun
from fashion.cli.run import _prediction
from fashion.cli.run import run as run_command
from fashion.cli.spec import check
from fashion.cli.submit import submit
from fashion.errors import SpecError
from fashion.record.run import Run
from tests.support.label_files import WHOLE, labelled
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"splits": {"train": 9, "val": 3, "test": 3}}, "--predict"),
        ({"splits": {"train": 9, "val": 3}}, "--predict --split val, or --predict --images FOLDER"),
        ({}, "--predict"),
        ({"splits": {"train": 9, "val": 3}, "data_form": {"folds": "3"}}, "--predict --images FOLDER"),
    ],
    ids=["with test", "without", "not recorded", "without, in folds"],
)
def test_what_can_be_predicted_is_recommended(tmp_path: Path, splits: dict[str, object], said: str) -> None:
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    assert _prediction(RecordedRun(Run.create(tmp_path / "runs", "s", {**manifest, **splits}))) == said


@pytest.mark.parametrize("arguments", [[], ["s.yaml", "--data", "labels.csv"]])
@pytest.mark.parametrize("command", [run_command, submit, check], ids=lambda command: str(command.name))
def test_a_spec_or_a_data_set_is_named(
    command: click.Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert "or with --data a data set for which one is drafted" in done.output
    assert not list(tmp_path.iterdir())


def test_what_run_would_draft_is_checked_and_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file for all three. To a cluster relative paths mean nothing."""
    path = labelled(tmp_path / "people", WHOLE)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(check, ["--data", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["spec"] == "people.yaml"
    assert "people.yaml: written for" in done.stderr
    sent = CliRunner().invoke(submit, ["--data", str(path), "--address", "http://127.0.0.1:9"])
    assert "people.yaml: drafted earlier" in sent.stderr
    assert isinstance(sent.exception, SpecError)
    assert [problem.place for problem in sent.exception.problems] == ["storage"]
