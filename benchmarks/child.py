"""Contenders in processes of their own: what they cost, what they note, and which cores they may use (Linux)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHOWN = 3000  # characters of a failed process's output
LONGEST = 2 * 3600  # seconds of a process
LOOK_SECONDS = 0.02  # how often its memory is looked at


@dataclass(frozen=True)
class Ended:
    """What a process came to: wall time in seconds, start of the interpreter included, and peak memory in bytes."""

    seconds: float
    peak: int


def python(*arguments: str, **environment: str) -> Ended:
    """Run this Python with `arguments` from the project's folder to its end.

    Raises RuntimeError with the end of what it printed when it fails.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )  # fmt: skip
        peak = Peak(process.pid)
        try:
            with deadline(process), peak:
                process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}\n{output.read()[-SHOWN:]}")
    return Ended(seconds, peak.bytes)


class Peak:
    """Follows a process's peak of resident memory, in bytes. (The kernel's own figure, ru_maxrss, is never below what
    the process that started it held.)"""

    def __init__(self, pid: int) -> None:
        self.place, self.bytes, self.ended = Path(f"/proc/{pid}/status"), 0, threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _follow(self) -> None:
        while not self.ended.wait(LOOK_SECONDS):
            try:
                lines = self.place.read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                return  # it has ended
            found = [line for line in lines if line.startswith("VmHWM:")]  # none: it has ended and waits to be reaped
            self.bytes = max([self.bytes, *(int(line.split()[1]) * 1024 for line in found)])


@contextmanager
def deadline(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill the process if it is not done in time, so that one that hangs is a failure and not a lost night."""
    timer = threading.Timer(LONGEST, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def module(name: str, arguments: dict[str, Any], folder: Path, **environment: str) -> Ended:
    """Run `python -m benchmarks.NAME FILE`, where FILE holds `arguments` as JSON."""
    place = folder / f"{name}.json"
    place.write_text(json.dumps(arguments))
    return python("-m", f"benchmarks.{name}", str(place), **environment)


def arguments_of() -> dict[str, Any]:
    """The other end of `module`."""
    found: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return found


def note(folder: str | Path, **values: Any) -> None:
    """Add a line with the time (seconds since the epoch) to this process's own file: no writer waits for another."""
    with open(Path(folder) / f"{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps({"time": time.time(), **values}) + "\n")


def notes(folder: str | Path) -> list[dict[str, Any]]:
    """All that was noted, by time."""
    lines = [line for place in Path(folder).glob("*.jsonl") for line in place.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda values: float(values["time"]))


def side_by_side(processes: Sequence[BaseProcess]) -> None:
    """Run the processes at once to their end; SystemExit with the exit code of one that failed."""
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Let processes that are started inside run on the first `count` of this process's cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
