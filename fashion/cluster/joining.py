"""Joining a Ray cluster that runs: which one answers, whether it lets us in, and what its workers import."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Collection, Sequence

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import AuthenticationError
from ray.job_config import JobConfig

from fashion.cluster.code_path import folders_for_workers
from fashion.errors import ResourcesError

KNOCK_SECONDS = 10.0


class WorkersPath(JobConfig):
    """Keeps the script's folder and the current folder, which Ray adds, out of the workers' `sys.path`."""

    def __init__(self, joined: bool) -> None:
        self._folders = folders_for_workers(joined)
        super().__init__()

    @property
    def _py_driver_sys_path(self) -> list[str]:
        return list(self._folders)

    @_py_driver_sys_path.setter
    def _py_driver_sys_path(self, value: list[str]) -> None:
        """Set by Ray's constructor."""


def _knock(address: str) -> None:
    """Find out in seconds what takes Ray's own client a minute.

    Raises ConnectionError where nobody answers at HOST:PORT, and ResourcesError where this machine runs no node of a
    cluster, which a driver needs beside it.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", or something that Ray itself refuses
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(str(error)) from error
    node_ids: Callable[[], Collection[str]] = ray._private.services.find_node_ids
    if not node_ids():
        raise ResourcesError(
            f"--address {address}: this machine is no node of a Ray cluster, and a sweep's driver must run on one. "
            "Run the command on the head (docs/cluster.md), or let this machine join first: "
            f"ray start --address={address} --num-cpus=0 --num-gpus=0."
        )


def join(address: str, environment: Sequence[str]) -> None:
    """Join the cluster at `address`, HOST:PORT or auto. environment: this process's variables that its workers get.

    Raises ResourcesError where that can't be done.
    """
    # By default Ray tries twenty times, a second apart, even where it was refused.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "2")
    try:
        _knock(address)
        # If there is a token, it is shown. A cluster that asks for none does not mind.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        # Workers of a cluster that is already running don't inherit this process's environment.
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, job_config=WorkersPath(joined=True),
            runtime_env={"env_vars": {key: os.environ[key] for key in environment}},
        )  # fmt: skip
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        raise ResourcesError(
            f"--address {address}: its versions differ from those here. {' '.join(str(error).split())}. "
            "Install the cluster's."
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
            why = f"RAY_AUTH_MODE is {mode}" if mode else "none was found"
            found = f"the Ray cluster there asks for a token, and {why}"
        raise ResourcesError(
            f"--address {address}: {found}. Put the cluster's token into ~/.ray/auth_token, or into a file that "
            "RAY_AUTH_TOKEN_PATH names."
        ) from error
