"""Ray nodes on this machine, behind a token. Each is a real `ray start` that can be killed alone."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.machines.descendants import descendants
from tests.support.machines.programs import BIN

RAY = BIN / "ray"
PATIENCE = 120  # seconds for one node's start or end on a busy machine
# A node that does not answer is declared dead after about 10 s instead of 65.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


# Prints what jobs that have ended still reserve in a cluster, once that has been released or 10 s have passed.
LEFT = """
import logging, sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
for _ in range(100):
    groups = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
    free, whole = ray.available_resources().get("CPU", 0), ray.cluster_resources().get("CPU", 0)
    if not groups and free == whole:
        break
    time.sleep(0.1)
print(len(groups), "placement groups,", whole - free, "CPU")
"""


def launch(folder: Path, *options: str, env: Mapping[str, str], within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start `fashion-sweep run s.yaml` in `folder`, in a new session and with `env` as its whole environment. `within`
    is a command to start it under."""
    return subprocess.Popen(
        [*within, sys.executable, "-m", "fashion", "run", "s.yaml", *options], cwd=folder, env=env, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


class Node:
    """One `ray start --block` and all processes below it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def processes(self, title: str = "") -> list[int]:
        """Its processes whose titles begin so ("ray::ImplicitFunc": a trial, "ray::RayTrainWorker": a worker)."""
        return [pid for pid, name in descendants(self.process.pid).items() if name.startswith(title)]

    @property
    def id(self) -> str:
        for pid in self.processes():
            for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                if word.startswith("--node_id="):
                    return word.partition("=")[2]
        raise AssertionError("the node has no raylet")

    def kill(self) -> None:
        """Kill all its processes at once, without warning, as when a machine loses power."""
        processes = [self.process.pid, *self.processes()]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # so that none can report another's death
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.process.wait(PATIENCE)


class Nodes:
    """A cluster whose head has no CPU to train on. All its processes and files are gone after the `with` block.

    env: the environment that a process needs to join it. address: the head's, HOST:PORT.
    """

    def __init__(self, folder: Path, *options: str, within: Sequence[str] = ()) -> None:
        # Ray keeps its sockets there, and the path of a socket must be short.
        self.temporary = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.env = {**os.environ, **IMPATIENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.env["RAY_worker_niceness"] = "0"  # with Ray's 15, trials would hardly move beside the other tests
        self.env["PYTHONPATH"] = str(Path(__file__).parents[3])
        self.nodes: list[Node] = []
        self.port, self.address = free_port(), ""
        self.options, self.within = options, within

    def __enter__(self) -> Self:
        said = self._start(
            ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false", *self.options], self.within
        )
        found = re.search(r"Local node IP: (\S+)", said)
        assert found, said
        self.address = f"{found[1]}:{self.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in reversed(self.nodes):
            node.kill()
        # Processes that outlived their `ray start`: the raylet of a drained node ends by itself and leaves some behind.
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.temporary) in place.read_text():
                    os.kill(int(place.parent.name), signal.SIGKILL)
        shutil.rmtree(self.temporary)

    def add(self, *options: str, cpus: int = 1, within: Sequence[str] = ()) -> Node:
        """Start another node. `within` is a command to start it under."""
        self._start([f"--address={self.address}", f"--num-cpus={cpus}", *options], within)
        return self.nodes[-1]

    def _start(self, options: Sequence[str], within: Sequence[str]) -> str:
        """Start a node, on a busy machine at the third try: Ray's raylet dies when its agents take longer than 15 s."""
        for _ in range(3):
            said = self._try(options, within)
            if "Ray runtime started" in said:
                return said
            self.nodes.pop().kill()
        raise AssertionError(f"the node did not start: {said}")

    def _try(self, options: Sequence[str], within: Sequence[str]) -> str:
        process = subprocess.Popen(
            [*within, str(RAY), "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000",
             f"--temp-dir={self.temporary}", *options],
            env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.nodes.append(Node(process))
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += re.sub(r"\x1b\[[0-9;]*m", "", line)  # Ray colours its words where its optional parts are installed
            if "Ray runtime started" in line:
                break
        return said

    def left(self) -> str:
        """What jobs that have ended still reserve."""
        done = subprocess.run(
            [sys.executable, "-c", LEFT, self.address], env=self.env, text=True, capture_output=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done
        return done.stdout.strip()

    def drain(self, node: Node, seconds: int) -> None:
        """Give the node the notice that a spot machine gets before it is taken away."""
        subprocess.run(
            [str(RAY), "drain-node", f"--address={self.address}", f"--node-id={node.id}",
             "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test",
             f"--deadline-remaining-seconds={seconds}"],
            env=self.env, check=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip


def free_port() -> int:
    """A free port, above those of Ray's workers and below those that the kernel hands out: one of the latter could be
    taken by another process before it is listened on."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 20000 + secrets.randbelow(min(first, 32768) - 20000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def wait_until(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)
