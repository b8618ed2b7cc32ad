"""The Ray cluster of a sweep: started on this machine or joined, and which of its nodes will be taken away."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import AuthenticationError
from ray.tune.execution import class_cache

from fashion.errors import ResourcesError

ENVIRONMENT = {
    # The record is the truth: Tune's own result files would be a second one, at half the speed.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its snapshots too: every 10 s of all trials there ever were, which grows with them.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # Here, Ctrl-C is handled by run_sweep.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The record has the reason, the terminal is the display's.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A stopped trial may still be closing its generator; the default of 2 s would fail the next trial of the slot.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",
    # How many trials are started at once follows from the room on the nodes (`Room`).
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # Paths in specs are relative to where the command was typed.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")

# Loggers whose errors are the record's business: a dead process, a trial that did not end; and one that tells what is usual.
QUIET = ("ray.tune", "ray.train", "ray._private.authentication")

KNOCK_SECONDS = 10.0
LOOK_SECONDS = 2.0  # between two looks at which nodes there are
ANSWER_SECONDS = 2.0  # that the GCS, which takes milliseconds, is given for one


_draining = frozenset[str]()
_asked = -math.inf  # when Ray last said so
_asking: threading.Thread | None = None


class RayDied(BaseException):
    """Ray's own processes on this machine, started by this one, have ended: their names. (No Exception: Tune must not take it
    for a trial's.)"""


def dead_daemons() -> list[str]:
    """Those of Ray's own processes that were started by this one (no cluster's that it joined) and have ended."""
    node = ray._private.worker._global_node
    return [name for name, _ in node.dead_processes()] if node is not None else []


def leaving(nodes: Collection[str]) -> bool:
    """Whether one of these nodes (their ids) was told to drain: it will be taken away, and is given nothing new. As of at
    most LOOK_SECONDS ago: trials ask after every epoch, which may be short, and a notice comes minutes ahead.

    Where the GCS is away, what it said last: Ray's own call would wait for it, on a node that is cut off for ever.
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
def cluster(address: str | None, note: Callable[[str], None]) -> Iterator[None]:
    """Ray, started on this machine or joined at `address`, and left again. A polite kill (SIGTERM) is as Ctrl-C inside.

    Raises ResourcesError when no cluster answers at `address`.
    """
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray's own variable names the cluster that a submitted job runs on.
    address = address or os.environ.get("RAY_ADDRESS")
    note(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        note("RAY_AUTH_MODE is not token: whoever reaches Ray's ports may run anything here")
    # Tune would hand AWS keys to its actors as a runtime environment, which Ray's agent writes to its log. On this machine
    # they inherit the environment anyway; the nodes of a cluster have keys of their own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    # Ray that no other machine is to join listens on loopback alone. (Its switch for the systems where it always does.)
    ray_constants.ENABLE_RAY_CLUSTER = bool(address)
    try:
        # Ray prints to stdout what its processes die of. Stdout is the display's, which holds its own reference.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            if address:
                _join(address)
            else:
                _private_token()
                # "local": without it Ray would join whatever `ray start` left running here.
                ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            signal.signal(signal.SIGTERM, _as_interrupt)  # Ray has put its own in place
            yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Raise, in seconds, what Ray's own client needs a minute for: ConnectionError when nobody answers at HOST:PORT,
    ResourcesError where no node of a cluster runs on this machine, which every driver needs beside it."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", or what Ray itself refuses
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(str(error)) from error
    if not ray._private.services.find_node_ids():
        raise ResourcesError(
            f"--address {address}: this machine is no node of a Ray cluster, and a sweep's driver must run on one. Type the "
            "command on the head (docs/cluster.md), or let this machine join first: "
            f"ray start --address={address} --num-cpus=0 --num-gpus=0."
        )


def _join(address: str) -> None:
    # Its default is to try twenty times, a second apart, also where it was refused.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "2")
    try:
        _knock(address)
        # A token that is there is shown; a cluster that asks for none does not mind.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        # The workers of a cluster that runs already don't inherit this process's environment.
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            runtime_env={"env_vars": {key: os.environ[key] for key in ENVIRONMENT}},
        )  # fmt: skip
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        raise ResourcesError(
            f"--address {address}: other versions than here. {' '.join(str(error).split())}. Install the cluster's own."
        ) from error
    except ValueError as error:
        if "address" not in str(error):
            raise
        raise ResourcesError(f"--address {address}: must be HOST:PORT or auto ({error}).") from error
    except (ConnectionError, AuthenticationError) as error:
        mode = os.environ.get("RAY_AUTH_MODE", "")
        if isinstance(error, AuthenticationError):
            found = "RAY_AUTH_MODE is token, and no token was found"
        elif "InvalidAuthToken" not in str(error.__cause__):
            raise ResourcesError(f"--address {address}: no Ray cluster answers there ({error}).") from error
        elif mode == "token":
            found = "the Ray cluster there refuses the token"
        else:
            found = f"the Ray cluster there asks for a token, and {f'RAY_AUTH_MODE is {mode}' if mode else 'none was found'}"
        raise ResourcesError(
            f"--address {address}: {found}. The cluster's own belongs into ~/.ray/auth_token, or into a file that "
            "RAY_AUTH_TOKEN_PATH names."
        ) from error


def _private_token() -> None:
    """A token for the cluster that starts here. Ray would make one, too, but readable by everybody on the machine, and two
    sweeps that start at once would each overwrite the other's.

    Raises ResourcesError where it can't be written.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        if path.exists():
            path.chmod(0o600)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".auth_token.", dir=path.parent)  # 0600
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another sweep was faster: its token serves both
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise ResourcesError(
            f"{path}: the token that keeps strangers out of the Ray cluster can't be kept there ({error.strerror}). "
            "Set RAY_AUTH_TOKEN_PATH to a file that holds one, readable by you alone."
        ) from error


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
