"""What `run` says when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fashion.cli.run import _prediction
from fashion.cli.run import run as run_command
from fashion.record.run import Run
from tests.support.layouts import small
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC


@pytest.mark.parametrize(
    ("test_list", "said"), [(True, "--predict"), (False, "--predict --split val, or --predict --images FOLDER")]
)
def test_what_can_be_predicted_is_recommended(tmp_path: Path, test_list: bool, said: str) -> None:
    root = small(tmp_path / "d")
    if test_list:
        (root / "split/test.txt").write_text("img/0.png\n")
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(tmp_path / "runs", "s", {**manifest, "data_root": str(root)})
    assert _prediction(run) == said
    run.manifest["data_root"] = "s3://bucket/data"
    assert _prediction(run) == "--predict"


@pytest.mark.parametrize("arguments", [[], ["s.yaml", "--data", "labels.csv"]])
def test_a_spec_or_a_data_set_is_named(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(run_command, arguments)
    assert done.exit_code == 2
    assert "Name a spec, or with --data a data set" in done.output
    assert not list(tmp_path.iterdir())
