"""Processes of a real sweep are killed, and its record is compared with that of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from fashion.record.run import Run
from fashion.record.trial_files import LAST, PREVIOUS
from fashion.training.checkpoint import load_last
from tests.support.machines.descendants import descendants
from tests.support.running import (
    PATIENCE,
    assert_same,
    at_least,
    at_work,
    events,
    fashion,
    one_by_one,
    recorded_reports,
    start,
    wait_for_reports,
    wait_until_gone,
)

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("kill")]


def go_on(folder: Path, undisturbed: Path) -> None:
    """Type the same command again; the outcome is that of the undisturbed sweep."""
    done = fashion(folder, "run", "k.yaml")
    assert done.returncode == 0, done
    assert "Traceback" not in done.stdout + done.stderr
    assert_same(folder / "runs/k", undisturbed / "runs/k")


def started_sweep(folder: Path, reports: int) -> tuple[subprocess.Popen[str], dict[int, str]]:
    """The running sweep, with so many reports recorded, and the titles of the processes below it."""
    process = start(folder, "k.yaml")
    wait_for_reports(process, folder / "runs/k/journal.jsonl", lambda found: len(found) >= reports)
    return process, descendants(process.pid)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_driver_killed_at_ten_random_moments(folder: Path, undisturbed: Path) -> None:
    """One sweep, killed ten times: while Ray starts, an epoch trains, or a checkpoint or report is written."""
    draw = random.Random(5)
    journal = folder / "runs/k/journal.jsonl"
    killed, interrupted = 0, 0
    every: set[int] = set()
    for _ in range(10):
        before = len(recorded_reports(journal))
        process = start(folder, "k.yaml")
        if draw.random() < 0.3:
            time.sleep(draw.uniform(0.5, 8.0))  # anywhere from the first import on
        else:
            more = before + draw.randint(1, 2)
            wait_for_reports(process, journal, at_least(min(more, 15)))
            time.sleep(draw.uniform(0.0, 0.3))
        below = descendants(process.pid)
        process.kill()
        process.communicate(timeout=PATIENCE)
        killed += process.returncode == -signal.SIGKILL
        assert wait_until_gone(at_work(below)) == set()
        every |= set(below)
        if journal.exists():
            trials = Run.open(folder / "runs/k").trials.values()
            interrupted += any(trial.reports and not trial.final for trial in trials)
            for trial in trials:
                # What is recorded can be resumed: the checkpoint is not behind the record.
                if trial.reports and not trial.final:
                    place = folder / f"runs/k/trials/{trial.number:04d}"
                    last = place / LAST if (place / LAST).exists() else place / PREVIOUS
                    assert len(load_last(last)["history"]) >= len(trial.reports)
    assert killed >= 8
    assert interrupted >= 3
    go_on(folder, undisturbed)
    attempts = [report.attempt for report, _ in Run.open(folder / "runs/k").history]
    assert wait_until_gone(every) == set()
    assert max(attempts) > 1, "interrupted trials went on from their checkpoints"


@pytest.mark.faults
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_killed_ray_process_is_started_again(folder: Path, undisturbed: Path, victim: str) -> None:
    """The command starts all of Ray on this machine again."""
    process, below = started_sweep(folder, 3)
    (number,) = (pid for pid, title in below.items() if title.endswith(f"/{victim}"))
    os.kill(number, signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert f"Ray's {victim} died" in out
    assert "Traceback" not in out + err
    assert_same(folder / "runs/k", undisturbed / "runs/k")
    assert wait_until_gone(at_work(below)) == set()
    assert {report.attempt for report, _ in Run.open(folder / "runs/k").history} == {1, 2}


@pytest.mark.faults
def test_two_interrupts_end_the_sweep_at_once(folder: Path, undisturbed: Path) -> None:
    """As a terminal sends them: to every process of the session."""
    process, below = started_sweep(folder, 3)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (130, -signal.SIGINT), (out, err)
    assert wait_until_gone(at_work(below)) == set()
    go_on(folder, undisturbed)


@pytest.mark.faults
def test_a_terminals_interrupt_ends_the_sweep_cleanly(folder: Path, undisturbed: Path) -> None:
    process, below = started_sweep(folder, 5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, (out, err)
    assert "the same command goes on" in err
    assert "Traceback" not in out + err
    assert wait_until_gone(below) == set()
    left = {path.name for path in (folder / "runs/k").iterdir()}
    assert left == {"manifest.json", "journal.jsonl", "lock", "tb", "trials", "val-labels.parquet"}
    recorded = len(events(folder / "runs/k"))
    go_on(folder, undisturbed)
    assert len(events(folder / "runs/k")) > recorded


@pytest.mark.parametrize("moment", ["while Ray starts", pytest.param("after a report", marks=pytest.mark.faults)])
def test_a_signal_while_ray_starts_and_one_after_a_report(
    folder: Path, undisturbed: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM from a batch system, SIGHUP from a terminal that is closed: nothing of Ray's stays either."""
    temporary = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(temporary))
    below: dict[int, str] = {}
    if moment == "after a report":
        process, below = started_sweep(folder, 1)
        os.killpg(process.pid, signal.SIGHUP)
    else:
        process = start(folder, "k.yaml")
        while not any(title.endswith("/gcs_server") for title in below.values()):
            assert process.poll() is None
            time.sleep(0.05)
            below = descendants(process.pid)
        process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in out + err
    assert wait_until_gone(at_work(below)) == set()
    run = folder / "runs/k"  # not yet there, when Ray is quick
    left = {path.name for path in run.iterdir()} if run.exists() else set()
    assert left <= {"manifest.json", "journal.jsonl", "lock", "tb", "trials", "val-labels.parquet"}
    assert list(temporary.iterdir()) == []
    go_on(folder, undisturbed)
    temporary.rmdir()


@pytest.mark.faults
def test_a_process_that_dies_too_often_fails_its_trial_alone(tmp_path: Path, demo_root: Path) -> None:
    (tmp_path / "k.yaml").write_text(
        one_by_one(demo_root, epochs=4, resources={"concurrent_trials": 1, "max_failures": 1})
    )
    process = start(tmp_path, "k.yaml")
    journal = tmp_path / "runs/k/journal.jsonl"
    for attempt in (1, 2):
        wait_for_reports(process, journal, at_least(attempt))
        victim = next(pid for pid, name in descendants(process.pid).items() if name.startswith("ray::ImplicitFunc"))
        os.kill(victim, signal.SIGKILL)
        assert wait_until_gone([victim]) == set()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    run = Run.open(tmp_path / "runs/k")
    assert run.trials[0].status == "failed"
    assert run.trials[0].reason.startswith("its process died 2 times: ")
    assert run.trials[1].status == "completed"
    assert (run.trials[0].attempt, run.trials[1].attempt) == (2, 1)
