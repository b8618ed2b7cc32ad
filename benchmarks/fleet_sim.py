"""A sweep on many GPUs, event by event: slots that train and upload, one driver that takes one thing after another.

A slot trains epochs of its trial. After each, its upload thread puts the epoch's files into the bucket while the next
epoch trains; when they are there the report goes to the driver, and the loop stands still until the decision is back,
as `tune.report` does. A stop, or the report of the last epoch, ends the trial; then the driver hands the slot the next
one. Decisions are those of the package's own scheduler, over synthetic losses. The driver serves whatever waits in the
order of arrival (Tune takes reports that wait in random order: the same mean, a longer tail).

Left out: failures, nodes that come and go, and other users of the network.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fashion.schedulers.asha import Asha
from fashion.schedulers.base import Decision, Scheduler


@dataclass(frozen=True)
class Service:
    """Seconds of the driver's one thread: a report, a trial handed out (its end included), and what each trial under
    way adds to both; seconds that a message takes from a slot to the driver or back, and from the hand-out to the first
    step."""

    report: float
    hand_out: float
    each_live: float = 0.0
    hop: float = 0.001
    start: float = 0.03

    def seconds(self, kind: str, live: int) -> float:
        return (self.report if kind == "report" else self.hand_out) + self.each_live * live


@dataclass(frozen=True)
class Work:
    """Trials of one kind. epochs: the lengths drawn from; seconds of an epoch, and by what factor (one standard
    deviation of its logarithm) trials differ; bytes and requests (puts) of the state that every epoch leaves, and of
    what a best epoch leaves beside it; seconds of the upload of the one and the other."""

    name: str
    epochs: Sequence[int]
    seconds: float
    spread: float = 0.0
    state: int = 0
    best: int = 0
    state_puts: int = 0
    best_puts: int = 0
    state_upload: float = 0.0
    best_upload: float = 0.0


def losses(number: int, epochs: int, rng: random.Random) -> list[float]:
    """A trial's val_loss by epoch: falls towards a level of its own, with noise as large as neighbouring trials' levels
    are apart."""
    level, rate = rng.uniform(0.5, 1.0), rng.uniform(3, 8) / epochs
    return [level + 0.6 * math.exp(-rate * epoch) + rng.gauss(0, 0.01) for epoch in range(1, epochs + 1)]


@dataclass
class Slot:
    """Where a trial trains. `due` is when the epoch in progress will end, put off by every wait for the driver."""

    trial: int = -1
    epochs: int = 0
    epoch: int = 0  # trained
    seconds: float = 0.0  # of its epochs
    losses: list[float] = field(default_factory=list)
    lowest: float = math.inf
    due: float = 0.0
    parked: bool = False  # the epoch in progress would have ended, had the loop not stood still
    asking: int = 0  # the epoch whose decision it waits for; 0: none
    asked: float = 0.0
    since: float = 0.0  # when it began to stand still, for decisions or for the next trial
    began: float = 0.0
    uploaded: float = 0.0  # when its upload thread is free
    pending: deque[int] = field(default_factory=deque)  # epochs whose files are in the bucket, to be reported
    waited: float = 0.0
    turn: int = 0  # trials begun; events of an earlier one are void


@dataclass
class Outcome:
    """What came of a sweep, in seconds summed over slots: `trained` in epochs that count, `vain` in epochs behind a
    stop, `decisions` standing still for them, `handed` between two trials for the driver, `starting` from there to the
    first step, `uploads` at a trial's end for its last files, `tail` with no trial left. `span` is the sweep's wall
    time; `busy` the driver's. `full`: the same two and the reports until the last trial was handed out, while there was
    work for every slot. Requests by kind, writes by second, bytes sent and kept."""

    slots: int
    span: float = 0.0
    busy: float = 0.0
    full: tuple[float, float, int] = (0.0, 0.0, 0)  # span, busy, reports
    trained: float = 0.0
    vain: float = 0.0
    decisions: float = 0.0
    handed: float = 0.0
    starting: float = 0.0
    uploads: float = 0.0
    tail: float = 0.0
    trials: int = 0
    reports: int = 0
    delays: list[float] = field(default_factory=list)  # of a report, from sent to decided
    gaps: list[float] = field(default_factory=list)  # from a trial's end to the next one's hand-out
    puts: Counter[str] = field(default_factory=Counter)
    deletes: int = 0
    lists: int = 0
    writes: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    kept: int = 0
    objects: int = 0
    journal_seconds: set[int] = field(default_factory=set)  # in which something was recorded


class Fleet:
    """One sweep of `trials` trials of `work` on `slots` slots; `run()` gives its outcome."""

    def __init__(
        self, slots: int, trials: int, work: Work, service: Service, scheduler: Scheduler | None = None, seed: int = 0,
        curve: Callable[[int, int, random.Random], list[float]] = losses,
    ) -> None:  # fmt: skip
        self.slots = [Slot() for _ in range(slots)]
        self.work, self.service, self.trials, self.curve = work, service, trials, curve
        self.scheduler = scheduler or Asha()
        self.rng = random.Random(seed)
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = 0
        self.waiting: deque[tuple[str, int]] = deque()  # (what, slot) before the driver
        self.serving = False
        self.live = self.next = 0
        self.out = Outcome(slots)
        self.left: list[float] = [0.0] * slots  # when each slot had its last trial behind it

    def run(self) -> Outcome:
        for index in range(len(self.slots)):
            self._ask(0.0, "hand_out", index)
        while self.events:
            at, _, act = heapq.heappop(self.events)
            act(at)
        self.out.span = now = max(self.left)  # what is behind it are events of trials that were stopped
        self.out.tail = sum(now - left for left in self.left)
        return self.out

    def _at(self, time: float, act: Callable[[float], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (time, self.order, act))

    # The driver.

    def _ask(self, now: float, what: str, index: int) -> None:
        if what == "hand_out":
            self.slots[index].since = now
            if self.next >= self.trials:
                self.left[index] = now
                return
            self.next += 1
        self.waiting.append((what, index))
        if not self.serving:
            self._serve(now)

    def _serve(self, now: float) -> None:
        what, index = self.waiting.popleft()
        self.serving = True
        seconds = self.service.seconds(what, self.live)
        self.out.busy += seconds
        self._at(now + seconds, lambda at: self._served(at, what, index))

    def _served(self, now: float, what: str, index: int) -> None:
        self.serving = False
        self.out.journal_seconds.add(int(now))
        slot = self.slots[index]
        if what == "hand_out":
            self.live += 1
            self._at(now + self.service.hop, lambda at: self._begin(at, index))
        else:
            decision = self._decide(slot)
            self._at(now + self.service.hop, lambda at: self._decided(at, index, decision))
        if self.waiting:
            self._serve(now)

    def _decide(self, slot: Slot) -> Decision:
        self.out.reports += 1
        value = slot.losses[slot.asking - 1]
        return self.scheduler.report(slot.trial, slot.asking / slot.epochs, {self.scheduler.metric: value})

    # A slot.

    def _begin(self, now: float, index: int) -> None:
        slot, out = self.slots[index], self.out
        out.gaps.append(now - slot.since)
        out.handed += now - slot.since
        out.starting += self.service.start
        out.trials += 1
        out.lists += 1  # for what an earlier attempt left
        if out.trials == self.trials:
            out.full = now, out.busy, out.reports
        slot.trial, slot.epoch, slot.turn, slot.lowest = out.trials - 1, 0, slot.turn + 1, math.inf
        slot.epochs = self.rng.choice(list(self.work.epochs))
        slot.seconds = self.work.seconds * math.exp(self.rng.gauss(0, self.work.spread))
        slot.losses = self.curve(slot.trial, slot.epochs, self.rng)
        slot.began = slot.uploaded = now + self.service.start
        slot.asking, slot.parked, slot.waited = 0, False, 0.0
        slot.pending.clear()
        self._next_epoch(slot.began, index)

    def _next_epoch(self, now: float, index: int) -> None:
        slot = self.slots[index]
        slot.due, turn = now + slot.seconds, slot.turn
        self._at(slot.due, lambda at: self._epoch_ended(at, index, turn))

    def _epoch_ended(self, now: float, index: int, turn: int) -> None:
        slot = self.slots[index]
        if turn != slot.turn or slot.epoch == slot.epochs:
            return  # the trial was stopped meanwhile
        if slot.asking:
            slot.parked = True  # goes on when the decision is there
        elif now < slot.due:
            self._at(slot.due, lambda at: self._epoch_ended(at, index, turn))
        else:
            slot.epoch += 1
            self._upload(now, index, slot.epoch)
            if slot.epoch < slot.epochs:
                self._next_epoch(now, index)

    def _upload(self, now: float, index: int, epoch: int) -> None:
        slot, work, out, turn = self.slots[index], self.work, self.out, self.slots[index].turn
        seconds, writes = work.state_upload, work.state_puts
        out.puts["state"] += work.state_puts
        out.sent += work.state
        if slot.losses[epoch - 1] < slot.lowest:
            seconds, writes = seconds + work.best_upload, writes + work.best_puts
            out.puts["best"] += work.best_puts
            out.sent += work.best
            # Of a trial one best stays, its weights and its predictions; the state goes when the trial ends.
            if slot.lowest == math.inf:
                out.kept, out.objects = out.kept + work.best, out.objects + 2
            slot.lowest = slot.losses[epoch - 1]
        out.deletes += 1  # what this epoch replaces, in one request
        slot.uploaded = max(now, slot.uploaded) + seconds
        out.writes[int(slot.uploaded)] += writes + 1
        self._at(slot.uploaded, lambda at: self._uploaded(at, index, turn, epoch))

    def _uploaded(self, now: float, index: int, turn: int, epoch: int) -> None:
        slot = self.slots[index]
        if turn != slot.turn:
            return
        slot.pending.append(epoch)
        if not slot.asking:
            slot.since = now
            self._report(now, index)

    def _report(self, now: float, index: int) -> None:
        """The loop stands still from here on."""
        slot = self.slots[index]
        slot.asking, slot.asked = slot.pending.popleft(), now
        self._at(now + self.service.hop, lambda at: self._ask(at, "report", index))

    def _decided(self, now: float, index: int, decision: Decision) -> None:
        slot, out = self.slots[index], self.out
        out.delays.append(now - slot.asked)
        epoch, slot.asking = slot.asking, 0
        last = epoch == slot.epochs
        if not last and decision == "continue" and slot.pending:
            self._report(now, index)
            return
        still = now - slot.since
        if slot.epoch < slot.epochs or last:
            slot.waited += still
        if last or decision == "stop":
            self._end(now, index, epoch)
            return
        if slot.epoch < slot.epochs:
            slot.due += still
            if slot.parked:
                self._at(slot.due, lambda at, turn=slot.turn: self._epoch_ended(at, index, turn))  # type: ignore[misc]
            slot.parked = False

    def _end(self, now: float, index: int, epoch: int) -> None:
        slot, out = self.slots[index], self.out
        trained = epoch * slot.seconds
        rest = now - slot.began - trained - slot.waited
        out.trained += trained
        out.decisions += slot.waited
        if epoch == slot.epochs:
            out.uploads += rest
        else:
            out.vain += rest
        out.deletes += 1
        out.puts["events"] += 1
        out.objects += 1
        out.writes[int(now)] += 2
        slot.turn += 1
        self.live -= 1
        self._ask(now, "hand_out", index)
