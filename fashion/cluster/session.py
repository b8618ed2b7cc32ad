"""The Ray cluster of a sweep: starting or joining one, its nodes, and which of them will be taken away."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants

from fashion.cluster.interrupts import deferred, hangups_blocked
from fashion.cluster.joining import join
from fashion.cluster.local.start import Warm, replaced, start_ray
from fashion.cluster.ray_folder import ray_folder

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
    # The command's own. With Ray's 15, a process as busy beside it leaves a trial a thirtieth of a core.
    "RAY_worker_niceness": "0",
    # As `fashion.cli.main.share_cores` sets it for the command itself.
    "GOMP_SPINCOUNT": "3000",
}

# Ray's client sets the first where it finds a token, `_join` the second, `_start` the others.
SET_INSIDE = ("RAY_AUTH_MODE", "RAY_gcs_server_port_wait_time_s", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR")

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")

# The record tells of the errors that the first two log: a dead process, a trial that did not end. The third reports
# what is usual.
QUIET = ("ray.tune", "ray.train", "ray._private.authentication")

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
    address: str | None,
    note: Callable[[str], None],
    waiting: Callable[[str], None] | None = None,
    warm: Warm | None = None,
) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at `address`; leave it at the end of the `with` block.

    note: is told what the user should know. waiting: is told that Ray is being started, and with an empty text that it
    has been; without it, `note` is told the former. warm: what processes load as soon as Ray has started here; those of
    a cluster are started when they are needed.

    Somebody who asks the command to end (`fashion.cluster.interrupts`) waits until Ray has started, and until it has
    ended: half of it would stay behind. The variables that Ray needs are set inside only: a notebook's next cell finds
    its own. Raises ResourcesError where no cluster answers at `address`.
    """
    with _environment():
        yield from _session(address, note, waiting or _only(note), warm)


def coming(address: str | None) -> str:
    """What `cluster(address, ...)` does until it is there."""
    address = joins(address)
    return f"joining the Ray cluster at {address}" if address else "starting Ray on this machine"


def joins(address: str | None) -> str | None:
    """The address of the cluster that `cluster(address, ...)` joins; None where it starts Ray on this machine."""
    return address or os.environ.get("RAY_ADDRESS") or None  # in a submitted job Ray sets it to the job's cluster


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


def _session(
    address: str | None, note: Callable[[str], None], waiting: Callable[[str], None], warm: Warm | None
) -> Iterator[None]:
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    waiting(coming(address))
    address = joins(address)
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
                        start_ray(folder, warm)
                waiting("")
                yield
        finally:
            with deferred():
                ray.shutdown()


def _without_handlers() -> AbstractContextManager[None]:
    """Inside, Ray installs no handler for SIGTERM, which it does in several places: its own would end this process at
    once, and in a thread it could install none."""
    return replaced((ray._private.utils, "set_sigterm_handler", lambda handler: None))
