"""The real `fashion-sweep run` in a process of its own, and what its record holds meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 400  # seconds for one command on a busy machine


def start(folder: Path, spec: str) -> subprocess.Popen[str]:
    """Run the spec in `folder`, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fashion.cli", "run", spec], cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_reports(
    process: subprocess.Popen[str], journal: Path, enough: Callable[[list[dict[str, Any]]], bool]
) -> None:
    """Wait until `enough` is true of the recorded reports."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        # What follows the last line end is still being written.
        lines = journal.read_text().rpartition("\n")[0].splitlines() if journal.exists() else []
        events = [json.loads(line) for line in lines]
        if enough([event["report"] for event in events if event["event"] == "report"]):
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"the reports never came: {process.communicate()}")
