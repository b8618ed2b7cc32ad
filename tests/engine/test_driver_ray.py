"""The real command on a real Ray: a sweep, its record, and what a kill, a Ctrl-C or an impossible request leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fashion.data.layout import read_dataset
from fashion.record import ranking
from fashion.record.run import Run
from fashion.record.scheduler import replay
from fashion.schedulers.registry import make_scheduler
from fashion.spec.sweep_spec import SweepSpec
from tests.support.machines.descendants import descendants
from tests.support.machines.shared_ray import SharedRay
from tests.support.running import PATIENCE, fashion, start, wait_for_reports

pytestmark = pytest.mark.ray


def spec(root: Path, **sections: Any) -> str:
    content: dict[str, dict[str, Any]] = {
        "data": {"root": str(root), "resize": 36, "crop": 32},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": {"choice": [3, 6]}, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]}},
        "search": {"trials": 4},
    }
    return json.dumps({key: {**content.get(key, {}), **sections.get(key, {})} for key in {**content, **sections}})


ONE = {"concurrent_trials": 1}  # where one process is enough: each takes seconds to start


def epochs(run: Run) -> list[tuple[int, int]]:
    return [(report.trial, report.epoch) for report, _ in run.history]


def losses(run: Run) -> dict[tuple[int, int], float]:
    return {(report.trial, report.epoch): report.metrics["val_loss"] for report, _ in run.history}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, demo_root: Path, shared_ray: SharedRay) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "s.yaml").write_text(spec(demo_root, scheduler={"name": "asha", "grace": 0.3}))
    done = fashion(folder, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 0, done
    return folder


@pytest.mark.xdist_group("shared-ray")
def test_the_record_is_complete_and_its_decisions_can_be_recomputed(finished: Path) -> None:
    run = Run.open(finished / "runs" / "s")
    assert all(trial.final and trial.status != "failed" for trial in run.trials.values())
    assert len(run.trials) == 4
    recorded = SweepSpec.from_json(run.manifest["spec"])
    assert replay(make_scheduler(recorded.scheduler), run.history) == []
    for trial in run.trials.values():
        assert trial.config == recorded.trial(trial.number).model_dump(mode="json")
        best = trial.best()
        assert best is not None
        names = {path.name for path in run.trial_dir(trial.number).iterdir()}
        assert {f"best-{best.epoch:04d}.safetensors", f"val-{best.epoch:04d}.parquet"} <= names
        assert len([name for name in names if name.startswith("best-")]) == 1
        assert "last.pt" not in names
    assert not (run.path / ".ray").exists()


@pytest.mark.xdist_group("shared-ray")
def test_the_same_command_again_repeats_nothing(finished: Path, shared_ray: SharedRay) -> None:
    before = (finished / "runs" / "s" / "journal.jsonl").read_bytes()
    done = fashion(finished, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 0
    assert "4 of 4 trials are final, 0 to do" in done.stdout
    assert (finished / "runs" / "s" / "journal.jsonl").read_bytes() == before


@pytest.mark.xdist_group("shared-ray")
def test_the_promoted_model_predicts_what_was_recorded(finished: Path, shared_ray: SharedRay) -> None:
    done = fashion(finished, "best", "s", "--predict", "--split", "val", "--json", **shared_ray.joining)
    assert done.returncode == 0, done
    run = Run.open(finished / "runs" / "s")
    winner = ranking.best(run)
    found = json.loads(done.stdout)
    assert found["predictions"]["accuracy"] == pytest.approx(winner.metrics["val_accuracy"], abs=1e-12)
    recorded = pq.read_table(run.trial_dir(winner.trial) / f"val-{winner.epoch:04d}.parquet")
    predicted = pq.read_table(run.predictions_dir / "val" / "probabilities.parquet")
    assert predicted["image"].to_pylist() == recorded["image"].to_pylist()
    for name in recorded.column_names[1:]:
        np.testing.assert_allclose(predicted[name].to_pylist(), recorded[name].to_pylist(), atol=1e-6)
    text = (run.predictions_dir / "val" / "prediction.txt").read_text().splitlines()
    assert len(text) == recorded.num_rows


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray-3")
def test_a_probe_is_promoted_as_a_whole_model(tmp_path: Path, demo_root: Path, shared_ray: SharedRay) -> None:
    """Heads trained on cached features predict, together with their backbone, what was recorded."""
    (tmp_path / "s.yaml").write_text(
        spec(demo_root, data={"flip": 0.5, "eval_flip": True}, model={"feature_norm": "batch"},
             train={"mode": "probe", "epochs": 4, "lr": {"loguniform": [0.005, 0.05]}}, resources=ONE)
    )  # fmt: skip
    done = fashion(tmp_path, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 0, done
    run = Run.open(tmp_path / "runs" / "s")
    winner = ranking.best(run)
    done = fashion(tmp_path, "best", "s", "--predict", "--split", "val", "--json", **shared_ray.joining)
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["predictions"]["accuracy"] == pytest.approx(winner.metrics["val_accuracy"], abs=1e-12)
    # The promoted folder alone is enough.
    for backbone in run.path.glob("trials/backbone-*"):
        backbone.unlink()
    assert fashion(tmp_path, "best", "s", **shared_ray.joining).returncode == 2  # ... but it can't be promoted anew
    assert (run.best_dir / "model.safetensors").exists()


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray-3")
def test_the_last_trial_takes_the_idle_cores_where_it_may(
    tmp_path: Path, demo_root: Path, shared_ray: SharedRay
) -> None:
    (tmp_path / "e.yaml").write_text(
        spec(demo_root, train={"epochs": {"choice": [12, 80]}, "lr": 0.001}, search={"method": "grid", "trials": 2},
             scheduler={"name": "fifo"}, resources={"elastic": True})
    )  # fmt: skip
    done = fashion(tmp_path, "run", "e.yaml", **shared_ray.joining)
    assert done.returncode == 0, done
    short, long = (trial.reports for trial in Run.open(tmp_path / "runs" / "e").trials.values())
    threads = [[str(report.setting).rsplit(", ", 1)[1] for report in reports] for reports in (short, long)]
    assert threads[0] == ["1 thread"] * 12
    # On a busy machine the long trial's process may come up when the short trial has already ended: `beside` is empty.
    beside = [report for report in long if report.time < short[-1].time]
    assert threads[1][: len(beside)] == ["1 thread"] * len(beside)
    assert threads[1] == sorted(threads[1]), "1 thread as long as the other runs, then 2 threads"
    assert threads[1][-1] == "2 threads"


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray")
def test_a_student_learns_from_what_a_run_has_predicted(
    tmp_path: Path, demo_root: Path, finished: Path, shared_ray: SharedRay
) -> None:
    teacher = str(finished / "runs" / "s")
    (tmp_path / "s.yaml").write_text(
        spec(demo_root, train={"teacher": teacher, "epochs": 2}, search={"trials": 1}, resources=ONE)
    )
    done = fashion(tmp_path, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 2
    assert "train.teacher: the run must have predicted the training images" in done.stderr
    assert not (tmp_path / "runs" / "s").exists()
    assert fashion(finished, "best", "s", "--predict", "--split", "train").returncode == 0
    done = fashion(tmp_path, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 0, done
    run = Run.open(tmp_path / "runs" / "s")
    file = finished / "runs" / "s" / "predictions" / "train" / "probabilities.parquet"
    assert run.manifest["teachers"] == {teacher: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert len(run.trials[0].reports) == 2
    shutil.rmtree(file.parent)
    again = fashion(tmp_path, "run", "s.yaml", "--trials", "+1", **shared_ray.joining)
    assert again.returncode == 2
    assert "must have predicted the training images" in again.stderr


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> tuple[Path, Run]:
    """An undisturbed sweep whose every number is determined: one trial at a time."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "k.yaml").write_text(
        spec(demo_root, train={"epochs": 8}, search={"trials": 2}, scheduler={"name": "fifo"},
             resources={"concurrent_trials": 1})
    )  # fmt: skip
    done = fashion(folder, "run", "k.yaml")
    assert done.returncode == 0, done
    return folder, Run.open(folder / "runs" / "k")


def interrupt_after(folder: Path, reports: int, send: int) -> subprocess.CompletedProcess[str]:
    """Start the sweep in `folder` and send the signal once so many reports are recorded."""
    process = start(folder, "k.yaml")
    wait_for_reports(process, folder / "runs/k/journal.jsonl", lambda found: len(found) >= reports)
    os.kill(process.pid, send)
    out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess("run", process.returncode, out, err)


@pytest.mark.further
@pytest.mark.xdist_group("one-by-one")
@pytest.mark.parametrize(
    "reports", [pytest.param(0, marks=pytest.mark.slow), 3, pytest.param(11, marks=pytest.mark.slow)]
)
def test_killed_sweeps_and_trial_processes_cost_no_epoch(
    one_by_one: tuple[Path, Run], tmp_path: Path, reports: int
) -> None:
    """The whole sweep is killed; then, while the same command goes on, the process of its trial."""
    undisturbed, whole = one_by_one
    (tmp_path / "k.yaml").write_text((undisturbed / "k.yaml").read_text())
    assert interrupt_after(tmp_path, reports, signal.SIGKILL).returncode == -signal.SIGKILL
    process = start(tmp_path, "k.yaml")
    wait_for_reports(process, tmp_path / "runs/k/journal.jsonl", lambda found: len(found) >= reports + 3)
    victim = next(pid for pid, name in descendants(process.pid).items() if name.startswith("ray::ImplicitFunc"))
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in out + err
    run = Run.open(tmp_path / "runs" / "k")
    assert max(report.attempt for report, _ in run.history) >= 2
    assert sorted(epochs(run)) == sorted(set(epochs(run))) == sorted(epochs(whole))
    assert losses(run) == losses(whole)
    assert ranking.best(run).trial == ranking.best(whole).trial


@pytest.mark.further
@pytest.mark.xdist_group("one-by-one")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_sweep_says_how_to_go_on(
    one_by_one: tuple[Path, Run], tmp_path: Path, number: signal.Signals
) -> None:
    undisturbed, whole = one_by_one
    (tmp_path / "k.yaml").write_text((undisturbed / "k.yaml").read_text())
    stopped = interrupt_after(tmp_path, 2, number)
    assert stopped.returncode == 130, stopped
    assert "the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    done = fashion(tmp_path, "run", "k.yaml")
    assert done.returncode == 0, done
    assert losses(Run.open(tmp_path / "runs" / "k")) == losses(whole)


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray")
def test_a_trial_that_diverges_fails_and_the_others_go_on(
    tmp_path: Path, demo_root: Path, shared_ray: SharedRay
) -> None:
    (tmp_path / "s.yaml").write_text(
        spec(demo_root, train={"epochs": 8, "optimizer": "sgd", "lr": {"grid": [100.0, 0.01]}, "weight_decay": 10.0},
             search={"trials": 2}, resources=ONE)
    )  # fmt: skip
    done = fashion(tmp_path, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 0, done
    run = Run.open(tmp_path / "runs" / "s")
    assert [run.trials[n].status for n in (0, 1)] == ["failed", "completed"]
    assert "loss is" in run.trials[0].reason


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray")
def test_a_sweep_in_which_nothing_learns_fails(tmp_path: Path, demo_root: Path, shared_ray: SharedRay) -> None:
    (tmp_path / "s.yaml").write_text(
        spec(demo_root, train={"epochs": 2, "optimizer": "sgd", "lr": 100, "weight_decay": 10, "batch_size": 4},
             search={"trials": 8}, resources=ONE)
    )  # fmt: skip
    done = fashion(tmp_path, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 1, done
    assert "The sweep failed" in done.stderr
    assert "Traceback" not in done.stderr
    run = Run.open(tmp_path / "runs" / "s")
    assert {trial.status for trial in run.trials.values() if trial.final} == {"failed"}
    assert len([trial for trial in run.trials.values() if trial.final]) < 8  # given up, not tried to the end
    assert fashion(tmp_path, "best", "s", **shared_ray.joining).returncode == 2


@pytest.mark.parametrize("resources", [{"gpus_per_worker": 1}, {"cpus_per_worker": 999}])
def test_an_impossible_request_is_refused_before_anything_starts(
    tmp_path: Path, demo_root: Path, resources: dict[str, int]
) -> None:
    import torch

    if torch.cuda.is_available() and "gpus_per_worker" in resources:
        pytest.skip("this machine has a GPU")
    (tmp_path / "s.yaml").write_text(spec(demo_root, resources=resources))
    done = fashion(tmp_path, "run", "s.yaml")
    assert done.returncode == 2
    assert "resources: a trial needs" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray-3")
def test_trials_of_two_workers_share_one_warm_group(tmp_path: Path, demo_root: Path, shared_ray: SharedRay) -> None:
    (tmp_path / "s.yaml").write_text(
        spec(demo_root, search={"trials": 3}, scheduler={"name": "asha", "grace": 0.3}, resources={"workers": 2})
    )
    done = fashion(tmp_path, "run", "s.yaml", **shared_ray.joining)
    assert done.returncode == 0, done
    run = Run.open(tmp_path / "runs" / "s")
    assert [trial.status in ("completed", "stopped") for trial in run.trials.values()] == [True] * 3
    assert len(epochs(run)) == len(set(epochs(run)))
    dataset = read_dataset(demo_root)
    labels = dataset.splits["val"].labels
    assert labels is not None
    winner = ranking.best(run)
    table = pq.read_table(run.trial_dir(winner.trial) / f"val-{winner.epoch:04d}.parquet")
    hits = [
        np.array(table[a.name].to_pylist()).argmax(axis=1) == labels[:, head]
        for head, a in enumerate(dataset.attributes)
    ]
    assert np.mean(hits) == pytest.approx(winner.metrics["val_accuracy"], abs=1e-12)


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray")
def test_optuna_searches_and_goes_on(tmp_path: Path, demo_root: Path, shared_ray: SharedRay) -> None:
    (tmp_path / "s.yaml").write_text(spec(demo_root, search={"method": "optuna", "trials": 2}, resources=ONE))
    assert fashion(tmp_path, "run", "s.yaml", **shared_ray.joining).returncode == 0
    assert fashion(tmp_path, "run", "s.yaml", "--set", "search.trials=4", **shared_ray.joining).returncode == 0
    run = Run.open(tmp_path / "runs" / "s")
    assert len({trial.config["train"]["lr"] for trial in run.trials.values()}) == 4


@pytest.mark.further
@pytest.mark.xdist_group("shared-ray")
def test_a_finished_sweep_is_extended_in_edited_ranges(tmp_path: Path, demo_root: Path, shared_ray: SharedRay) -> None:
    (tmp_path / "s.yaml").write_text(
        spec(demo_root, train={"epochs": 2}, search={"trials": 2}, scheduler={"name": "fifo"}, resources=ONE)
    )
    refused = fashion(tmp_path, "run", "s.yaml", "--trials", "+2", **shared_ray.joining)
    assert refused.returncode == 2
    assert "there is no run" in refused.stderr
    assert not (tmp_path / "runs").exists()
    assert fashion(tmp_path, "run", "s.yaml", **shared_ray.joining).returncode == 0
    before = (tmp_path / "runs/s/journal.jsonl").read_text()
    extended = fashion(tmp_path, "run", "s.yaml", "--trials", "+2", "--set", "train.lr=0.002", **shared_ray.joining)
    assert extended.returncode == 0, extended
    assert "2 of 4 trials are final, 2 to do" in extended.stdout + extended.stderr
    assert (tmp_path / "runs/s/journal.jsonl").read_text().startswith(before)
    run = Run.open(tmp_path / "runs/s")
    assert sorted(epochs(run)) == [(trial, epoch) for trial in range(4) for epoch in (1, 2)]
    assert [run.trials[number].config["train"]["lr"] == 0.002 for number in range(4)] == [False, False, True, True]
    again = fashion(tmp_path, "run", "s.yaml", "--name", "again", "--trials", "3", **shared_ray.joining)
    assert again.returncode == 0, again
    assert again.stdout.count("taken from") == 2 * 2  # told once, and once as the trial's end
    taken = Run.open(tmp_path / "runs/again")
    assert [taken.trials[number].origin for number in range(3)] == [("s", 0), ("s", 1), None]
    assert [losses(taken)[trial, 1] for trial in (0, 1)] == [losses(run)[trial, 1] for trial in (0, 1)]
    fresh = fashion(tmp_path, "run", "s.yaml", "--name", "fresh", "--trials", "1", "--fresh", **shared_ray.joining)
    assert fresh.returncode == 0, fresh
    trained = Run.open(tmp_path / "runs/fresh")
    assert (trained.trials[0].origin, trained.trials[0].attempt) == (None, 1)
    assert losses(trained) == {(0, epoch): losses(run)[0, epoch] for epoch in (1, 2)}
