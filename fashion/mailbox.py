"""What is between a Tune slot and its Train worker group: an actor that keeps the current trial and passes reports on.

It outlives the workers and their controller, so that a group that is made anew finds its trial there.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import UserCallback

from fashion.deaths import machine_went
from fashion.record import EpochReport
from fashion.task import Task


@ray.remote
class Mailbox:
    """Between a slot and its workers: the current trial downwards, reports upwards, verdicts back."""

    def __init__(self, max_failures: int, max_preemptions: int = 0) -> None:
        self.max_failures, self.max_preemptions = max_failures, max_preemptions
        self.number = 0
        self.task: Task | None = None
        self.handed_out = 0  # but for those times that follow the loss of a machine or a lack of memory
        self.lost = 0
        self.excused = ""  # the group whose end is no failure of the trial
        self.group = ""
        self.changed = asyncio.Condition()
        self.messages: asyncio.Queue[tuple[str, Any, int]] = asyncio.Queue()
        self.answers: dict[int, asyncio.Future[str]] = {}
        self.tickets = 0

    async def submit(self, task: Task) -> None:
        async with self.changed:
            while not self.messages.empty():
                self.messages.get_nowait()
            self.number, self.task, self.handed_out, self.lost = self.number + 1, task, 0, 0
            self.changed.notify_all()

    async def next_task(self, done: int, group: str) -> tuple[int, Task | None]:
        """The current trial, as soon as there is one that this group has not done; none for a group that is replaced."""
        async with self.changed:
            # Groups come one after another. The call of one that died while it waited here goes on, and must not count.
            self.group = group
            self.changed.notify_all()
            while True:
                await self.changed.wait_for(
                    lambda: self.group != group or (self.task is not None and self.number > done)
                )
                if self.group != group:
                    return done, None
                self.handed_out += 1
                if self.handed_out > self.max_failures + 1:
                    self._put("failed", f"its workers died {self.handed_out - 1} times")
                elif self.lost > self.max_preemptions:
                    self._put("failed", f"its workers' machines were lost {self.lost} times")
                else:
                    return self.number, self.task
                self.task = None

    async def lost_machine(self) -> None:
        """The current group ended because a machine of its was preempted, drained or lost."""
        if self.task is not None and self.excused != self.group:
            self.lost += 1
        self._excuse()

    async def smaller(self, number: int, told: str) -> None:
        """The current trial ran out of memory and will be handed out again, to take smaller micro-batches."""
        if number == self.number and self.task is not None and self.excused != self.group:
            self._put("note", told)
            self._excuse()

    def _excuse(self) -> None:
        if self.task is not None and self.excused != self.group:
            self.excused = self.group
            self.handed_out -= 1

    async def end(self, number: int, kind: str, value: Any = None) -> None:
        """The current trial is "finished", "failed" or "blocked". Of several workers that say so the first is heard."""
        if number == self.number and self.task is not None:
            self.task = None
            self._put(kind, value)

    async def moves(self, number: int) -> None:
        """The group leaves a node that will be taken away: handing the trial out again is no failure of it."""
        if number == self.number:
            self._excuse()

    async def broken(self, reason: str) -> None:
        self._put("broken", reason)

    async def note(self, number: int, text: str) -> None:
        if number == self.number and self.task is not None:
            self._put("note", text)

    async def report(self, number: int, value: EpochReport) -> str:
        """Deliver a report and wait for the verdict, "continue" or "stop"."""
        if number != self.number or self.task is None:
            return "stop"
        ticket = self._put("report", value)
        self.answers[ticket] = asyncio.get_running_loop().create_future()
        verdict = await self.answers[ticket]
        del self.answers[ticket]
        if verdict == "stop":
            self.task = None
        return verdict

    async def take(self) -> tuple[str, Any, int]:
        return await self.messages.get()

    async def answer(self, ticket: int, verdict: str) -> None:
        future = self.answers.get(ticket)
        if future is not None and not future.done():
            future.set_result(verdict)

    def _put(self, kind: str, value: Any) -> int:
        self.tickets += 1
        self.messages.put_nowait((kind, value, self.tickets))
        return self.tickets


class TellMailbox(UserCallback):
    """In the Train controller: tells the mailbox when workers went with their machine, which is no failure of the trial."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if any(
            machine_went(type(error).__name__, str(error), isinstance(error, RayActorError) and error.preempted)
            for error in worker_exceptions.values()
        ):
            ray.get(self.mailbox.lost_machine.remote())
