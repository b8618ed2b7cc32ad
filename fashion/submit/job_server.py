"""Ray's job server, on a cluster's head: sweeps are handed to it, followed and stopped through it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from fashion.errors import ClusterError, Problem
from fashion.submit.watch import ConnectionLostError, Job

# Where Ray's dashboard listens on the head, and where `ray dashboard` and tunnels put it on one's own machine.
DEFAULT = "http://127.0.0.1:8265"
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray's own variables, in this order
KNOCK_SECONDS, ANSWER_SECONDS, SUBMIT_SECONDS = 10.0, 10.0, 60.0
TICK_SECONDS = 0.5
# How long a stopped sweep has until Ray kills it: running epochs end, and what was reported is recorded. Ray's 3 s are
# too few.
STOP_SECONDS = 120
# Loggers that report only routine events.
QUIET = ("ray._private.authentication", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
SWEEP = "fashion-sweep"  # the key of a job's metadata that names its sweep


class _Client(JobSubmissionClient):
    """Ray's client, which by itself would wait forever."""

    patience = ANSWER_SECONDS

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": self.patience, **options})


class JobServer:
    """The job server at `address`: HOST:PORT or a URL, default Ray's variables and then this machine's port 8265.

    Raises ClusterError where nobody answers, something else does, the token is wrong or Ray has another version; and
    from any method its subclass ConnectionLostError, where the server has stopped answering."""

    def __init__(self, address: str | None = None) -> None:
        said = address or next((os.environ[name] for name in ADDRESSES if os.environ.get(name)), DEFAULT)
        self.url = _url(said)
        try:
            import aiohttp  # noqa: F401
            import requests  # noqa: F401
        except ImportError as error:
            raise ClusterError(
                f"Ray's job client needs {error.name}, which is not installed. "
                "Its extra has it: pip install '.[cloud]'."
            ) from error
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        _knock(self.url)
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        os.environ[ADDRESSES[0]] = self.url  # Ray's client prefers its variable to what it is given
        with self._answers():
            try:
                self._client = _Client(self.url)
            except (RuntimeError, KeyError, OSError) as error:  # requests' errors are OSErrors
                rule = "what answers there is not Ray's job server"
                fix = (
                    "It is the dashboard's port, 8265, and not the one that `run --address` joins; "
                    "the head needs ray[default]"
                )
                raise ClusterError(Problem(f"--address {self.url}", rule, _first(error), fix)) from error
        there, here = str(self._client._server_ray_version), str(ray.__version__)
        if there.split(".")[:2] != here.split(".")[:2]:
            rule, fix = f"must run Ray {here}, as this machine", "Install the same version here or there"
            raise ClusterError(Problem(f"--address {self.url}", rule, there, fix))
        self._client.patience = SUBMIT_SECONDS

    def jobs(self) -> list[Job]:
        """The sweeps that were ever submitted to this cluster since its Ray was started, the latest first."""
        with self._answers():
            found = [_job(each) for each in self._client.list_jobs() if SWEEP in (each.metadata or {})]
        return sorted(found, key=lambda job: job.began, reverse=True)

    def find(self, run: str | None = None) -> Job:
        """The latest job of a sweep, or the job of that id; without `run` the latest of all. Raises ClusterError."""
        jobs = self.jobs()
        if not jobs:
            rule = "no sweep was submitted since this cluster's Ray was started"
            raise ClusterError(Problem(f"--address {self.url}", rule, fix="Submit it: it goes on where it stopped"))
        for job in jobs:
            if run in (None, job.sweep, job.id):
                return job
        names = ", ".join(dict.fromkeys(job.sweep for job in jobs))
        raise ClusterError(Problem(f"--address {self.url}", "has no such sweep", repr(run), f"There are: {names}"))

    def job(self, identity: str) -> Job:
        """How the job is now."""
        with self._answers():
            return _job(self._client.get_job_info(identity))

    def submit(self, sweep: str, command: str) -> Job:
        """Hand a command to the head, where it runs whatever becomes of this machine.

        Raises ClusterError when a sweep of this name runs there already.
        """
        earlier = [job for job in self.jobs() if job.sweep == sweep]
        if running := [job for job in earlier if not job.ended]:
            raise _taken(sweep, running[0].id)
        # A job's id can't be used again. "~" is in no sweep's name.
        number = max((int(job.id.rpartition("~")[2]) if "~" in job.id else 1 for job in earlier), default=0) + 1
        identity = sweep if number == 1 else f"{sweep}~{number}"
        with self._answers():
            try:
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=identity,
                    runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
                    metadata={SWEEP: sweep, "submitted by version": importlib.metadata.version("fashion-sweep")},
                )
            except RuntimeError as error:
                if "already exists" in str(error):  # submitted twice at once
                    raise _taken(sweep, identity) from error
                raise
            return _job(self._client.get_job_info(identity))

    def stop(self, identity: str) -> None:
        """Ask the job to end, as Ctrl-C would. Returns at once."""
        with self._answers():
            self._client.stop_job(identity)

    def lines(self, identity: str) -> Iterator[str | None]:
        """The job's log from its first line on, without line ends, until the job has ended; None now and then while
        there is nothing new."""
        loop = asyncio.new_event_loop()
        source: Any = self._client.tail_job_logs(identity)
        rest = ""
        waiting: asyncio.Task[str | None] | None = None
        try:
            with self._answers(closing=True):
                while True:
                    waiting = waiting or loop.create_task(_next(source))
                    done, _ = loop.run_until_complete(asyncio.wait({waiting}, timeout=TICK_SECONDS))
                    if not done:
                        yield None
                        continue
                    chunk, waiting = waiting.result(), None
                    if chunk is None:
                        break
                    *lines, rest = (rest + chunk).split("\n")
                    yield from lines
            if rest:
                yield rest
        finally:
            if waiting is not None and not waiting.done():
                waiting.cancel()
                loop.run_until_complete(asyncio.wait({waiting}))
            loop.run_until_complete(source.aclose())
            loop.close()

    @contextmanager
    def _answers(self, closing: bool = False) -> Iterator[None]:
        """Turn what goes wrong inside into a ClusterError. closing: Ray's RuntimeError means a hang-up."""
        import aiohttp

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(f"--address {self.url}: {_token(error)}") from error
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise ClusterError(f"--address {self.url}: {_token(error)}") from error
            raise (
                self._gone(error) if error.status == 404 else ConnectionLostError(f"{self.url}: {error.message}")
            ) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ConnectionLostError(f"{self.url}: {_first(error)}") from error
        except RuntimeError as error:
            if "status code 404" in str(error):
                raise self._gone(error) from error
            if not closing and "status code 5" not in str(error):
                raise
            raise ConnectionLostError(f"{self.url}: {_first(error)}") from error

    def _gone(self, error: BaseException) -> ClusterError:
        rule = "does not know this job any more: its Ray was restarted"
        return ClusterError(Problem(f"--address {self.url}", rule, _first(error), "The same submit goes on"))


async def _next(source: Any) -> str | None:
    return await anext(source, None)


def _taken(sweep: str, identity: str) -> ClusterError:
    return ClusterError(
        f"{sweep} runs on the cluster already, as job {identity}. Follow it: fashion-sweep watch {sweep}; end it: "
        f"fashion-sweep stop {sweep}; or give the new one another name: --name."
    )


def _job(details: JobDetails) -> Job:
    metadata = details.metadata or {}
    return Job(
        str(details.submission_id), metadata.get(SWEEP, ""), details.entrypoint, str(details.status.value),
        details.driver_exit_code, details.message or "", (details.start_time or 0) / 1000,
    )  # fmt: skip


def _url(address: str) -> str:
    """The URL of HOST:PORT, of a URL, or of "auto", which is this machine's own. Raises ClusterError for anything
    else."""
    text = DEFAULT if address == "auto" else address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 443)
    except ValueError:  # a port that is none
        right = False
    if not right:
        rule = "must be HOST:PORT or http://HOST:PORT of the head's job server"
        fix = f"Through a tunnel (`ray dashboard cluster.yaml`) it is {DEFAULT}"
        raise ClusterError(Problem("--address", rule, repr(address), fix))
    return text.rstrip("/")


def _knock(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        socket.create_connection((str(parts.hostname), port), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        fix = "Is the tunnel open (`ray dashboard cluster.yaml`), the cluster up, and ray[default] on its head?"
        raise ClusterError(f"--address {url}: nobody answers there ({error}). {fix}") from error


def _token(error: Exception) -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "token" and "Authentication required" not in str(error):
        found = "the cluster refuses the token"
    else:
        ours = f"RAY_AUTH_MODE is {mode}" if mode not in ("", "token") else "none was found"
        found = f"the cluster asks for a token, and {ours}"
    return f"{found}. Its own belongs into ~/.ray/auth_token, or into a file that RAY_AUTH_TOKEN_PATH names."


def _first(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
