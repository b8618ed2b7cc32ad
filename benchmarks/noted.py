"""The real `fashion-sweep`, in a process that notes what its trials cost.

    python -m benchmarks.noted NOTES ARGUMENTS-OF-FASHION-SWEEP...

Four functions are wrapped and nothing else is changed. `begun` and `left` are when a trial's function began and had
unwound in its Tune process; `reported` how long the loop of a trial of one worker stood still for a report, `answered`
how long the driver took to answer one; `started` is when the driver handed a trial out, with the driver's own processor
time (seconds, all its threads, no other process) and its resident memory (bytes) until then; `ended` the same at the
end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fashion.engine.driver
import fashion.engine.tune_trial
from benchmarks.child import note
from fashion.cli import main as command_line
from fashion.engine.messages import Reported, TrialMessage
from fashion.engine.tune_trial import Courier, run_trial
from fashion.sweep.recorder import Recorder
from fashion.training.task import SharedInputs

report_to_tune = fashion.engine.tune_trial._send
hand_over = Courier.send


def noting_trial(folder: Path) -> Callable[..., None]:
    def noted(config: dict[str, Any], shared: SharedInputs) -> None:
        note(folder, event="begun", number=config["number"])
        setattr(fashion.engine.tune_trial, "_send", timing(folder, "answered", report_to_tune))  # noqa: B010
        setattr(Courier, "send", timing(folder, "reported", hand_over))  # noqa: B010
        try:
            run_trial(config, shared)
        finally:
            note(folder, event="left", number=config["number"])

    return noted


def timing(folder: Path, event: str, send: Callable[..., None]) -> Callable[..., None]:
    """`send`, whose last argument is a message, with a note of how long it took to send a report."""

    def noted(*arguments: Any) -> None:
        started = time.perf_counter()
        send(*arguments)  # Tune's does not return in a trial that is stopped
        message: TrialMessage = arguments[-1]
        if isinstance(message, Reported):
            note(folder, event=event, number=message.report.trial, seconds=time.perf_counter() - started)

    return noted


def noting_start(folder: Path) -> Callable[[Recorder, int], None]:
    started = Recorder.started

    def noted(self: Recorder, number: int) -> None:
        note(folder, event="started", number=number, cpu=time.process_time(), memory=resident())
        started(self, number)

    return noted


def resident() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_resident() -> int:
    """The most memory that this process had resident so far, in bytes, as the kernel knows it."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    folder = Path(sys.argv[1])
    setattr(fashion.engine.driver, "run_trial", noting_trial(folder))  # noqa: B010 (mypy: not the same type)
    setattr(Recorder, "started", noting_start(folder))  # noqa: B010
    try:
        command_line.main(sys.argv[2:])
    finally:
        note(folder, event="ended", cpu=time.process_time(), memory=resident(), peak=most_resident())


if __name__ == "__main__":
    main()
