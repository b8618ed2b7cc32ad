"""Following a submitted sweep to its end, even over a connection that comes and goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fashion.errors import ClusterError, printable
from fashion.submit.job_log import Follower

PATIENCE = 60.0  # seconds for which a lost connection is tried again
RETRY_SECONDS = 2.0
QUIET_SECONDS = 1.0  # without a line after which all that happened before has been read
TOLD_SECONDS = 5.0  # between two messages on how much of it has been read
LOOK_SECONDS = 15.0  # without a line after which the server is asked whether it is still there
STALE_SECONDS = 600.0  # without a line after which the log is opened anew: a router may have forgotten the connection


class ConnectionLostError(ClusterError):
    """The job server does not answer now; it may again."""


@dataclass(frozen=True)
class Job:
    """A submitted sweep. id: Ray's name for it, which is the sweep's name, with a number from the second time on.

    status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED. code: the exit code of the command on the head, None while
    it runs and where Ray does not know it. message: Ray's account."""

    id: str
    sweep: str
    command: str
    status: str
    code: int | None = None
    message: str = ""
    began: float = 0.0

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def exit_code(self) -> int:
        """The exit code that `run` would have had here; 137 and the like where it was killed, as a shell reports it."""
        if self.status == "STOPPED":
            return 130
        if self.code is None:
            return 0 if self.status == "SUCCEEDED" else 1
        return self.code if self.code >= 0 else 128 - self.code


class Server(Protocol):
    """The part of `submit.JobServer` that following needs."""

    def job(self, identity: str) -> Job: ...

    def lines(self, identity: str) -> Iterator[str | None]: ...


def follow(server: Server, job: Job, follower: Follower, say: Callable[[str], None], patience: float = PATIENCE) -> Job:
    """Pass the job's log to the follower until the job has ended. Returns the job as it ended. `say` is told of a
    connection that was lost.

    Raises ClusterError after `patience` seconds without one. The sweep goes on meanwhile.
    """
    reading = _Reading(server, job, follower, say)
    again = False  # the log is read once more after the job has ended
    while True:
        try:
            reading.read_log()
            job = reading.look()
            # Ray looks for new lines and then whether the job has ended: what comes in between, it does not send.
            if job.ended and (again or (follower.done and job.exit_code == 0)):
                return job
            if job.ended:
                again = True
                continue
        except ConnectionLostError as error:
            reading.lose_connection(error, patience)
        time.sleep(RETRY_SECONDS)


class _Reading:
    """How far a job's log has been read, across connections that come and go.

    The log is read from its beginning with each connection; only lines that are new are passed on.
    """

    def __init__(self, server: Server, job: Job, follower: Follower, say: Callable[[str], None]) -> None:
        self.server, self.job, self.follower, self.say = server, job, follower, say
        self.seen = 0  # lines passed on
        self.lost: float | None = None  # when the connection went
        self.patient_until = time.monotonic() + TOLD_SECONDS

    def look(self) -> Job:
        """Ask the server how the job is."""
        self.job = self.server.job(self.job.id)
        return self.job

    def read_log(self) -> None:
        """Read the log over one connection, until it ends or has been silent for so long that it is opened anew."""
        number, heard, looked = 0, time.monotonic(), time.monotonic()
        for line in self.server.lines(self.job.id):
            moment = time.monotonic()
            if line is not None:
                heard, number = moment, number + 1
                self._line(number, line, moment)
                continue
            if moment - heard > QUIET_SECONDS:
                self.follower.caught_up()
            if moment - looked > LOOK_SECONDS:
                self.look()
                looked = moment
                if moment - heard > (LOOK_SECONDS if self.job.ended else STALE_SECONDS):
                    return

    def _line(self, number: int, line: str, moment: float) -> None:
        if self.lost is not None:
            self.say("the connection is back")
            self.lost = None
        if self.follower.behind and moment > self.patient_until:
            self.say(f"reading what happened so far: {number} lines")
            self.patient_until = moment + TOLD_SECONDS
        if number > self.seen:
            self.seen = number
            self.follower.line(line)

    def lose_connection(self, error: ConnectionLostError, patience: float) -> None:
        """Say once that the connection is lost. Raises ClusterError when it has been for `patience` seconds."""
        if self.lost is None:
            self.lost = time.monotonic()
            self.say(f"the connection is lost, trying again for {patience:.0f} s; the sweep goes on ({error})")
        if time.monotonic() - self.lost > patience:
            raise ClusterError(f"no connection for {patience:.0f} s; the sweep goes on ({error})") from error


def account(job: Job, place: str) -> str:
    """How the sweep ended, in words; what its command printed has been shown before."""
    on = f" Recorded in {place}." if place else ""
    if job.status == "STOPPED":
        return f"{job.sweep} was stopped.{on} The same submit goes on from there."
    if job.status == "SUCCEEDED":
        return f"{job.sweep} is done.{on}"
    if job.code is None:
        return f"{job.sweep}: its job failed on the cluster: {printable(job.message.strip())}"
    if job.code < 0:
        again = "The same submit goes on from there."
        return f"{job.sweep}: its driver on the head was killed by signal {-job.code}.{on} {again}"
    return f"{job.sweep} ended on the cluster with exit code {job.code}.{on}"
