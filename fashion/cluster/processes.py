"""Ray's own long-running processes on this machine (raylet, autoscaler), found by their command lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Daemon:
    """A process and its command line: `--gcs-address=1.2.3.4:6379` is option("gcs-address")."""

    pid: int
    words: tuple[str, ...]

    def option(self, name: str) -> str:
        """The option's value; empty if it was not given."""
        return next((word.partition("=")[2] for word in self.words if word.startswith(f"--{name}=")), "")

    def alive(self) -> bool:
        """Whether it still runs, with the same command: the number may belong to another process by now."""
        return _words(self.pid) == self.words


def raylets() -> list[Daemon]:
    """One process per Ray node on this machine, with options node_id, node_ip_address, gcs-address, session-name."""
    return [each for each in _daemons() if each.words[0].endswith("/raylet")]


def autoscalers() -> list[Daemon]:
    """One process for each head node on this machine, of either version of the autoscaler.

    Its options are gcs-address, logs-dir and, if it may start nodes, autoscaling-config (a file).
    """
    # python -u …/ray/autoscaler/_private/monitor.py, or v2/monitor.py
    return [
        each
        for each in _daemons()
        if any("/ray/autoscaler/" in word and "monitor.py" in word for word in each.words[:4])
    ]


def _daemons() -> Iterator[Daemon]:
    for folder in PROCESSES.glob("[0-9]*"):
        if words := _words(int(folder.name)):
            yield Daemon(int(folder.name), words)


def _words(pid: int) -> tuple[str, ...]:
    """The process's command line; empty if it has ended or may not be read."""
    try:
        command = (PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(command.decode(errors="replace").split("\0")[:-1])


def mentioned(text: str) -> list[Daemon]:
    """The processes on this machine, but for this one, whose command lines hold the text."""
    return [each for each in _daemons() if each.pid != os.getpid() and any(text in word for word in each.words)]
