"""`fashion-sweep submission`: the doctor and the ledger, as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fashion.data.layout import Dataset
from fashion.prediction.submission import write_submission
from fashion.record.run import Run
from tests.support.promoted import promoted_run
from tests.support.typed import told, typed

Shell = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    return promoted_run(tmp_path_factory.mktemp("runs"), demo_root, {}, {})


def test_what_best_wrote_may_be_uploaded_and_another_order_may_not(
    trained: tuple[Run, Dataset], demo_root: Path, tmp_path: Path, capsys: Shell
) -> None:
    run, _ = trained
    typed(capsys, "best", str(run.path), "--predict", "--json")
    written = run.predictions_dir / "test" / "prediction.txt.zip"
    said = told(capsys, "submission", "check", str(written), "--data", str(demo_root), "--run", str(run.path), code=0)
    assert "0 errors" in said
    assert "it may be uploaded" in said
    lines = np.loadtxt(run.predictions_dir / "test" / "prediction.txt", dtype=np.int64)
    other = write_submission(lines[::-1], tmp_path).archive
    arguments = ("submission", "check", str(other), "--data", str(demo_root), "--run", str(run.path))
    assert "the same lines in another order" in told(capsys, *arguments)
    found = json.loads(told(capsys, *arguments, "--earlier", str(written), "--json"))
    assert not found["ok"]
    assert found["agreement"] < 1.0
    assert {"weight", "place", "rule", "value", "fix"} == set(found["findings"][0])


def test_the_ledger_knows_which_trial_wrote_a_file(trained: tuple[Run, Dataset], tmp_path: Path, capsys: Shell) -> None:
    run, _ = trained
    storage = ("--storage", str(tmp_path))
    assert "has no entries" in typed(capsys, "submission", "log", *storage)
    if not run.predictions_dir.is_dir():
        typed(capsys, "best", str(run.path), "--predict", "--json")
    upload = Path(shutil.copy(run.predictions_dir / "test" / "prediction.txt.zip", tmp_path / "upload.zip"))
    arguments = ("submission", "log", "add", str(upload), "--run", str(run.path), *storage)
    added = json.loads(typed(capsys, *arguments, "--json"))
    best = json.loads((run.best_dir / "model.json").read_text())
    assert (added["run"], added["trial"], added["epoch"], added["new"]) == ("sweep", 0, best["epoch"], True)
    assert "entered already" in typed(capsys, *arguments)
    typed(capsys, "submission", "log", "score", added["sha256"][:6], "0.8097", *storage)
    assert "0.8097 *" in typed(capsys, "submission", "log", *storage)
    listed = json.loads(typed(capsys, "submission", "log", "--json", *storage))
    assert [entry["score"] for entry in listed] == [0.8097]
    assert "must be a share from 0 to 1" in told(capsys, "submission", "log", "score", "abcd", "81", *storage)
    assert "give --storage one" in told(capsys, "submission", "log", "--storage", "s3://bucket/runs")
