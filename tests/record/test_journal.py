from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fashion.errors import RunError
from fashion.files import write_atomic
from fashion.record.journal import Journal, read_events, read_journal
from fashion.record.lock import RunLock, driver_alive

WRITER = """
import sys
from fashion.record.journal import Journal
journal = Journal(sys.argv[1])
number = int(sys.argv[2])
while True:
    journal.append({"number": number, "padding": "x" * (number % 700)})
    print(number, flush=True)
    number += 1
"""

HOLDER = """
import sys, time
from fashion.record.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def test_events_come_back_in_order_and_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events: list[dict[str, Any]] = [
        {"number": 1, "text": "two\nlines, ü, \udcff"},
        {"number": 0.1 + 0.2},
        {"number": 3, "nested": {"a": [1]}},
    ]
    with Journal(path) as journal:
        journal.append(events[0])
        journal.append(events[1])
    with Journal(path) as journal:
        assert journal.repaired == ""
        journal.append(events[2])
    assert read_journal(path) == events
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize(
    "last", [b'{"number": 2', b'{"number": 2}', b"{", b"\0\0\0\0", b'\0\0\0\0"x"}\n', b'"no object"\n']
)
def test_half_written_last_line_is_ignored_by_readers_and_cut_by_the_writer(tmp_path: Path, last: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    whole = b'{"number":1}\n'
    path.write_bytes(whole + last)
    assert read_journal(path) == [{"number": 1}]
    assert path.read_bytes() == whole + last, "a reader must not touch the file"
    with Journal(path) as journal:
        assert f"{len(last)} bytes" in journal.repaired
        journal.append({"number": 2})
    assert read_journal(path) == [{"number": 1}, {"number": 2}]


def test_every_cut_leaves_the_whole_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events: list[dict[str, Any]] = [{"n": 1}, {"text": "ä"}, {"deep": {"x": [1, 2]}}]
    with Journal(path) as journal:
        for event in events:
            journal.append(event)
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        Journal(path).close()
        assert read_journal(path) == events[: content[:length].count(b"\n")]
        assert path.read_bytes() == content[: content.rfind(b"\n", 0, length) + 1]


def test_damage_with_lines_after_it_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    damaged = b'{"n":1}\n{"n":2\n{"n":3}\n'
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"journal\.jsonl, byte 8: not a JSON object; got .*n.:2"):
        read_journal(path)
    with pytest.raises(RunError):
        Journal(path)
    assert path.read_bytes() == damaged


def test_missing_and_shrunken_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        read_journal(tmp_path / "none.jsonl")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(RunError, match="shorter"):
        read_events(path, 10)


def test_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        with pytest.raises(ValueError, match="JSON"):
            journal.append({"value": float("nan")})
        journal.append({"value": 1})
    assert read_journal(tmp_path / "journal.jsonl") == [{"value": 1}]


def test_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    write = os.write
    with Journal(path) as journal:
        journal.append({"number": 1})
        room = [5]

        def full(handle: int, data: bytes) -> int:
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(handle, bytes(data)[: room.pop()])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.append({"number": 2})
        monkeypatch.undo()
        journal.append({"number": 3})
    assert read_journal(path) == [{"number": 1}, {"number": 3}]


def test_reader_beside_a_writer_sees_each_event_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    total = 200
    Journal(path).close()

    def write() -> None:
        with Journal(path) as journal:
            for number in range(total):
                journal.append({"number": number, "padding": "x" * (number * 37 % 5000)})

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    offset = polls = 0
    deadline = time.monotonic() + 30
    while len(seen) < total and time.monotonic() < deadline:
        events, offset = read_events(path, offset)
        seen += [event["number"] for event in events]
        polls += 1
    writer.join()
    assert seen == list(range(total))
    assert polls > 1


def test_kill_9_loses_nothing_that_append_returned_from(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    following = 0
    for lines in (1, 17, 60):
        writer = start(WRITER, str(path), str(following))
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.wait()
        numbers = [event["number"] for event in read_journal(path)]
        assert numbers == list(range(len(numbers)))  # those of the writers killed before, too: no gap, no double
        assert acknowledged[-1] <= numbers[-1] <= acknowledged[-1] + 1
        following = len(numbers)


def test_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    assert not driver_alive(tmp_path)
    holder = start(HOLDER, str(tmp_path))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert driver_alive(tmp_path)
    with pytest.raises(RunError, match=f"another sweep is running .*process {holder.pid} on "):
        RunLock(tmp_path).acquire()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not driver_alive(tmp_path)
    with RunLock(tmp_path):
        assert driver_alive(tmp_path)
        assert json.loads((tmp_path / "driver.json").read_bytes())["pid"] == os.getpid()
    assert not driver_alive(tmp_path)
    assert not (tmp_path / "driver.json").exists()


def test_lock_is_taken_although_readers_keep_looking(tmp_path: Path) -> None:
    RunLock(tmp_path).acquire().release()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            driver_alive(tmp_path)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            with RunLock(tmp_path):
                pass
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_write_atomic_replaces_whole_files_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))
