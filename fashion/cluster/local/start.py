"""Ray, started on this machine for one command: no more of it than a sweep needs."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private.node import Node
from ray._raylet import (  # type: ignore[attr-defined]
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    METRICS_AGENT_PORT_NAME,
    METRICS_EXPORT_PORT_NAME,
    persist_port,
)

from fashion.cluster.joining import WorkersPath
from fashion.cluster.ray_folder import private_token
from fashion.errors import Problem, ResourcesError

# Bytes of Ray's object store. Trials exchange reports, which are small; by default Ray would take 30 % of the memory,
# and refuse to start where a container's /dev/shm is much smaller than that.
OBJECT_STORE = 256 << 20

START_SECONDS = 180  # that Ray may take to start on this machine; usually it takes a few
# What Ray starts, and what its agents offer, that no sweep uses.
UNUSED_PROCESSES = ("start_monitor", "start_log_monitor", "start_api_server")
UNUSED_PORTS = (DASHBOARD_AGENT_LISTEN_PORT_NAME, METRICS_AGENT_PORT_NAME, METRICS_EXPORT_PORT_NAME)
NOT_IN_USE = -1  # Ray's word for it

PROCESSES = "--num_prestart_python_workers="  # the raylet's option


@dataclass(frozen=True)
class Warm:
    """How many processes for trials are started with Ray, and the modules that each loads before it is needed: that
    takes seconds, in which the command is busy as well."""

    processes: int
    modules: tuple[str, ...]


def start_ray(folder: Path, warm: Warm | None = None) -> None:
    """Start Ray on this machine, with its files in `folder`. warm: the processes that it starts at once for trials.
    Raises ResourcesError where it does not start."""
    os.environ["RAY_TMPDIR"] = str(folder)  # for what Ray's libraries keep beside the session
    detected: float = ray._private.utils.get_num_cpus(override_docker_cpu_warning=True)
    try:
        private_token(folder)
        # Without "local" Ray would join whatever `ray start` has left running here.
        with _starting(warm):
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                _temp_dir=str(folder), object_store_memory=OBJECT_STORE, job_config=WorkersPath(joined=False),
                num_cpus=None if detected >= 1 else 1,  # Ray would round half a CPU, a container's share, to none
                _system_config={
                    "prestart_worker_first_driver": warm is not None,
                    "preload_python_modules": list(warm.modules) if warm is not None else [],
                },
            )  # fmt: skip
    except OSError as error:
        raise ResourcesError(
            Problem(
                str(folder), "Ray could not start with its files there", str(error), "Set RAY_TMPDIR to another folder"
            )
        ) from error


@contextmanager
def _starting(warm: Warm | None) -> Iterator[None]:
    """Inside, Ray starts what a sweep needs, and as patiently as a busy machine asks for.

    It starts neither its autoscaler nor its log monitor nor its web server, each a Python process of its own: nodes
    don't come and go, workers' output is not shown, and nobody looks at a dashboard. The agent that serves one offers
    its minimum: to import what it would be made of takes this process and the agent a second each. The raylet is told
    the ports of its two agents beforehand: else it waits for them to tell, and dies when they take longer than 15 s to
    start (https://github.com/ray-project/ray/issues/65983). And START_SECONDS are waited for the raylet instead of 30.
    Of processes for trials, which would be as many as there are CPUs, it starts those of `warm` alone.
    """
    parameters, starting = ray._private.parameter.RayParams, Node.start_ray_processes
    node_of: Callable[[str, str], Any] = ray._private.services.get_node
    begin: Callable[..., Any] = ray._private.services.start_ray_process
    nodes: list[Node] = []

    def begin_few(command: list[str], *arguments: Any, **options: Any) -> Any:
        few = f"{PROCESSES}{warm.processes if warm is not None else 0}"
        return begin([few if word.startswith(PROCESSES) else word for word in command], *arguments, **options)

    def told(node: Node) -> None:
        nodes.append(node)
        for name in UNUSED_PORTS:
            persist_port(node.get_session_dir_path(), node._node_id, name, NOT_IN_USE)
        starting(node)  # type: ignore[no-untyped-call]

    def wait_for(gcs_address: str, node_id: str) -> Any:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                return node_of(gcs_address, node_id)
            except RuntimeError:  # not there yet
                dead = [name for node in nodes for name, _ in node.dead_processes()]
                if dead or time.monotonic() > end:
                    what = f"Ray's {dead[0]} died" if dead else f"it took longer than {START_SECONDS} s"
                    raise ResourcesError(
                        Problem("Ray", "did not start on this machine", what, "It may be too busy: try again")
                    ) from None
            time.sleep(0.1)

    with replaced(
        *((Node, name, lambda *arguments, **options: None) for name in UNUSED_PROCESSES),
        (Node, "start_ray_processes", told),
        (ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("no dashboard is wanted")),
        (ray._private.parameter, "RayParams", partial(parameters, runtime_env_agent_port=_free_port())),
        (ray._private.services, "get_node", wait_for),
        (ray._private.services, "start_ray_process", begin_few),
    ):
        yield


@contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Inside, each (owner, attribute) has the value that stands third."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _free_port() -> int:
    """A port that nobody uses, above those of Ray's workers and below those that the kernel hands out: one of the
    latter could be taken before Ray's agent listens on it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 20_000 + secrets.randbelow(max(first, 20_001) - 20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
