"""The Ray cluster of a sweep: starting or joining one, its nodes, and which of them will be taken away."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray._raylet import (  # type: ignore[attr-defined]
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    METRICS_AGENT_PORT_NAME,
    METRICS_EXPORT_PORT_NAME,
    persist_port,
)

from fashion.cluster.interrupts import deferred, hangups_blocked
from fashion.cluster.joining import WorkersPath, join
from fashion.cluster.ray_folder import private_token, ray_folder
from fashion.errors import Problem, ResourcesError

ENVIRONMENT = {
    # The record is the truth: Tune's own result files would duplicate it, at half the speed.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # So would its snapshots, which hold all trials so far and are taken every 10 s.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # run_sweep handles Ctrl-C.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The reason is in the record, and the terminal belongs to the display.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A stopped trial may still be closing its generator; the default of 2 s would fail the next trial of the slot.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",
    # `Room` decides how many trials are started at once.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # Paths in specs are relative to the folder in which the command was typed.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# Ray's client sets the first where it finds a token, `_join` the second, `_start` the others.
SET_INSIDE = ("RAY_AUTH_MODE", "RAY_gcs_server_port_wait_time_s", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR")

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")

# The record tells of the errors that the first two log: a dead process, a trial that did not end. The third reports
# what is usual.
QUIET = ("ray.tune", "ray.train", "ray._private.authentication")

# Bytes of Ray's object store. Trials exchange reports, which are small; by default Ray would take 30 % of the memory,
# and refuse to start where a container's /dev/shm is much smaller than that.
OBJECT_STORE = 256 << 20

START_SECONDS = 180  # that Ray may take to start on this machine; usually it takes a few
# What Ray starts, and what its agents offer, that no sweep uses.
UNUSED_PROCESSES = ("start_monitor", "start_log_monitor", "start_api_server")
UNUSED_PORTS = (DASHBOARD_AGENT_LISTEN_PORT_NAME, METRICS_AGENT_PORT_NAME, METRICS_EXPORT_PORT_NAME)
NOT_IN_USE = -1  # Ray's word for it

LOOK_SECONDS = 2.0  # between two looks at the cluster's nodes
ANSWER_SECONDS = 2.0  # how long one waits for the GCS, which usually answers in milliseconds

_draining = frozenset[str]()
_asked = -math.inf  # when Ray last said so, by the monotonic clock
_asking: threading.Thread | None = None


@dataclass(frozen=True)
class RayNode:
    """A live node of the cluster. `resources` says how much it offers in all: "CPU", "GPU", ..."""

    id: str
    address: str
    resources: Mapping[str, float]


class RayDied(BaseException):
    """Ray processes that this process started on this machine have ended; the message holds their names.

    It is no Exception, lest Tune take it for a trial's.
    """


def dead_daemons() -> list[str]:
    """Names of the Ray processes that this process started and that have ended; none of a cluster that it joined."""
    node = ray._private.worker._global_node
    return [name for name, _ in node.dead_processes()] if node is not None else []


def alive_nodes() -> list[RayNode]:
    """The nodes of the cluster that this process has joined or started, without those that have died."""
    listed: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [
        RayNode(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in listed() if node["Alive"]
    ]


def leaving(nodes: Collection[str]) -> bool:
    """Whether one of these nodes, given by their ids, was told to drain: it will be taken away and gets no new work.

    The answer may be LOOK_SECONDS old, because trials ask after every epoch, however short, and a notice comes minutes
    ahead. While the GCS does not answer, its last answer holds: Ray's own call would block, on a node that is cut off
    for ever.
    """
    global _asking
    if time.monotonic() - _asked > LOOK_SECONDS and not (_asking and _asking.is_alive()):
        _asking = threading.Thread(target=_ask, daemon=True, name="draining-nodes")
        _asking.start()
        _asking.join(ANSWER_SECONDS)
    return not _draining.isdisjoint(nodes)


def _ask() -> None:
    global _draining, _asked
    _draining, _asked = frozenset(ray._private.state.state.get_draining_nodes()), time.monotonic()


@contextmanager
def cluster(
    address: str | None, note: Callable[[str], None], waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at `address`; leave it at the end of the `with` block.

    note: is told what the user should know. waiting: is told that Ray is being started, and with an empty text that it
    has been; without it, `note` is told the former.

    Somebody who asks the command to end (`fashion.cluster.interrupts`) waits until Ray has started, and until it has
    ended: half of it would stay behind. The variables that Ray needs are set inside only: a notebook's next cell finds
    its own. Raises ResourcesError where no cluster answers at `address`.
    """
    with _environment():
        yield from _session(address, note, waiting or _only(note))


def coming(address: str | None) -> str:
    """What `cluster(address, ...)` does until it is there."""
    address = address or os.environ.get("RAY_ADDRESS")
    return f"joining the Ray cluster at {address}" if address else "starting Ray on this machine"


@contextmanager
def _environment() -> Iterator[None]:
    before = {key: os.environ.get(key) for key in (*ENVIRONMENT, *SET_INSIDE)}
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _only(note: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: note(text) if text else None


def _session(address: str | None, note: Callable[[str], None], waiting: Callable[[str], None]) -> Iterator[None]:
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    waiting(coming(address))
    # In a submitted job this variable of Ray's names the cluster that the job runs on.
    address = address or os.environ.get("RAY_ADDRESS")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        note("RAY_AUTH_MODE is not token: anyone who reaches Ray's ports may run anything here")
    # A cluster that no other machine is to join listens on loopback alone. Ray has this switch for macOS and Windows.
    ray_constants.ENABLE_RAY_CLUSTER = bool(address)
    # The folder outlives Ray, whose processes write there until they end.
    with nullcontext() if address else ray_folder(note) as folder:
        try:
            # Ray prints to stdout why its processes die. Stdout belongs to the display, which holds its own reference
            # to it.
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                with deferred(), hangups_blocked(), _without_handlers():
                    if folder is None:
                        assert address is not None
                        join(address, tuple(ENVIRONMENT))
                    else:
                        _start(folder)
                waiting("")
                yield
        finally:
            with deferred():
                ray.shutdown()


def keep_secrets() -> None:
    """Tune would hand AWS keys to its actors as a runtime environment, which Ray's agent writes to its log. Actors on
    this machine inherit the environment anyway, and the nodes of a cluster have keys of their own."""
    from ray.tune.execution import class_cache  # here, since Ray starts beside other imports

    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)


def _start(folder: Path) -> None:
    """Start Ray on this machine, with its files in `folder`. Raises ResourcesError where it does not start."""
    os.environ["RAY_TMPDIR"] = str(folder)  # for what Ray's libraries keep beside the session
    detected: float = ray._private.utils.get_num_cpus(override_docker_cpu_warning=True)
    try:
        private_token(folder)
        # Without "local" Ray would join whatever `ray start` has left running here.
        with _starting():
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                _temp_dir=str(folder), object_store_memory=OBJECT_STORE, job_config=WorkersPath(joined=False),
                num_cpus=None if detected >= 1 else 1,  # Ray would round half a CPU, a container's share, to none
                _system_config={
                    # Else Ray starts a process for each CPU, which no trial can use: Tune gives trials an environment.
                    "prestart_worker_first_driver": False,
                },
            )  # fmt: skip
    except OSError as error:
        raise ResourcesError(
            Problem(
                str(folder), "Ray could not start with its files there", str(error), "Set RAY_TMPDIR to another folder"
            )
        ) from error


@contextmanager
def _starting() -> Iterator[None]:
    """Inside, Ray starts what a sweep needs, and as patiently as a busy machine asks for.

    It starts neither its autoscaler nor its log monitor nor its web server, each a Python process of its own: nodes
    don't come and go, workers' output is not shown, and nobody looks at a dashboard. The raylet is told the ports of
    its two agents beforehand: else it waits for them to tell, and dies when they take longer than 15 s to start
    (https://github.com/ray-project/ray/issues/65983). And START_SECONDS are waited for the raylet instead of 30.
    """
    parameters, starting = ray._private.parameter.RayParams, Node.start_ray_processes
    node_of: Callable[[str, str], Any] = ray._private.services.get_node
    nodes: list[Node] = []

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

    with _replaced(
        *((Node, name, lambda *arguments, **options: None) for name in UNUSED_PROCESSES),
        (Node, "start_ray_processes", told),
        (ray._private.parameter, "RayParams", partial(parameters, runtime_env_agent_port=_free_port())),
        (ray._private.services, "get_node", wait_for),
    ):
        yield


@contextmanager
def _replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Inside, each (owner, attribute, value) has that value."""
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


def _without_handlers() -> AbstractContextManager[None]:
    """Inside, Ray installs no handler for SIGTERM, which it does in several places: its own would end this process at
    once, and in a thread it could install none."""
    return _replaced((ray._private.utils, "set_sigterm_handler", lambda handler: None))
