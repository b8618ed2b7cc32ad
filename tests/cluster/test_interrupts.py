"""Ctrl-C, SIGTERM and SIGHUP end whatever the command does, and leave nothing half done."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.cluster import interrupts
from fashion.cluster.interrupts import caused_by_interrupt, deferred, first_asks, hangups_blocked, interruptible
from fashion.data.cache.entries import entries
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack


@pytest.fixture(autouse=True)
def no_burst(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test is the first to be interrupted, and leaves the handlers that it found."""
    monkeypatch.setattr(interrupts, "_last", float("-inf"))
    before = {number: signal.getsignal(number) for number in interrupts.ASKING}
    yield
    assert before == {number: signal.getsignal(number) for number in interrupts.ASKING}


@pytest.mark.parametrize("number", interrupts.ASKING, ids=lambda number: number.name)
def test_each_signal_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)


def test_what_is_ignored_stays_ignored() -> None:
    """As `nohup` leaves it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(), first_asks() as asked, deferred():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", interrupts.ASKING, ids=lambda number: number.name)
def test_a_signal_while_python_ends_changes_no_exit_code(number: signal.Signals) -> None:
    code = "from fashion.cluster.interrupts import nothing_left; import os, signal, time; "
    code += f"signal.signal({number.value}, signal.SIG_DFL); nothing_left(7); "  # `&` in a script leaves SIGINT ignored
    code += f"os.kill(os.getpid(), {number.value}); time.sleep(30)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 7


def test_a_terminal_that_goes_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shell and kernel both say so, and a service manager sends two signals: the clean-up is not interrupted."""
    cleaned = False
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        cleaned = True
        monkeypatch.setattr(interrupts, "BURST_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):  # later it is a request of its own
            signal.raise_signal(signal.SIGTERM)
    assert cleaned


def test_each_ctrl_c_counts() -> None:
    with interruptible():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


def test_the_first_asks_and_the_second_interrupts() -> None:
    with first_asks() as asked:
        assert not asked.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert asked.is_set()
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_deferred_signal_comes_after_the_block() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), interruptible():  # noqa: PT012 (what is raised comes from a handler)
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            done = True
        raise AssertionError("it comes at the end of the block")
    assert done


def test_a_deferred_signal_outlives_an_error_of_the_block() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible(), deferred():  # noqa: PT012 (what is raised comes from a handler)
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("Ray did not start, since it heard the signal, too")


def test_a_second_ctrl_c_interrupts_a_deferred_block() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), interruptible(), deferred():  # noqa: PT012 (what is raised comes from a handler)
        signal.raise_signal(signal.SIGINT)
        reached = True
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")
    assert reached


def test_in_a_thread_nothing_is_installed() -> None:
    found: list[object] = []

    def body() -> None:
        with interruptible(), first_asks(), deferred():
            found.extend(signal.getsignal(number) for number in interrupts.ASKING)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(number) for number in interrupts.ASKING]


def test_hangups_wait_while_children_are_started() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():  # noqa: PT012 (what is raised comes from a handler)
        with hangups_blocked():
            assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            signal.raise_signal(signal.SIGHUP)
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_library_may_replace_an_interrupt() -> None:
    with pytest.raises(ImportError) as found:  # noqa: PT012
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None
    assert caused_by_interrupt(found.value)
    assert not caused_by_interrupt(ImportError("no module"))


def test_a_cache_that_was_being_built_is_no_cache_and_is_gone_on_with(demo_root: Path, tmp_path: Path) -> None:
    dataset = read_dataset(demo_root)

    def progress(done: int, total: int) -> None:
        assert list(tmp_path.glob(".*.tmp"))
        if done == 10:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), interruptible():
        Pack.open_or_build(dataset, "train", 16, cache_dir=tmp_path, progress=progress)
    assert not list(tmp_path.glob("*.arrow"))
    (entry,) = entries(tmp_path)
    assert not entry.whole
    assert not entry.in_use
    pack = Pack.open_or_build(dataset, "train", 16, cache_dir=tmp_path)
    assert len(Pack.open(pack.path, verify=True)) == len(dataset.splits["train"])
    kept = {path.name.removeprefix(pack.path.name) for path in tmp_path.iterdir()}
    assert kept == {"", ".lock", ".seal", ".used"}
