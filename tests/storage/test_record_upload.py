"""The record's way into a bucket: what is recorded arrives, whole and once, through outages, kills, other drivers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fashion.bucket.address import Address, parse_address
from fashion.bucket.store import Store
from fashion.errors import StorageError
from fashion.record.run import Run
from fashion.storage import record_upload as mirrors
from fashion.storage.record_upload import Mirror
from fashion.storage.segments import segment_name, segments
from fashion.storage.working_copy import brought, held
from tests.support.servers.s3_server import Server
from tests.support.stored_runs import STORAGE, another_machine, config, create

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def address(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Address:
    monkeypatch.setattr(mirrors, "INTERVAL", 0.05)
    monkeypatch.setattr(mirrors, "LONGEST_PAUSE", 1.0)
    return parse_address(STORAGE) / "run"


def not_written_again(number: int) -> None:
    pytest.fail(f"trial {number} is written again")


@contextmanager
def driving(address: Address, told: list[str], blocked: list[str], away: float = 60.0) -> Iterator[tuple[Run, Mirror]]:
    """A driver's run with its mirror, made or gone on with; `held` comes first, as in the command."""
    with held(STORAGE, address.name, told.append) as bucket:
        assert bucket is not None
        run = Run.open(bucket.path) if bucket.path.exists() else create(address)
        object.__setattr__(bucket, "store", Store(address, patience=1.0))
        with Mirror(bucket, told.append, away) as mirror:
            mirror.start(blocked.append, not_written_again)
            try:
                yield run, mirror
            finally:
                run.close()


def journal_in(address: Address) -> bytes:
    """The journal as a reader puts it together."""
    store, content = Store(address), b""
    for each in segments(store):
        part = store.get(each.name)
        assert each.start <= len(content), "a hole"
        assert content[each.start :] == part[: len(content) - each.start], "two objects contradict each other"
        content += part[len(content) - each.start :]
    return content


def wait(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def size(run: Run) -> int:
    return run.journal_path.stat().st_size


def test_what_is_recorded_arrives_by_itself(address: Address) -> None:
    told: list[str] = []
    with driving(address, told, told) as (run, mirror):
        for number in range(5):
            run.record_trial(number, config(number))
            wait(mirror.settled)
            assert journal_in(address) == run.journal_path.read_bytes()
        assert mirror.flush() == ""
    assert told == []


def test_many_small_objects_become_few_that_grow(
    address: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mirrors, "MERGED", 4)
    monkeypatch.setattr(mirrors, "GROUP", 20_000)
    monkeypatch.setattr(mirrors, "INTERVAL", 0.0)
    store, most = Store(address), 0
    with driving(address, [], []) as (run, mirror):
        run.record_trial(0, config(0))
        for number in range(60):
            run.record_note(0, f"{number}" + "x" * 1000)
            wait(mirror.settled)
            most = max(most, len(segments(store)))
        assert mirror.flush() == ""
        whole = run.journal_path.read_bytes()
    assert journal_in(address) == whole
    found = segments(store)
    assert len(found) < 15
    assert most < 20
    assert max(each.end - each.start for each in found) < 25_000
    another_machine(monkeypatch, tmp_path / "other")
    assert (brought(address).path / "journal.jsonl").read_bytes() == whole
    # Another driver goes on in the same objects.
    with driving(address, [], []) as (run, mirror):
        for number in range(8):
            run.record_note(0, f"again {number}" + "x" * 1000)
            wait(mirror.settled)
        assert mirror.flush() == ""
        assert journal_in(address) == run.journal_path.read_bytes()
    assert len(segments(store)) < 18


def test_a_line_that_is_longer_than_an_object_should_be(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "GROUP", 100)
    with driving(address, [], []) as (run, mirror):
        run.record_trial(0, {**config(0), "model": {"long": "x" * 1000}})
        run.record_trial(1, config(1))
        assert mirror.flush() == ""
        assert journal_in(address) == run.journal_path.read_bytes()


FAULTS: dict[str, Callable[[Any], None]] = {
    "503": lambda f: f.fail(503),
    "403 for a while": lambda f: f.fail(403),
    "expired for a while": lambda f: f.fail(400, "ExpiredToken"),
    "refused": lambda f: f.refuse(),
    "cut within": lambda f: f.cut("within"),
    "cut after": lambda f: f.cut("after"),
}


def healed(faults: Any) -> None:
    faults.heal()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_told_once_and_nothing_is_lost(address: Address, s3: Server, fault: str) -> None:
    told, blocked = list[str](), list[str]()
    with driving(address, told, blocked) as (run, mirror):
        run.record_trial(0, config(0))
        wait(mirror.settled)
        FAULTS[fault](s3.faults)
        for number in range(1, 6):
            began = time.monotonic()
            run.record_trial(number, config(number))
            assert time.monotonic() - began < 1  # the sweep does not wait
            time.sleep(0.5)
        wait(lambda: bool(told))
        assert not mirror.settled()
        s3.faults.heal()
        wait(mirror.settled)
        run.record_trial(6, config(6))
        assert mirror.flush() == ""
        assert journal_in(address) == run.journal_path.read_bytes()
    assert not blocked
    assert len(told) == 2
    assert "The sweep goes on" in told[0]
    assert "s3://sweeps answers again, after" in told[1]


def test_random_faults_for_a_while_lose_and_double_nothing(
    address: Address,
    s3: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirrors, "MERGED", 3)
    dice, faults = random.Random(0), [*FAULTS.values(), healed]
    with driving(address, [], blocked := list[str]()) as (run, mirror):
        run.record_trial(0, config(0))
        for number in range(60):
            dice.choice(faults)(s3.faults)
            run.record_note(0, f"{number} " + "y" * dice.randrange(2000))
            time.sleep(dice.random() * 0.2)
        s3.faults.heal()
        assert mirror.flush() == ""
        assert journal_in(address) == run.journal_path.read_bytes()
    assert not blocked


def test_a_long_outage_stops_the_sweep_which_then_goes_on(address: Address, s3: Server) -> None:
    told, blocked = list[str](), list[str]()
    with driving(address, told, blocked, away=2.0) as (run, mirror):
        run.record_trial(0, config(0))
        wait(mirror.settled)
        s3.faults.refuse()
        run.record_trial(1, config(1))
        wait(lambda: bool(blocked))
        assert "the store does not answer" in blocked[0]
        assert "the same command goes on" in blocked[0]
        lacking = mirror.flush()
        assert "lacks the last" in lacking
        s3.faults.heal()
    with driving(address, told, blocked) as (run, mirror):
        assert sorted(run.trials) == [0, 1]
        assert mirror.flush() == ""
        assert journal_in(address) == run.journal_path.read_bytes()


def test_an_interrupt_abandons_the_upload_and_says_what_lacks(address: Address, s3: Server) -> None:
    told: list[str] = []
    with driving(address, told, []) as (run, mirror):
        run.record_trial(0, config(0))
        wait(mirror.settled)
        s3.faults.fail(503)
        run.record_trial(1, config(1))
        threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        lacking = mirror.flush()
        s3.faults.heal()
    assert lacking.startswith(f"{STORAGE}/run lacks the last ")
    assert "0 reports among them; the same command on this machine" in lacking
    assert any("uploading the record: 0.0 MB left" in each for each in told)
    assert told[-1] == "the upload is abandoned"
    # What it had under way must not arrive in the next test's bucket.
    wait(lambda: not any(thread.name == "mirror" for thread in threading.enumerate()))


def test_of_two_drivers_that_go_on_from_the_same_byte_one_stops(address: Address) -> None:
    """The lease would have stopped it; this is for what it had under way by then."""
    with driving(address, [], blocked := list[str]()) as (run, mirror):
        run.record_trial(0, config(0))
        wait(mirror.settled)
        Store(address).put(segment_name(size(run)), b'{"event":"note","trial":0,"text":"mine"}\n')
        run.record_trial(1, config(1))
        wait(lambda: bool(blocked))
        assert "another process has gone on with the record" in blocked[0]
        assert "lacks the last" in mirror.flush()


def test_a_lost_lease_stops_the_driver(address: Address, s3: Server) -> None:
    with driving(address, [], blocked := list[str]()) as (run, mirror):
        run.record_trial(0, config(0))
        wait(mirror.settled)
        other = {"id": "x", "host": "other", "pid": 7, "started": "then", "released": False}
        s3.write("sweeps", "all/run/lease.json", json.dumps(other).encode())
        wait(lambda: bool(blocked))
        assert "process 7 on other, since then has taken the sweep over" in blocked[0]
        run.record_trial(1, config(1))
        time.sleep(0.3)
        assert len(journal_in(address)) < size(run)


def put(address: Address, *names: str) -> None:
    for name in names:
        Store(address).put(f"trials/{name}", b"x")


def names(s3: Server) -> list[str]:
    return [name.removeprefix("all/run/trials/") for name in s3.names("sweeps", "all/run/trials/")]


def test_what_an_ended_trial_needs_no_more_goes_once_its_end_is_there(address: Address, s3: Server) -> None:
    with driving(address, [], []) as (run, mirror):
        run.record_trial(0, config(0))
        wait(mirror.settled)
        put(address, "0000/last-0002-0123abcd.pt", "0000/best-0001.safetensors", "0000/best-0002.safetensors",
            "0000/val-0002.parquet", "0001/last-0001-0123abcd.pt")  # fmt: skip
        events = run.trial_dir(0) / "tb"
        events.mkdir(parents=True)
        (events / "events.1").write_bytes(b"curve")
        s3.faults.fail(503, only=("PUT",))
        run.record_end(0, "completed")
        mirror.ended(0, 2, size(run))
        time.sleep(1)
        assert "0000/last-0002-0123abcd.pt" in names(s3)  # its end is not there yet
        s3.faults.heal()
        wait(lambda: "0000/tb/events.1" in names(s3))
        assert mirror.flush() == ""
    kept = ["0000/best-0002.safetensors", "0000/tb/events.1", "0000/val-0002.parquet", "0001/last-0001-0123abcd.pt"]
    assert names(s3) == kept


def test_what_a_killed_driver_did_not_clear_is_cleared_by_the_next(address: Address, s3: Server) -> None:
    with driving(address, [], []) as (run, mirror):
        for number in range(3):
            run.record_trial(number, config(number))
            run.record_end(number, "completed")
        assert mirror.flush() == ""
    put(address, "0000/last-0003-0123abcd.pt", "0000/best-0003.safetensors", "0001/best-0003.safetensors",
        "0002/best-0001.safetensors", "0002/best-0003.safetensors", "0001/tb/events.first")  # fmt: skip
    with held(STORAGE, "run", pytest.fail) as bucket:
        assert bucket is not None
        run = Run.open(bucket.path)
        rewritten = []

        def rewrite(number: int) -> None:
            rewritten.append(number)
            events = run.trial_dir(number) / "tb"
            events.mkdir(parents=True)
            (events / "events.new").write_bytes(b"curve")

        with Mirror(bucket, pytest.fail) as mirror:
            for number in range(3):
                mirror.ended(number, 3, run.offset)
            asked = len(s3.requests)
            mirror.start(pytest.fail, rewrite)
            assert mirror.flush() == ""
    assert rewritten == [0, 2]
    tb = {0: "new", 1: "first", 2: "new"}
    assert names(s3) == [
        f"{number:04d}/{name}" for number in range(3) for name in ("best-0003.safetensors", f"tb/events.{tb[number]}")
    ]
    # Trial 1 has what it should have: one list of all trials said so.
    assert not [path for _, path in s3.requests[asked:] if "0001" in path]


def test_event_files_of_an_earlier_driver_give_way(address: Address, s3: Server) -> None:
    put(address, "0000/tb/events.old")
    with driving(address, [], []) as (run, mirror):
        events = run.trial_dir(0) / "tb"
        events.mkdir(parents=True)
        (events / "events.new").write_bytes(b"curve")
        assert mirror.flush() == ""
    assert names(s3) == ["0000/tb/events.new"]


DRIVER = """
import sys, time
from tests.storage.test_record_upload import *
address = parse_address(STORAGE) / "run"
mirrors.INTERVAL, mirrors.MERGED = 0.02, 3
with driving(address, [], []) as (run, mirror):
    if not run.trials: run.record_trial(0, config(0))
    while True:
        run.record_note(0, f"{len(run.trials[0].notes)} " + "z" * 700)
        time.sleep(0.01)
"""


def test_killed_drivers_and_empty_machines_lose_nothing_that_had_arrived(
    address: Address,
    s3: Server,
    tmp_path: Path,
) -> None:
    """Kill -9 at random moments, each time on a machine that has nothing: what was once read is never unread."""
    dice, before = random.Random(1), b""
    for number in range(3):
        env = {
            **os.environ,
            **s3.env,
            "FASHION_CACHE": str(tmp_path / f"m{number}"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=env)
        enough = len(before) + 1000
        wait(lambda enough=enough: len(journal_in_now(address)) > enough, 60)  # type: ignore[misc]
        time.sleep(dice.random())
        driver.kill()
        driver.wait()
        after = journal_in_now(address)
        assert after.startswith(before)
        before = after
    notes = [json.loads(line) for line in before.splitlines()]
    texts = [event["text"].split()[0] for event in notes if event["event"] == "note"]
    assert texts == [str(number) for number in range(len(texts))]


def journal_in_now(address: Address) -> bytes:
    """As `journal_in` while somebody may be merging."""
    try:
        return (brought(address).path / "journal.jsonl").read_bytes()
    except StorageError as error:
        raise AssertionError(str(error)) from error
    except Exception as error:
        if type(error).__name__ == "NoRunError":
            return b""
        raise
