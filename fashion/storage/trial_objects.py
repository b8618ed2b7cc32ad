"""A trial's files to and from the bucket: what a worker starts from, what it leaves there, and what is deleted.

    trials/0007/last-0004-1f3a9c02.pt    resumable state after epoch 4, put once, by the attempt of that mark
    trials/0007/last-0004.00120-….pt     the same 120 steps into epoch 5, of a trial that had to leave its machine
    trials/0007/best-0004.safetensors, val-0004.parquet
    trials/backbone-….safetensors        a probe's or a tail's backbone, one for the sweep

A trial is a pure function of its configuration, so the furthest state of any attempt is right to go on from. That
fences a process that was cut off and lives on, without a lock: it can only add states under its own mark.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from fashion.bucket.address import Address
from fashion.bucket.store import AwayError, NotThereError, Store
from fashion.errors import BlockedError, CheckpointError, Problem, StorageError
from fashion.files import write_atomic
from fashion.record.trial_files import (
    MICRO_BATCHES,
    OF_BEST,
    best_name,
    best_path,
    folder_name,
    predictions_name,
    predictions_path,
    read_header,
)

STATE = re.compile(r"last-(\d{4,})(?:\.(\d+))?-([0-9a-f]{8})\.pt")

# Seconds: how long a trial goes on, or waits, while the bucket is away, before the sweep stops (it can be resumed).
# Less than the half hour after which workers that wait for one another give up.
AWAY_SECONDS = 25 * 60.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

T = TypeVar("T")


# Epochs, and steps of the next one.
At = tuple[int, int]


class State(NamedTuple):
    """A resumable state in the bucket: how far it is, and its name in the trial's folder."""

    at: At
    name: str


def _states(names: list[str]) -> list[State]:
    """The resumable states among a trial's files, the furthest first."""
    found = [State((int(match[1]), int(match[2] or 0)), match[0]) for name in names if (match := STATE.fullmatch(name))]
    return sorted(found, reverse=True)


def fetch_best(store: Store, run_path: Path, number: int, epoch: int) -> None:
    """Bring a trial's best weights into the local run directory, and the frozen backbone that a probe's need, where
    they are missing there.

    Raises:
        CheckpointError: the bucket has no such object, or what came is no checkpoint.
        StorageError: the bucket can't be read.
    """
    name = f"{folder_name(number)}/{best_name(epoch)}"
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
        raise CheckpointError(Problem(str(store.address / name), "the checkpoint is missing", fix=fix)) from None


def clear(store: Store, number: int, best_epoch: int | None) -> None:
    """Delete what an ended trial needs no more: its states, and all best weights and predictions but those of
    `best_epoch`. Only once the journal in the bucket says that it has ended, or the trial would have to start again."""
    names = [each.name for each in store.objects(folder_name(number))]
    store.delete([name for name in names if _unneeded(name.rpartition("/")[2], best_epoch)])


def _unneeded(name: str, best_epoch: int | None) -> bool:
    best = OF_BEST.fullmatch(name)
    return STATE.fullmatch(name) is not None or bool(best and int(best[1]) != best_epoch)


@lru_cache(maxsize=4)
def opened(address: Address) -> Store:
    """A warm process keeps its connections from trial to trial."""
    return Store(address)


class Outage:
    """Reports an outage of the bucket once when it begins and once when it ends; gives up after AWAY_SECONDS."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.since = math.inf  # by the monotonic clock; infinite while the bucket answers
        self.pause = FIRST_PAUSE

    def failed(self, error: StorageError, meanwhile: str) -> str:
        """A note about a call that failed; empty if one was given before.

        Raises BlockedError when waiting is of no use, or has lasted too long.
        """
        if not isinstance(error, AwayError):
            raise BlockedError(f"{error}. Once that is mended, the same command goes on.") from error
        if self.since == math.inf:
            self.since = time.monotonic()
            return f"{self.address.scheme}://{self.address.bucket} does not answer; the trial goes on {meanwhile}"
        if (waited := time.monotonic() - self.since) > AWAY_SECONDS:
            raise BlockedError(
                f"{error}. It did not answer for {waited / 60:.0f} minutes. Once it does, the same command goes on."
            )
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return ""

    def worked(self) -> str:
        """A note about a call that was answered; empty if the bucket had been answering."""
        if self.since == math.inf:
            return ""
        waited, self.since, self.pause = time.monotonic() - self.since, math.inf, FIRST_PAUSE
        return f"{self.address.scheme}://{self.address.bucket} answers again, after {waited:.0f} s"


class Attempt:
    """One process's attempt at a trial: the names under which it puts the trial's files, and those that they replace.

    folder: the trial's local folder. Raises BlockedError where nothing can be put from this machine.
    """

    def __init__(self, address: Address, number: int, folder: Path) -> None:
        try:
            self.store = opened(address)
        except StorageError as error:  # as it would be for any other trial on this machine
            raise BlockedError(str(error)) from error
        self.number, self.folder = number, folder
        self.mark = uuid.uuid4().hex[:8]
        self.up = (0, 0)  # epochs and steps of the furthest state that is known to be in the bucket
        self.replaced: list[State] = []  # states that the next one will replace
        self.bests: set[int] = set()  # epochs whose best weights may be in the bucket
        self.backbones: set[str] = set()  # those known to be there
        self.just_put: list[str] = []

    def begin(self, standing: Callable[[Path], At], last: Path) -> Generator[str, None, None]:
        """Make `last` the furthest state there is, and put it into the bucket. Yields notes for the user.

        standing: how far the state in a file is, (0, 0) if this trial can't go on from it.

        Raises BlockedError: the bucket does not answer for AWAY_SECONDS, or can't be used.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        yield from self._patiently(self._forget_another_sweep)
        for leftover in self.folder.glob(".last-*.tmp"):
            leftover.unlink(missing_ok=True)
        own = standing(last) if last.exists() else (0, 0)
        if own == (0, 0):
            self._forget_files()
        own = yield from self._fetch_further(standing, last, own)
        if own > self.up:
            # Left on this machine by a process that died: the reports of those epochs may be recorded when this is up.
            for epoch in sorted(
                {int(match[1]) for match in self._local_bests() if int(match[1]) <= own[0]} - self.bests
            ):
                yield from self._patiently(partial(self.put_best, epoch))
            yield from self._patiently(partial(self.put_state, own, last))

    def _fetch_further(self, standing: Callable[[Path], At], last: Path, own: At) -> Generator[str, None, At]:
        fetched, refused = self.folder / ".fetched.tmp", set[str]()
        while True:
            names = yield from self._patiently(self._names)
            self.bests = {int(match[1]) for match in map(OF_BEST.fullmatch, names) if match}
            self.replaced = _states(names)
            good = [each for each in self.replaced if each.name not in refused]
            self.up = good[0].at if good else (0, 0)
            if self.up <= own:
                return own
            name = f"{folder_name(self.number)}/{good[0].name}"
            try:
                yield from self._patiently(partial(self.store.fetch, name, fetched))
            except NotThereError:
                continue  # another attempt has just put a further one and removed this
            if standing(fetched) == self.up:
                os.replace(fetched, last)
                return self.up
            fetched.unlink()
            refused.add(good[0].name)
            yield f"{self.store.address / name}: no state that this trial can go on from; it looks for an earlier one"

    def _names(self) -> list[str]:
        return [each.name.rpartition("/")[2] for each in self.store.objects(folder_name(self.number))]

    def _local_bests(self) -> list[re.Match[str]]:
        return [match for path in self.folder.glob("*") if (match := OF_BEST.fullmatch(path.name))]

    def _forget_another_sweep(self) -> None:
        """Remove files of another sweep of the same name, whose objects were removed from the bucket."""
        try:
            manifest = json.loads(self.store.get("manifest.json"))
            sweep = f"{manifest.get('id', '')} {manifest['created']}"
        except NotThereError:
            sweep = ""
        mark = self.folder / ".sweep"
        if not mark.exists() or mark.read_text() != sweep:
            self._forget_files()
        write_atomic(mark, sweep.encode())

    def _forget_files(self) -> None:
        for path in self.folder.glob("*"):
            if OF_BEST.fullmatch(path.name) or path.suffix in (".pt", ".tmp") or path.name == MICRO_BATCHES:
                path.unlink(missing_ok=True)

    def put(self, path: Path, folder: str | None = None) -> None:
        """Upload a file under its own name."""
        self.store.put(f"{folder or folder_name(self.number)}/{path.name}", path)

    def put_best(self, epoch: int) -> None:
        """The best weights and validation predictions of an epoch, from the folder; first the backbone that a probe's
        weights belong to."""
        weights = best_path(self.folder, epoch)
        backbone = read_header(weights).get("backbone")
        if backbone is not None and backbone not in self.backbones:
            # Trials are numbered, so that only backbones come behind this name.
            self.backbones |= {each.name.rpartition("/")[2] for each in self.store.objects("trials", after="trials/a")}
            if backbone not in self.backbones:
                self.put(self.folder.parent / backbone, "trials")
                self.backbones.add(backbone)
        self.bests.add(epoch)
        self.just_put = [f"{folder_name(self.number)}/{name}" for name in (weights.name, predictions_name(epoch))]
        self.put(predictions_path(self.folder, epoch))
        self.put(weights)

    def put_state(self, at: At, path: Path) -> None:
        """Upload a state and delete those that it replaces."""
        epoch, step = at
        state = State(at, f"last-{epoch:04d}{f'.{step:05d}' if step else ''}-{self.mark}.pt")
        folder = folder_name(self.number)
        self.just_put = [f"{folder}/{state.name}"]
        self.store.put(self.just_put[0], path)
        self.up = at
        # Never a further one: that of an attempt that this one was cut off from.
        gone = [each for each in self.replaced if each.at <= at and each != state]
        self.store.delete([f"{folder}/{each.name}" for each in gone])
        self.replaced = [each for each in self.replaced if each not in gone and each != state] + [state]

    def forget_bests(self, before: int) -> None:
        """Delete the best weights and predictions of epochs before the recorded best one."""
        gone = {epoch for epoch in self.bests if epoch < before}
        self.store.delete(
            [
                f"{folder_name(self.number)}/{kind(epoch)}"
                for epoch in sorted(gone)
                for kind in (best_name, predictions_name)
            ]
        )
        self.bests -= gone

    def keep(self) -> None:
        """Note that what was put last is wanted: `take_back` leaves it."""
        self.just_put = []

    def take_back(self) -> None:
        """Delete what was put last, if it arrived: the trial was stopped meanwhile, and its files cleared."""
        with suppress(StorageError):  # a leftover that nobody reads
            self.store.delete(self.just_put)

    def _patiently(self, call: Callable[[], T]) -> Generator[str, None, T]:
        """The result of the call, which is repeated while the bucket is away. Yields notes for the user."""
        outage = Outage(self.store.address)
        while True:
            try:
                result = call()
            except StorageError as error:
                if told := outage.failed(error, "when it does"):
                    yield told
                time.sleep(outage.pause)
                continue
            if told := outage.worked():
                yield told
            return result
