"""The actor between a Tune slot and its Train worker group, which keeps the current trial and passes messages on.

It outlives the workers and their controller, so that a group that is made anew finds its trial there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import ray
import torch.distributed as dist
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train import UserCallback

from fashion.engine.deaths import machine_went
from fashion.engine.messages import Alive, Began, Broken, End, Failed, Noted, Reported, WorkerMessage
from fashion.schedulers.base import Decision
from fashion.training.task import Task

KNOWN_SECONDS = 90.0  # after which Ray knows of any machine that is gone; with Ray's own settings that takes 65 s
LOOK_SECONDS = 0.5
QUIET_SECONDS = 2.0  # of waiting for Ray's word before the user is told

Member = tuple[str, str]  # a worker's actor and its node, by their ids


@dataclass(frozen=True)
class Delivery:
    """A message for the slot. ticket: what the decision on a report is answered under."""

    message: WorkerMessage
    ticket: int


@ray.remote
class Mailbox:
    """Between a slot and its workers: the current trial goes down, messages come up, decisions on reports go back."""

    def __init__(self, max_failures: int, max_preemptions: int = 0) -> None:
        self.max_failures, self.max_preemptions = max_failures, max_preemptions
        self.number = 0
        self.task: Task | None = None
        self.handed_out = (
            0  # how often the trial was handed out, except after the loss of a machine or a lack of memory
        )
        self.lost = 0
        self.excused = ""  # the group whose end is not the trial's fault
        self.group, self.members = "", list[Member]()
        self.changed = asyncio.Condition()
        self.messages: asyncio.Queue[Delivery] = asyncio.Queue()
        self.answers: dict[int, asyncio.Future[Decision]] = {}
        self.tickets = 0

    async def submit(self, task: Task) -> None:
        async with self.changed:
            while not self.messages.empty():
                self.messages.get_nowait()
            self.number, self.task, self.handed_out, self.lost = self.number + 1, task, 0, 0
            self.changed.notify_all()

    async def next_task(self, done: int, group: str, members: list[Member]) -> tuple[int, Task | None]:
        """The current trial, as soon as there is one that this group has not done; None for a group that was
        replaced."""
        async with self.changed:
            # Groups come one after another. The call of one that died while it waited here goes on, and must not count.
            self.group, self.members = group, members
            self.changed.notify_all()
            while True:
                await self.changed.wait_for(
                    lambda: self.group != group or (self.task is not None and self.number > done)
                )
                if self.group != group:
                    return done, None
                self.handed_out += 1
                if self.handed_out > self.max_failures + 1:
                    self._put(Failed(f"its workers died {self.handed_out - 1} times"))
                elif self.lost > self.max_preemptions:
                    self._put(Failed(f"its workers' machines were lost {self.lost} times"))
                else:
                    return self.number, self.task
                self.task = None

    async def dismiss(self) -> tuple[int, list[Member]]:
        """The current trial's number and the workers of the current group, which has ended. Asked again: no workers."""
        members, self.members = self.members, []
        return self.number, members

    async def lost_machine(self) -> None:
        """The current group ended because one of its machines was preempted, drained or lost."""
        if self.task is not None and self.excused != self.group:
            self.lost += 1
        self._excuse()

    async def smaller(self, number: int, told: str) -> None:
        """The current trial ran out of memory and will be handed out again, to take smaller micro-batches."""
        if number == self.number and self.task is not None and self.excused != self.group:
            self._put(Noted(told))
            self._excuse()

    def _excuse(self) -> None:
        if self.task is not None and self.excused != self.group:
            self.excused = self.group
            self.handed_out -= 1

    async def end(self, number: int, message: End) -> None:
        """The current trial has ended. When several workers say so, the first one counts."""
        if number == self.number and self.task is not None:
            self.task = None
            self._put(message)

    async def moves(self, number: int) -> None:
        """The group leaves a node that will be taken away. Handing the trial out again does not count as a failure."""
        if number == self.number:
            self._excuse()

    async def broken(self, reason: str) -> None:
        self._put(Broken(reason))

    async def tell(self, number: int, message: Began | Noted | Alive) -> None:
        """Pass on what needs no answer."""
        if number == self.number and self.task is not None:
            self._put(message)

    async def report(self, number: int, message: Reported) -> Decision:
        """Deliver a report and wait for the decision on it."""
        if number != self.number or self.task is None:
            return "stop"
        ticket = self._put(message)
        self.answers[ticket] = asyncio.get_running_loop().create_future()
        decision = await self.answers[ticket]
        del self.answers[ticket]
        if decision == "stop":
            self.task = None
        return decision

    async def take(self) -> Delivery:
        """The next message for the slot."""
        return await self.messages.get()

    async def answer(self, ticket: int, decision: Decision) -> None:
        future = self.answers.get(ticket)
        if future is not None and not future.done():
            future.set_result(decision)

    def _put(self, message: WorkerMessage) -> int:
        self.tickets += 1
        self.messages.put_nowait(Delivery(message, self.tickets))
        return self.tickets


class TellMailbox(UserCallback):
    """Runs in the Train controller. Tells the mailbox when workers were lost with their machine, which is not the
    trial's fault."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        causes = [getattr(error, "health_check_failure", error) for error in worker_exceptions.values()]
        number, members = ray.get(self.mailbox.dismiss.remote())
        if any(map(_names_machine, causes)) or (
            all(map(_names_nothing, causes)) and self._machine_lost(number, members)
        ):
            ray.get(self.mailbox.lost_machine.remote())

    def _machine_lost(self, number: int, members: list[Member]) -> bool:
        """Whether the machine of one of these workers is gone. Waits for Ray's word: Ray knows at once that a process
        died, but that a machine did only after some silence, and the connections of other workers break sooner."""
        began, told = time.monotonic(), False
        while time.monotonic() - began < KNOWN_SECONDS:
            # In this order: Ray gives up a lost node first, its actors then.
            dead = any(ray._private.state.actors(actor).get("State") == "DEAD" for actor, _ in members)
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if any(node not in alive for _, node in members):
                return True
            if dead or not members:
                return False
            if not told and time.monotonic() - began > QUIET_SECONDS:
                told = True
                until = f"{KNOWN_SECONDS:.0f} s for word whether its machine is gone"
                text = f"a worker does not answer: waiting up to {until}"
                ray.get(self.mailbox.tell.remote(number, Noted(text)))
            time.sleep(LOOK_SECONDS)
        return False


def lost_neighbour(error: Exception) -> bool:
    """Whether a collective operation failed because another worker is gone. Gloo raises a plain RuntimeError."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def _names_machine(error: Exception) -> bool:
    return machine_went(type(error).__name__, str(error), isinstance(error, RayActorError) and error.preempted)


def _names_nothing(error: Exception) -> bool:
    """Whether the error says that a worker is gone without saying why."""
    return lost_neighbour(error) or isinstance(error, ActorUnavailableError)
