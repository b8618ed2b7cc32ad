"""A trial's files to and from the bucket: what a worker starts from, what it leaves there, what is cleared away.

    trials/0007/last-0004-1f3a9c02.pt    resumable state after epoch 4, put by the attempt of that mark: a name is put once
    trials/0007/last-0004.00120-….pt     the same 120 steps into epoch 5, of a trial that had to leave its machine
    trials/0007/best-0004.safetensors, val-0004.parquet
    trials/backbone-….safetensors        a probe's frozen backbone, one for the sweep

A trial is a pure function of its configuration, so the furthest state of any attempt is right to go on from. That fences
a process that was cut off and lives on, without a lock: it can only add states under its own mark.
"""

from __future__ import annotations

import math
import os
import re
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from fashion.address import Address
from fashion.best import read_header
from fashion.errors import BlockedError, CheckpointError, Problem, StorageError
from fashion.store import AwayError, NotThereError, Store

LAST = re.compile(r"last-(\d{4,})(?:\.(\d+))?-([0-9a-f]{8})\.pt")
BEST = re.compile(r"(?:best|val)-(\d{4,})\.(?:safetensors|parquet)")

# Seconds: how long a trial goes on, or waits, while the bucket is away, before the sweep stops (it can be resumed).
AWAY_SECONDS = 30 * 60.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

T = TypeVar("T")


class State(NamedTuple):
    """A resumable state in the bucket. Ordered by how far it is: after `epoch` epochs and `step` steps of the next."""

    epoch: int
    step: int
    name: str


def folder_of(number: int) -> str:
    return f"trials/{number:04d}"


def states(store: Store, number: int) -> list[State]:
    """A trial's states, of all attempts, the furthest first."""
    found = []
    for each in store.objects(folder_of(number)):
        if match := LAST.fullmatch(each.name.rpartition("/")[2]):
            found.append(State(int(match[1]), int(match[2] or 0), each.name))
    return sorted(found, reverse=True)


def fetch_best(store: Store, run_path: Path, number: int, epoch: int) -> None:
    """Bring a trial's best weights into the local run directory, and the frozen backbone that a probe's need, where they
    are missing there.

    Raises:
        CheckpointError: the bucket has no such object, or what came is no checkpoint.
        StorageError: the bucket can't be read.
    """
    name = f"{folder_of(number)}/best-{epoch:04d}.safetensors"
    _fetch_missing(store, name, run_path)
    backbone = read_header(run_path / name).get("backbone")
    if backbone is not None:
        _fetch_missing(store, f"trials/{Path(str(backbone)).name}", run_path)


def _fetch_missing(store: Store, name: str, run_path: Path) -> None:
    if (run_path / name).is_file():
        return
    try:
        store.fetch(name, run_path / name)
    except NotThereError:
        fix = "If the sweep was killed, type its command again to go on"
        raise CheckpointError(str(Problem(str(store.address / name), "the checkpoint is missing", fix=fix))) from None


def clear(store: Store, number: int, best_epoch: int | None) -> None:
    """Delete what an ended trial needs no more: its states, and all best weights and predictions but those of
    `best_epoch`. Only once the journal in the bucket says that it has ended, or the trial would have to start again."""
    names = [each.name for each in store.objects(folder_of(number))]
    store.delete([name for name in names if _unneeded(name.rpartition("/")[2], best_epoch)])


def _unneeded(name: str, best_epoch: int | None) -> bool:
    best = BEST.fullmatch(name)
    return LAST.fullmatch(name) is not None or name == "micro-batches.json" or bool(best and int(best[1]) != best_epoch)


@lru_cache(maxsize=4)
def opened(address: Address) -> Store:
    """A warm process keeps its connections from trial to trial."""
    return Store(address)


class Outage:
    """Tells an outage of the bucket once, and once when it is over; gives up after AWAY_SECONDS."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.since = math.inf  # by the monotonic clock; infinite while the bucket answers
        self.pause = FIRST_PAUSE

    def failed(self, error: StorageError) -> str:
        """What to tell of a call that failed, empty when it was told. Raises BlockedError when waiting is no use (more)."""
        if not isinstance(error, AwayError):
            raise BlockedError(f"{error}. Then the same command goes on.") from error
        if self.since == math.inf:
            self.since = time.monotonic()
            return f"{self.address.scheme}://{self.address.bucket} does not answer; the trial goes on meanwhile"
        if (waited := time.monotonic() - self.since) > AWAY_SECONDS:
            raise BlockedError(f"{error}. It was away for {waited / 60:.0f} minutes; then the same command goes on.")
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return ""

    def worked(self) -> str:
        """What to tell of a call that was answered, mostly nothing."""
        if self.since == math.inf:
            return ""
        waited, self.since, self.pause = time.monotonic() - self.since, math.inf, FIRST_PAUSE
        return f"{self.address.scheme}://{self.address.bucket} answers again, after {waited:.0f} s"


class Attempt:
    """One process's attempt at a trial: the names under which it puts the trial's files, and those that they replace.

    folder: the trial's local folder, whose `last.pt` it goes on from.
    """

    def __init__(self, address: Address, number: int, folder: Path) -> None:
        self.store, self.number, self.folder = opened(address), number, folder
        self.mark = uuid.uuid4().hex[:8]
        self.up = (0, 0)  # epochs and steps of the furthest state that is known to be in the bucket
        self.replaced: list[State] = []  # states that the next one makes useless
        self.bests: set[int] = set()  # epochs whose best weights may be in the bucket
        self.backbones: set[str] = set()  # those known to be there
        self.just_put: list[str] = []

    def begin(self, own: tuple[int, int], usable: Callable[[Path], bool], last: Path) -> Generator[str, None, None]:
        """Make `last` the furthest state there is, and let the bucket have it. Yields what is to be told.

        own: epochs and steps of the state that the folder holds, (0, 0) for none. usable: whether a file that was fetched
        is a state that this trial can go on from.

        Raises BlockedError: the bucket does not answer for AWAY_SECONDS, or can't be used.
        """
        for leftover in self.folder.glob(".last-*.tmp"):
            leftover.unlink(missing_ok=True)
        fetched, refused = self.folder / ".fetched.pt", set[str]()
        while True:
            found = yield from self._patiently(lambda: states(self.store, self.number))
            further = [each for each in found if each[:2] > own and each.name not in refused]
            self.replaced = found
            if not further:
                break
            try:
                name = further[0].name
                yield from self._patiently(lambda name=name: self.store.fetch(name, fetched))  # type: ignore[misc]
            except NotThereError:
                continue  # another attempt has just put a further one and removed this
            if usable(fetched):
                os.replace(fetched, last)
                own = further[0][:2]
            else:
                fetched.unlink()
                refused.add(name)
                yield f"{self.store.address / name}: can't be read; it goes on from an earlier state"
        self.up = max((each[:2] for each in found if each.name not in refused), default=(0, 0))
        names = yield from self._patiently(lambda: [each.name for each in self.store.objects(folder_of(self.number))])
        there = {name.rpartition("/")[2] for name in names}
        self.bests = {int(match[1]) for match in map(BEST.fullmatch, there) if match}
        if own > self.up:
            # Of this machine, before it failed: the reports of those epochs are to be recorded only when this is up.
            for path in sorted(self.folder.glob("*")):
                match = BEST.fullmatch(path.name)
                if match and path.name not in there and int(match[1]) <= own[0]:
                    yield from self._patiently(lambda path=path: self.put(path))  # type: ignore[misc]
                    self.bests.add(int(match[1]))
            yield from self._patiently(lambda: self.put_state(own, last))

    def put(self, path: Path, folder: str | None = None) -> None:
        """Put a file under its own name."""
        self.store.put(f"{folder or folder_of(self.number)}/{path.name}", path)

    def put_best(self, epoch: int) -> None:
        """The best weights and validation predictions of an epoch, from the folder; first the backbone that a probe's
        weights belong to."""
        weights = self.folder / f"best-{epoch:04d}.safetensors"
        backbone = read_header(weights).get("backbone")
        if backbone is not None and backbone not in self.backbones:
            # Trials are numbered, so that only backbones come behind this name.
            self.backbones |= {each.name.rpartition("/")[2] for each in self.store.objects("trials", after="trials/a")}
            if backbone not in self.backbones:
                self.put(self.folder.parent / backbone, "trials")
                self.backbones.add(backbone)
        self.bests.add(epoch)
        self.just_put = [f"{folder_of(self.number)}/{name}" for name in (weights.name, f"val-{epoch:04d}.parquet")]
        self.put(self.folder / f"val-{epoch:04d}.parquet")
        self.put(weights)

    def put_state(self, at: tuple[int, int], path: Path) -> str:
        """Put a state and delete those that it replaces; returns its name."""
        epoch, step = at
        name = f"{folder_of(self.number)}/last-{epoch:04d}{f'.{step:05d}' if step else ''}-{self.mark}.pt"
        self.just_put = [name]
        self.store.put(name, path)
        self.up = at
        # Never a further one: that of an attempt that this one was cut off from.
        self.store.delete([each.name for each in self.replaced if each[:2] <= at and each.name != name])
        self.replaced = [each for each in self.replaced if each[:2] > at] + [State(epoch, step, name)]
        return name

    def forget_bests(self, before: int) -> None:
        """Delete the best weights and predictions of epochs before the recorded best one."""
        self.just_put = []
        gone = {epoch for epoch in self.bests if epoch < before}
        kinds = ("best-{:04d}.safetensors", "val-{:04d}.parquet")
        self.store.delete(
            [f"{folder_of(self.number)}/{kind.format(epoch)}" for epoch in sorted(gone) for kind in kinds]
        )
        self.bests -= gone

    def take_back(self) -> None:
        """Delete what was put last: the trial was stopped meanwhile, and has been cleared."""
        with suppress(StorageError):  # a leftover that nobody reads
            self.store.delete(self.just_put)

    def _patiently(self, call: Callable[[], T]) -> Generator[str, None, T]:
        """The call's result, repeated while the bucket is away. Yields what is to be told."""
        outage = Outage(self.store.address)
        while True:
            try:
                result = call()
            except StorageError as error:
                if told := outage.failed(error):
                    yield told
                time.sleep(outage.pause)
                continue
            if told := outage.worked():
                yield told
            return result
