"""A sweep of another process of this machine: followed through its journal, told apart, and stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fashion.cli.main import main
from fashion.display.progress import Bars
from fashion.errors import RunError
from fashion.record.lock import RunLock
from fashion.record.run import Run
from fashion.submit import local
from fashion.submit.local import Driver, driver_of, drives, follow_driver, interrupt
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record
from tests.support.typed import typed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOOK_SECONDS", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run with a completed trial, and one that an earlier command left unfinished."""
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    made = Run.create(tmp_path / "runs", "lr", manifest)
    record(made, 0, [0.9, 0.8, 0.7, 0.6])
    made.record_end(0, "completed")
    record(made, 1, [0.95])
    yield made
    made.close()


def driving(run: Run, work: Callable[[], None]) -> threading.Thread:
    """A driver that takes the run's lock, works once somebody may look, and gives the lock up."""
    taken = threading.Event()

    def drive() -> None:
        with RunLock(run.path):
            taken.set()
            work()

    thread = threading.Thread(target=drive)
    thread.start()
    assert taken.wait(10)
    return thread


def once_followed(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set when somebody follows the run."""
    followed = threading.Event()

    def looked(path: Path, driver: Driver) -> bool:
        driven = drives(path, driver)
        followed.set()
        return driven

    monkeypatch.setattr(local, "drives", looked)
    return followed


def finish(run: Run, after: threading.Event) -> None:
    assert after.wait(10)
    record(run, 1, [0.95, 0.9, 0.85, 0.5])
    run.record_note(1, "its process died")
    run.record_end(1, "completed")
    for number in (2, 3):
        record(run, number, [1.5], "s")
        run.record_end(number, "stopped", "val_loss at epoch 1 of 4")


def test_a_sweep_is_followed_to_its_end(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = once_followed(monkeypatch)
    thread = driving(run, lambda: finish(run, followed))
    driver = driver_of(run.path)
    assert driver is not None
    assert (driver.pid, driver.host) == (os.getpid(), os.uname().nodename)
    seen = follow_driver(run.path, driver, "runs/lr", "json", Bars())
    thread.join()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events[:2]] == ["start", "start"], "what was there before is told first"
    reports = [(event["trial"], event["epoch"]) for event in events if event["event"] == "report"]
    assert reports == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (3, 1)]
    assert {"event": "note", "text": "trial 1: its process died"}.items() <= next(
        event for event in events if event["event"] == "note"
    ).items()
    assert (events[-1]["event"], events[-1]["best_trial"], events[-1]["completed"]) == ("done", 1, 2)
    assert len(seen.history) == 10


def test_only_trials_of_this_driver_are_running(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, seen = threading.Event(), once_followed(monkeypatch)

    def work() -> None:
        run.record_trial(2, {"train": {"epochs": 4, "lr": 0.03}})
        run.record_attempt(2)
        go.set()
        seen.wait(10)

    thread = driving(run, work)
    assert go.wait(10)
    driver = driver_of(run.path)
    assert driver is not None
    follow_driver(run.path, driver, "runs/lr", "plain", Bars())
    thread.join()
    started = [line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "start"]
    assert [line.split()[2] for line in started] == ["trial=2"], "trial 1 was left by an earlier command"


def test_nobody_drives_it(run: Run) -> None:
    assert driver_of(run.path) is None
    (run.path / "driver.json").write_text('{"pid": 1, "host": "gone", "started": "2026-01-01T00:00:00"}')
    assert driver_of(run.path) is None, "the lock alone counts"
    with pytest.raises(RunError, match="no process drives this run"):
        interrupt(run.path)


def test_another_driver_of_the_same_run_is_another(run: Run) -> None:
    with RunLock(run.path):
        mine = driver_of(run.path)
        assert mine is not None
        assert drives(run.path, mine)
        assert not drives(run.path, Driver(mine.pid, mine.host, "2026-01-01T00:00:00.000+00:00"))
    assert not drives(run.path, mine)


def test_stopping_is_what_ctrl_c_does(run: Run) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with RunLock(run.path):
            interrupt(run.path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_a_process_that_ignores_ctrl_c_gets_sigterm(run: Run) -> None:
    heard: list[int] = []
    before = (
        signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number)),
    )
    try:
        with RunLock(run.path):
            interrupt(run.path)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"host": "elsewhere"}, "drives this run. Stop it there"), ({"pid": 1}, "can't be reached from here")],
)
def test_a_process_out_of_reach_is_not_signalled(run: Run, changes: dict[str, object], words: str) -> None:
    with RunLock(run.path):
        holder = json.loads((run.path / "driver.json").read_text())
        (run.path / "driver.json").write_text(json.dumps({**holder, **changes}))
        with pytest.raises(RunError, match=words):
            interrupt(run.path)


def test_watch_finds_what_runs_here(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = once_followed(monkeypatch)
    thread = driving(run, lambda: finish(run, followed))
    text = typed(capsys, "watch", "--storage", str(run.path.parent), "--plain")
    thread.join()
    assert "done" in text
    assert f"lr is done. Recorded in {run.path}." in text


def test_stop_waits_until_it_has_ended(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    # The driver is this very process, whose own command Ctrl-C would end.
    told: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        told.append((pid, number))
        if number:
            asked.set()

    monkeypatch.setattr("fashion.submit.local.os.kill", kill)
    thread = driving(run, lambda: print(asked.wait(10)))
    text = typed(capsys, "stop", "lr", "--storage", str(run.path.parent))
    thread.join()
    assert (os.getpid(), signal.SIGINT) in told
    assert f"{run.path} has ended: 1 of 4 trials are final. The same run goes on from there." in text


def test_without_a_cluster_a_run_that_has_ended_is_told_about(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fashion.errors import ClusterError

    class Nobody:
        def __init__(self, address: str | None) -> None:
            raise ClusterError("nobody answers there")

    job_server = type(sys)("fashion.submit.job_server")
    job_server.JobServer, job_server.STOP_SECONDS = Nobody, 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fashion.submit.job_server", job_server)
    storage = str(run.path.parent)
    with pytest.raises(SystemExit) as caught:
        main(["watch", "lr", "--storage", storage])
    assert caught.value.code == 130, "two trials are to be done"
    captured = capsys.readouterr()
    assert "best  trial 0, epoch 4 of 4" in captured.out
    assert "No process drives" in captured.err
    assert "1 of 4 trials are final" in typed(capsys, "stop", "lr", "--storage", storage)
    for arguments in (["watch"], ["watch", "other"], ["stop", "other"], ["watch", "lr", "--address", "h:1"]):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--storage", storage])
        assert caught.value.code == 2
        assert "nobody answers there" in capsys.readouterr().err


def test_the_display_is_left_as_it_is_when_watching_ends_early(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with RunLock(run.path):
        driver = driver_of(run.path)
        assert driver is not None

        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("fashion.submit.local.time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            follow_driver(run.path, driver, "runs/lr", "plain", Bars())
        assert drives(run.path, driver), "the sweep goes on"
