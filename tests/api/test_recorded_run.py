"""A recorded run as tables, and its best epoch: what the record says, typed."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

import fashion
from fashion.api.tables import values_column
from fashion.record import excerpt
from fashion.record.run import Run
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record
from tests.support.servers.s3_server import Server
from tests.support.stored_runs import record_lr


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A run of four trials: completed, stopped, failed, not begun; the best epoch is not the last one."""
    folder = tmp_path / "runs"
    # Without rungs, an excerpt keeps the best and the last report alone.
    spec = {**SPEC, "scheduler": {**SPEC["scheduler"], "name": "fifo"}}
    manifest = {"spec": spec, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(folder, "lr", manifest)
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    record(run, 1, [math.inf, 1.5], "cs")
    record(run, 2, [math.nan])
    run.record_end(2, "failed", "epoch 1: val_loss is nan")
    run.close()
    return folder


def test_a_run_is_opened_as_the_commands_find_it(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_folder = fashion.open_run(storage / "lr")
    assert (by_folder.name, by_folder.location, by_folder.address) == ("lr", str(storage / "lr"), None)
    assert fashion.open_run("lr", storage).location == by_folder.location
    monkeypatch.chdir(storage.parent)
    assert fashion.open_run().name == "lr"
    assert "3 trials recorded" in repr(by_folder)


@pytest.mark.parametrize(("name", "words"), [("lrr", "Did you mean lr?"), ("s3:/lr", "must begin with s3:// or gs://")])
def test_mistakes_are_user_errors_and_print_nothing(
    storage: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(fashion.RunError) as caught:
        fashion.open_run(name, storage)
    assert words in str(caught.value)
    with pytest.raises(fashion.UserError, match=r"holds no such trial; got 9\. Recorded: 0 to 2"):
        fashion.open_run("lr", storage).predictions(9)
    assert capsys.readouterr() == ("", "")


def test_trials_has_one_row_per_trial(storage: Path) -> None:
    table = fashion.open_run("lr", storage).trials()
    assert table.column_names == [
        "trial", "status", "reason", "attempt", "epochs_done", "epochs", "seconds", "best_epoch",
        "val_loss", "val_accuracy", "val_exact_match", "val_accuracy/sleeve", "val_accuracy/fit", "train.lr",
    ]  # fmt: skip
    found = table.to_pydict()
    assert found["trial"] == [0, 1, 2]
    assert found["status"] == ["completed", "stopped", "failed"]
    assert found["reason"][2] == "epoch 1: val_loss is nan"
    assert found["epochs_done"] == [4, 2, 1]
    assert found["epochs"] == [4, 4, 4]
    assert found["seconds"] == [6.0, 3.0, 1.5]
    assert found["best_epoch"] == [2, 2, None]
    assert found["val_loss"] == [0.4, 1.5, None]
    assert found["train.lr"] == pytest.approx([0.01, 0.02, 0.03])
    frame = table.to_pandas()
    assert frame.sort_values("val_loss").iloc[0]["trial"] == 0


def test_reports_has_one_row_per_epoch(storage: Path) -> None:
    table = fashion.open_run("lr", storage).reports()
    found = table.to_pydict()
    assert found["trial"] == [0, 0, 0, 0, 1, 1, 2]
    assert found["epoch"] == [1, 2, 3, 4, 1, 2, 1]
    assert found["decision"] == ["continue"] * 5 + ["stop", "continue"]
    assert found["best"] == [False, True, False, False, False, True, False]
    assert found["val_loss"][:6] == [0.9, 0.4, 0.5, 0.6, math.inf, 1.5]
    assert math.isnan(found["val_loss"][6])
    assert found["time"][0] == datetime(2026, 1, 1, tzinfo=UTC)
    assert table.schema.field("time").type == pa.timestamp("ms", "UTC")


def test_reports_are_complete_where_an_excerpt_left_some_out(storage: Path) -> None:
    whole = fashion.open_run("lr", storage).reports()
    excerpt.save(Run.open(storage / "lr"))
    run = fashion.open_run("lr", storage)
    assert sum(len(trial.reports) for trial in run.record.trials.values()) < whole.num_rows
    seconds = run.trials().column("seconds").to_pylist()
    assert str(run.reports().to_pylist()) == str(whole.to_pylist())  # as text: NaN equals nothing
    assert seconds == run.trials().column("seconds").to_pylist() == [6.0, 3.0, 1.5]


def test_best_and_promote(storage: Path) -> None:
    run = fashion.open_run("lr", storage)
    best = run.best()
    assert (best.trial, best.epoch, best.metrics["val_loss"]) == (0, 2, 0.4)
    assert best.config["train"]["lr"] == pytest.approx(0.01)
    folder = run.promote()
    assert folder == storage / "lr" / "best"
    assert json.loads((folder / "model.json").read_text())["epoch"] == 2


def test_a_trial_is_promoted_by_number(storage: Path) -> None:
    run = fashion.open_run("lr", storage)
    assert run.promoted is None
    run.promote(trial=0, epoch=4)
    assert run.promoted == (0, 4)
    run.promote(trial=1)
    assert run.promoted == (1, 2)
    assert (run.at(1).trial, run.at(1).epoch) == (1, 2)
    (storage / "lr" / "trials" / "0000" / "best-0004.safetensors").unlink()
    with pytest.raises(fashion.RunError, match=r"keeps no weights of epoch 4\. It keeps those of epochs 1, 2, 3"):
        run.promote(trial=0, epoch=4)
    with pytest.raises(fashion.RunError, match="must have reported a finite val_loss"):
        run.promote(trial=2)
    with pytest.raises(fashion.RunError, match="epoch: goes with trial"):
        run.promote(epoch=2)
    assert run.promoted == (1, 2), "a mistake leaves what was promoted"


def test_an_empty_run(tmp_path: Path) -> None:
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    Run.create(tmp_path, "new", manifest).close()
    run = fashion.open_run(tmp_path / "new")
    assert run.trials().num_rows == run.reports().num_rows == 0
    assert "train.lr" in run.trials().column_names
    with pytest.raises(fashion.RunError, match="no trial has reported a finite val_loss"):
        run.best()


def test_a_run_in_a_bucket(s3: Server, machine: Path) -> None:
    record_lr("s3://sweeps")
    run = fashion.open_run("s3://sweeps/lr")
    assert str(run.address) == run.location == "s3://sweeps/lr"
    assert run.trials().column("status").to_pylist() == ["completed", "stopped", "failed"]
    assert fashion.open_run(storage="s3://sweeps").reports().num_rows == 7
    folder = run.promote()
    assert s3.names("sweeps", "lr/best") == [
        f"lr/best/{name}" for name in ("README.md", "model.json", "model.safetensors")
    ]
    assert folder.is_relative_to(machine)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 3], pa.int64(), [1, None, 3]),
        ([1, 0.5], pa.float64(), [1.0, 0.5]),
        ([True, None], pa.bool_(), [True, None]),
        (["sgd", "adam"], pa.string(), ["sgd", "adam"]),
        ([None, None], pa.null(), [None, None]),
        ([2**70, 1], pa.float64(), [2.0**70, 1.0]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([[1], "a"], pa.string(), ["[1]", '"a"']),
    ],
)
def test_a_column_has_room_for_all_its_values(values: list[object], kind: pa.DataType, expected: list[object]) -> None:
    column = values_column(values)
    assert column.type == kind
    assert column.to_pylist() == expected
