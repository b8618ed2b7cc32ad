"""Separate machines as far as the network goes: Linux network namespaces that can be cut off from one another."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pytest

from tests.support.machines.programs import which

CLONE_NEWNET = 0x40000000
IP = which("ip") or "ip"
Answer = TypeVar("Answer")


class Network:
    """Network namespaces 0 to count-1 on one switch, which is in number 0. They all share this machine's disk."""

    def __init__(self, count: int) -> None:
        self.names = [f"fashion-{os.getpid()}-{number}" for number in range(count)]

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or which("ip") is None:
            pytest.skip("network namespaces need root and iproute2")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self._remove()
            pytest.skip(f"network namespaces can't be made here: {' '.join(error.cmd)}: {error.stderr.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def inside(self, number: int) -> list[str]:
        """The words to put before a command that is to run there."""
        return [IP, "netns", "exec", self.names[number]]

    def address(self, number: int) -> str:
        return f"10.77.0.{number + 1}"

    def cut(self, number: int) -> None:
        """Unplug the machine from the switch."""
        _ip("-n", self.names[0], "link", "set", f"port{number}", "down")

    def restore(self, number: int) -> None:
        """Plug it in again."""
        _ip("-n", self.names[0], "link", "set", f"port{number}", "up")

    def _make(self) -> None:
        switch = self.names[0]
        for name in self.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "net0", "type", "bridge")
        _ip("-n", switch, "addr", "add", f"{self.address(0)}/24", "dev", "net0")
        _ip("-n", switch, "link", "set", "net0", "up")
        for number, name in enumerate(self.names[1:], start=1):
            port = f"port{number}"
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "net0", "netns", name)
            _ip("-n", switch, "link", "set", port, "master", "net0", "up")
            _ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "net0")
            _ip("-n", name, "link", "set", "net0", "up")

    def _remove(self) -> None:
        there = subprocess.run([IP, "netns", "list"], capture_output=True, text=True).stdout.split()
        for name in self.names:
            if name in there:
                _ip("netns", "del", name)


def enter(name: str) -> None:
    """Take this thread, and those it will start, into the namespace for good."""
    with Path("/run/netns", name).open() as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def within(name: str, call: Callable[[], Answer]) -> Answer:
    """Call it in the namespace, in a new thread: a namespace belongs to a thread, not to a process."""
    with ThreadPoolExecutor(1, initializer=enter, initargs=(name,)) as thread:
        return thread.submit(call).result()


def _ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True, text=True)
