"""A sweep exported and read back with each tool's own reader: complete, and again after it has grown."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.trial import FrozenTrial, TrialState

from fashion.api.recorded_run import open_run
from fashion.cli.main import main
from fashion.errors import RunError, UserError
from fashion.export.targets import TARGETS, export
from tests.support.swept import report, swept
from tests.support.typed import told, tree, typed


def study(path: Path, name: str = "lr") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}").trials


def test_tables_have_every_trial_and_every_epoch(tmp_path: Path) -> None:
    run, _ = swept(tmp_path)
    opened = open_run(run.path)
    assert "4 trials, 8 reports" in export(opened, "csv").summary
    export(opened, "parquet", tmp_path / "out")
    with open(run.path / "exports" / "csv" / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed", "stopped", "failed", "interrupted"]
    assert [float(row["train.lr"]) for row in rows] == [trial.config["train"]["lr"] for trial in run.trials.values()]
    assert rows[0]["best_epoch"] == "2"
    table = pq.read_table(tmp_path / "out" / "reports.parquet")
    assert table.column("val_loss").to_pylist()[:4] == [0.9, 0.4, 0.5, 0.6]
    assert math.isnan(table.column("val_loss").to_pylist()[6])


def test_the_study_has_every_trial_with_its_distributions_values_and_state(tmp_path: Path) -> None:
    run, spec = swept(tmp_path)
    done = export(open_run(run.path), "optuna", tmp_path / "s.db")
    assert done.opened_with == f"optuna-dashboard sqlite:///{tmp_path}/s.db"
    trials = study(tmp_path / "s.db")
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in trials] == states
    assert [trial.value for trial in trials] == [0.4, 1.5, None, None]
    assert trials[0].intermediate_values == {1: 0.9, 2: 0.4, 3: 0.5, 4: 0.6}
    assert math.isnan(trials[2].intermediate_values[2])
    assert trials[0].user_attrs["best_epoch"] == 2
    assert trials[0].user_attrs["val_accuracy"] == pytest.approx(0.77)
    for trial in trials:
        config = run.trials[trial.number].config["train"]
        assert trial.params["train.lr"] == config["lr"]
        assert set(trial.params) <= set(spec.space)
        assert ("train.momentum" in str(set(trial.params))) == (config["optimizer"] == "sgd")
    lr = trials[0].distributions["train.lr"]
    assert isinstance(lr, optuna.distributions.FloatDistribution)
    assert (lr.low, lr.high, lr.log) == (0.001, 1.0, True)
    assert trials[0].duration is not None
    assert trials[0].duration.total_seconds() == pytest.approx(31.5)


def test_a_second_export_changes_nothing_and_a_grown_run_adds_what_is_new(tmp_path: Path) -> None:
    run, spec = swept(tmp_path)
    for target in ("csv", "parquet", "optuna"):
        export(open_run(run.path), target)
    before = tree(run.path / "exports")
    for target in ("csv", "parquet", "optuna"):
        export(open_run(run.path), target)
    assert tree(run.path / "exports") == before
    report(run, spec, 4, [0.3, 0.2])
    export(open_run(run.path), "optuna")
    path = run.path / "exports" / "optuna.db"
    first = [trial._trial_id for trial in study(path)]
    assert len(first) == 5
    report(run, spec, 5, [0.7])
    export(open_run(run.path), "optuna")
    assert [trial._trial_id for trial in study(path)][:5] == first, "what was there stays"
    report(run, spec, 3, [0.7, 0.6, 0.55])
    run.record_end(3, "completed")
    export(open_run(run.path), "optuna")
    trials = study(path)
    assert [trial.state for trial in trials][3] == TrialState.COMPLETE
    assert [trial.user_attrs["trial"] for trial in trials] == list(range(6))


def test_a_file_may_hold_several_sweeps_but_not_two_of_one_name(tmp_path: Path) -> None:
    one, _ = swept(tmp_path / "a", "one")
    two, _ = swept(tmp_path / "a", "two")
    other, _ = swept(tmp_path / "b", "one")
    for run in (one, two):
        export(open_run(run.path), "optuna", tmp_path / "s.db")
    assert [len(study(tmp_path / "s.db", name)) for name in ("one", "two")] == [4, 4]
    other.update_manifest(created="later")
    with pytest.raises(RunError, match="holds a study 'one' that is not of this run"):
        export(open_run(other.path), "optuna", tmp_path / "s.db")


def test_a_trial_outside_of_an_edited_space_keeps_its_values_as_attributes(tmp_path: Path) -> None:
    run, _ = swept(tmp_path)
    spec = run.manifest["spec"]
    run.update_manifest(spec={**spec, "train": {**spec["train"], "lr": {"uniform": [5.0, 6.0]}}})
    export(open_run(run.path), "optuna")
    trials = study(run.path / "exports" / "optuna.db")
    assert [trial.params for trial in trials] == [{}] * 4
    assert trials[0].user_attrs["config"]["train"]["lr"] == run.trials[0].config["train"]["lr"]


def test_bad_places_and_missing_packages_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = swept(tmp_path)
    (tmp_path / "file").write_text("no database\n")
    with pytest.raises(UserError, match="must be an SQLite file"):
        export(open_run(run.path), "optuna", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "no database\n"
    for target in ("csv", "optuna"):
        with pytest.raises(UserError, match="Choose another --out"):
            export(open_run(run.path), target, tmp_path / "file" / "below")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match=r"needs the package wandb.*pip install 'fashion-sweep\[wandb\]'"):
        export(open_run(run.path), "wandb")
    assert "Did you mean optuna?" in told(capsys, "export", str(run.path), "--to", "optuma")


def test_the_command_names_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = swept(tmp_path)
    said = typed(capsys, "export", "lr", "--storage", str(tmp_path), "--to", "csv")
    assert said.splitlines() == [
        f"{run.path}/exports/csv/trials.csv", f"{run.path}/exports/csv/reports.csv", "4 trials, 8 reports",
    ]  # fmt: skip
    main(["export", str(run.path), "--to", "parquet", "--json"])
    assert '"summary": "4 trials, 8 reports"' in capsys.readouterr().out


def test_every_form_has_a_writer() -> None:
    import importlib

    for row in TARGETS.values():
        module, _, name = row.writer.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
