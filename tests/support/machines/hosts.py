"""Test hosts: separate machines as far as network, processes, users and files go. Each is set up through its sshd.

A host is a set of Linux namespaces on this machine: network (`networks.Network`), mount, PID and host name. Ray finds
one CPU in it. A host has what a cloud's machine image would have: a user `ubuntu` (who is root here), the packages of
this machine's environment (read-only), and stand-ins for programs that cannot do their work in a namespace.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.machines.descendants import descendants
from tests.support.machines.host_image import BOOT, HOME, PACKAGES, PYTHON, SPACE, SSHD, STAGE, STAND_IN
from tests.support.machines.networks import IP, Network
from tests.support.machines.programs import BIN, PATH, which

# Folders that keep their paths on every host, read-only: Python, and this checkout: an editable install points to it.
KEPT = str(Path(__file__).parents[3]), sys.prefix, sys.base_prefix
PATIENCE = 60  # seconds for a host's start or end on a busy machine


class Host:
    """One machine. It boots, is killed, and may boot again with the same address and an empty disk.

    image: the user's home folder as it is after a boot. home: the same folder now.
    """

    def __init__(self, network: Network, number: int, folder: Path, shared: Path, starter: Executor) -> None:
        self.network, self.number, self.folder, self.shared = network, number, folder, shared
        self.starter = starter
        self.image, self.home = folder / "image", folder / "home"
        self.address = network.address(number)
        self.process: subprocess.Popen[bytes] | None = None
        self.lost = False

    def boot(self) -> None:
        """Start it. Returns when its sshd answers."""
        self.starter.submit(self._boot).result()

    def _boot(self) -> None:
        assert self.process is None
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.image, self.home)
        for name in ("sshd.log", "stood_in"):
            (self.folder / name).unlink(missing_ok=True)
        if self.lost:
            self.network.restore(self.number)
            self.lost = False
        # It dies with the thread that started it, and all its processes die with it.
        within = ["setpriv", "--pdeathsig", "KILL", *self.network.inside(self.number)]
        shell = ["sh", "-c", BOOT, "boot", self.folder, self.shared, PACKAGES, BIN]
        with (self.folder / "boot.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*within, *SPACE, *map(str, shell), *KEPT], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while "Server listening" not in self._said("sshd.log"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the host did not start: {self._said('boot.log')}{self._said('sshd.log')}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all its processes at once, without warning."""
        if self.process is None:
            return
        for first in self._first():  # all others die with it; `unshare` returns when they are gone
            os.kill(int(first), signal.SIGKILL)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process = None

    def lose(self) -> None:
        """Take the machine away: none of its processes is told."""
        self.network.cut(self.number)
        self.lost = True
        self.kill()

    @property
    def running(self) -> bool:
        return self.process is not None

    def command(self, command: str, env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that, run here, runs `command` there: in bash, as its user."""
        assert self.process is not None
        inside = ["nsenter", "--target", self._first()[0], "--mount", "--net", "--uts", "--pid", "--"]
        words = {"HOME": HOME, "USER": "ubuntu", "PATH": PATH, "LANG": "C.UTF-8", **(env or {})}
        return [*inside, "env", "-i", *(f"{key}={value}" for key, value in words.items()), "bash", "-c", command]

    def processes(self) -> list[str]:
        """Command lines of the processes there, without sshd and its sessions."""
        assert self.process is not None
        own = ("unshare", "sshd", "/usr/sbin/sshd")
        found = []
        for pid, title in descendants(self.process.pid).items():
            if not title.startswith(own):
                with contextlib.suppress(OSError):  # it ended in the meantime
                    found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip())
        return found

    def left_after(self, seconds: float, but: str = "\0") -> list[str]:
        """Command lines of what still runs there after so many seconds. Those that contain `but` are left out."""
        end = time.monotonic() + seconds
        while (left := [each for each in self.processes() if but not in each]) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def stood_in(self) -> list[str]:
        """The command lines that its stand-ins were called with, in order."""
        return self._said("stood_in").splitlines()

    def _first(self) -> list[str]:
        """The id, on this machine, of the host's process 1; empty when it is gone."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return children.read_text().split() if children.exists() else []

    def _said(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


class Hosts:
    """Hosts 1 to count-1 of a network, not booted yet; number 0 is the switch. All are gone after the `with` block.

    stand_ins: program -> its arguments -> the shell command to run in its place ("true" does nothing).
    env: environment variables of every ssh session. shared: a folder that each host has as `/media/shared`.
    """

    def __init__(
        self, count: int, stand_ins: Mapping[str, Mapping[str, str]], env: Mapping[str, str] | None = None
    ) -> None:
        self.network = Network(count)
        self.stand_ins, self.env = stand_ins, dict(env or {})
        self.stack = ExitStack()
        self.hosts: dict[int, Host] = {}

    def __getitem__(self, number: int) -> Host:
        return self.hosts[number]

    def __enter__(self) -> Self:
        missing = [name for name in ("sshd", "ssh", "rsync", "unshare", "nsenter") if which(name) is None]
        if missing:
            pytest.skip(f"test hosts need {', '.join(missing)} (Debian: openssh-server, rsync, util-linux)")
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fashion-hosts-")))
            stack.enter_context(self.network)
            self._probe()
            self.starter = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(self._kill_all)
            self.shared = self.folder / "shared"
            self.shared.mkdir()
            _key(self.folder / "key")
            for number, name in enumerate(self.network.names[1:], start=1):
                # Ray takes the address of the default route for the machine's own.
                subprocess.run([IP, "-n", name, "route", "add", "default", "via", self.network.address(0)], check=True)
                self.hosts[number] = self._lay_out(number)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def _kill_all(self) -> None:
        for host in self.hosts.values():
            host.kill()

    def _probe(self) -> None:
        trial = [*SPACE, "mount", "-t", "tmpfs", "none", STAGE]
        done = subprocess.run([*self.network.inside(0), *trial], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mount and PID namespaces can't be made here: {done.stderr.strip()}")

    def _lay_out(self, number: int) -> Host:
        folder = self.folder / f"host{number}"
        for name in ("image/.ssh", "bin"):
            (folder / name).mkdir(parents=True, mode=0o700)
        for name in (".profile", ".bashrc"):
            shutil.copy(f"/etc/skel/{name}", folder / "image")
        shutil.copy(self.folder / "key.pub", folder / "image/.ssh/authorized_keys")
        _key(folder / "host_key")
        own, address = f"host{number}", self.network.address(number)
        (folder / "hostname").write_text(own)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {own}\n")
        for name, line in (("passwd", f"ubuntu:x:0:0::{HOME}:/bin/bash"), ("group", "ubuntu:x:0:")):
            (folder / name).write_text(f"{line}\n{Path('/etc', name).read_text()}")
        words = " ".join(shlex.quote(f"{key}={value}") for key, value in self.env.items())
        (folder / "sshd_config").write_text(SSHD + (f"SetEnv {words}\n" if words else ""))
        programs = {"sudo": '#!/bin/sh\nexec "$@"\n', "python3": PYTHON}
        for name, cases in self.stand_ins.items():
            lines = [f"{shlex.quote(f'{name} {words}')}) {then}; exit ;;" for words, then in cases.items()]
            programs[name] = STAND_IN.format(name=name, stage=STAGE, cases="\n".join(lines))
        for name, text in programs.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        return Host(self.network, number, folder, self.shared, self.starter)


def run_within(
    host: Host, command: str, seconds: float, cwd: Path | str = HOME, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command on the host, to its end. After so many seconds it is killed there."""
    limited = f"timeout --signal=INT --kill-after=20 {seconds:.0f} bash -c {shlex.quote(command)}"
    there = f"cd {shlex.quote(str(cwd))} && exec {limited}"
    return subprocess.run(
        host.command(there, env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=seconds + PATIENCE,
    )  # fmt: skip


def _key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, stdin=subprocess.DEVNULL
    )
