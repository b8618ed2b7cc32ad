"""The driver's record on its way into the bucket, in the background: a report costs the sweep no network wait.

New lines of the journal become an object of their own within about a second (`segments` has the layout); many small
ones are merged into the first of them, which grows, and go. What an ended trial needs no more is deleted once the
bucket has its end. While the bucket is away the sweep goes on, and what it records waits on this machine's disk.

A driver that lost its lease does no harm by what it still puts: an object of the journal is created at the byte where
the last one ends, so that of two drivers one finds the name taken, and stops."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fashion.bucket.store import AwayError, Store, TakenError
from fashion.errors import StorageError
from fashion.record.trial_files import ERROR, EVENTS, event_files, events_by_trial, folder_name
from fashion.storage.segments import Segment, mark, segment_name, segments
from fashion.storage.working_copy import Held

INTERVAL = 1.0  # seconds between two uploads of new lines
GROUP = 4 << 20  # bytes; the largest object of the journal, and how much of it is held in memory
MERGED = 32  # small objects before they are merged
EVENTS_SECONDS = 300.0  # seconds between two uploads of a running trial's event files
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
# Seconds without the bucket after which the sweep stops. A trial that waits for an upload stops it earlier (`attempt`).
AWAY_SECONDS = 30 * 60.0


class _Ended(NamedTuple):
    number: int
    best_epoch: int | None
    at: int  # the byte after the journal's line that says so
    before: bool  # the trial ended before this process began


class RecordTakenError(Exception):
    """Another process drives the run now."""


class Mirror:
    """`with Mirror(held, note) as mirror: mirror.start(block, rewrite); ...; mirror.flush()`.

    note: shows a message. block: is told, once and from another thread, why the sweep can't go on. rewrite: writes the
    event file of a trial that ended before anew, from the record.
    """

    def __init__(self, held: Held, note: Callable[[str], None], away: float = AWAY_SECONDS) -> None:
        self.address, self.path, self._lease, self.note = held.address, held.path, held.lease, note
        self.sent = held.uploaded  # bytes of the journal that are in the bucket
        self._store, self._away = held.store, away
        self._journal = held.path / "journal.jsonl"
        self._tail: list[Segment] | None = None  # the objects that are to be merged next; None: not looked up yet
        self._ended: deque[_Ended] = deque()
        self._untidy: set[int] = set()
        self._shown: set[int] = set()  # trials whose event files were in the bucket at the start
        self._events: dict[Path, tuple[int, int]] = {}  # an event file -> time and size of what was put
        self._tidied: set[int] = set()  # trials whose older event files were removed
        self._events_due = time.monotonic() + EVENTS_SECONDS
        self._block: Callable[[str], None] = lambda reason: None
        self._rewrite: Callable[[int], None] = lambda number: None
        self._wake, self._closing, self._abandoned = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def start(self, block: Callable[[str], None], rewrite: Callable[[int], None]) -> None:
        self._block, self._rewrite = block, rewrite
        self._thread.start()

    def ended(self, number: int, best_epoch: int | None, at: int) -> None:
        """A trial has ended, which the journal says before byte `at`: of its files in the bucket only those of its best
        epoch stay, once that line is there."""
        self._ended.append(_Ended(number, best_epoch, at, not self._thread.is_alive()))

    def settled(self) -> bool:
        """Whether the bucket has all that was recorded so far."""
        self._wake.set()
        return self.sent >= self._journal.stat().st_size

    def flush(self, seconds: float = float("inf")) -> str:
        """Wait until everything is in the bucket, for at most `seconds`; Ctrl-C abandons the rest.

        Returns what the bucket lacks, in words, or an empty string. Nothing is uploaded afterwards."""
        self._closing.set()
        self._wake.set()
        end, due = time.monotonic() + seconds, time.monotonic() + 2.0
        try:
            while self._thread.is_alive() and time.monotonic() < end:
                self._thread.join(0.1)
                if time.monotonic() > due and self._thread.is_alive():
                    self.note(f"uploading the record: {self._left() / 1e6:.1f} MB left (Ctrl-C abandons it)")
                    due = time.monotonic() + 15.0
        except KeyboardInterrupt:
            self.note("the upload is abandoned")
        self._abandoned.set()
        if self._left() <= 0:
            return ""
        with open(self._journal, "rb") as file:
            file.seek(self.sent)
            reports = sum(b'"event":"report"' in line for line in file)
        return (
            f"{self.address} lacks the last {self._left()} bytes of the record, {reports} reports among them; "
            f"the same command on this machine, which has them in {self.path}, uploads them"
        )

    def _left(self) -> int:
        return self._journal.stat().st_size - self.sent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive() and not self._abandoned.is_set():
            self.flush(30.0)

    def _work(self) -> None:
        away_since, pause = 0.0, FIRST_PAUSE
        while not self._abandoned.is_set():
            try:
                busy = self._step()
            except RecordTakenError as lost:
                self._block(self._lease.lost or str(lost))
                return
            except StorageError as error:
                if not away_since:
                    away_since = time.monotonic()
                    self.note(f"{str(error)[:300]}. The sweep goes on; what it records waits on this machine")
                waited = time.monotonic() - away_since
                if waited > self._away:
                    self._block(
                        f"{error} That lasted {waited / 60:.0f} minutes. Once it is mended, the same command goes on."
                    )
                    return
                if not isinstance(error, AwayError):
                    self._store = Store(self.address)  # perhaps with credentials that were renewed in the meantime
                self._abandoned.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            except BaseException as error:
                # A bug in this thread must not end in a sweep that goes on without its record.
                self._block(f"the record can't be uploaded any more: {error!r}")
                raise
            if away_since:
                told = f"{self.address.scheme}://{self.address.bucket} answers again"
                self.note(f"{told}, after {time.monotonic() - away_since:.0f} s")
                away_since, pause = 0.0, FIRST_PAUSE
            if not busy:
                if self._closing.is_set():
                    mark(self.path, self.sent)
                    return
                self._wake.wait(INTERVAL)
                self._wake.clear()

    def _step(self) -> bool:
        """Do the next thing there is to do; False when there is nothing for now. What raises is tried again."""
        if self._lease.lost:
            raise RecordTakenError
        if self._tail is None:
            self._look()
        if self._send():
            if not self._closing.is_set():
                self._wake.wait(INTERVAL)  # what is recorded meanwhile goes together
                self._wake.clear()
            return True
        assert self._tail is not None
        if len(self._tail) > MERGED:
            self._merge()
            return True
        if self._ended and self._ended[0].at <= self.sent:
            self._tidy(self._ended[0])
            self._ended.popleft()
            return True
        if self._closing.is_set() or time.monotonic() > self._events_due:
            self._events_due = time.monotonic() + EVENTS_SECONDS
            events = events_by_trial(self.path)
            folders = {int(path.name): path for path in self.path.glob("trials/*") if path.name.isdigit()}
            folders |= {number: self.path / folder_name(number) for number in events}
            put = [self._put_events(folders[number], events.get(number, [])) for number in sorted(folders)]
            return any(put)
        return False

    def _look(self) -> None:
        """Learn what the bucket holds; remove what a killed driver's merge left."""
        tail: list[Segment] = []
        covered, end = [], 0
        for each in sorted(segments(self._store), key=lambda each: (each.start, -each.end)):
            if each.end <= end:
                covered.append(each.name)
                continue
            end = each.end
            if tail and each.end - tail[0].start > GROUP:
                tail = []
            tail.append(each)
        self._store.delete(covered)
        unneeded: dict[int, int] = {}
        for each_file in self._store.objects("trials"):
            folder, _, name = each_file.name.removeprefix("trials/").partition("/")
            if folder.isdigit() and name.startswith(f"{EVENTS}/"):
                self._shown.add(int(folder))
            if folder.isdigit() and name.startswith(("last-", "best-")):
                # One file of best weights is what an ended trial keeps.
                unneeded[int(folder)] = unneeded.get(int(folder), 0) + (2 if name.startswith("last-") else 1)
        self._untidy = {number for number, count in unneeded.items() if count > 1}
        self._tail = tail

    def _send(self) -> bool:
        """Put the new whole lines of the journal, as many as one object may hold."""
        assert self._tail is not None
        content = self._lines(self.sent)
        if not content:
            return False
        if self._tail and self.sent + len(content) - self._tail[0].start > GROUP:
            if len(self._tail) > 1:
                self._merge()
            self._tail = []
        name = segment_name(self.sent)
        try:
            self._store.put(name, content, create=True)
        except TakenError:
            there = self._store.get(name)
            # This process's own object, perhaps with fewer lines, if the answer was lost.
            if not content.startswith(there) or not there.endswith(b"\n"):
                raise RecordTakenError(f"{self.address}: another process has gone on with the record") from None
            content = there
        end = self.sent + len(content)
        self._tail.append(Segment(self.sent, end, name))
        self.sent = end
        return True

    def _lines(self, start: int) -> bytes:
        """Whole lines of the journal from byte `start` on: about GROUP bytes, or one line that is longer."""
        with open(self._journal, "rb") as file:
            file.seek(start)
            content = file.read(GROUP)
            while b"\n" not in content and (more := file.read(GROUP)):
                content += more
        return content[: content.rfind(b"\n") + 1]

    def _merge(self) -> None:
        """Let the first object of the tail grow to hold the others, which then go."""
        assert self._tail is not None
        first, last = self._tail[0], self._tail[-1]
        with open(self._journal, "rb") as file:
            file.seek(first.start)
            content = file.read(last.end - first.start)
        there, version = self._store.get_version(first.name)
        if not content.startswith(there):
            raise RecordTakenError(f"{self.address}: another process has changed the record")
        if there != content:
            try:
                self._store.put(first.name, content, version=version)
            except TakenError:
                if self._store.get(first.name) != content:
                    raise RecordTakenError(f"{self.address}: another process has changed the record") from None
        self._store.delete([each.name for each in self._tail[1:]])
        self._tail = [first._replace(end=last.end)]
        mark(self.path, self.sent)

    def _tidy(self, ended: _Ended) -> None:
        from fashion.storage.trial_objects import clear

        folder = self.path / folder_name(ended.number)
        if ended.before and ended.number not in self._shown and not event_files(self.path, ended.number):
            self._rewrite(ended.number)  # its driver was lost with them
        if not ended.before or ended.number in self._untidy:
            clear(self._store, ended.number, ended.best_epoch)
        if not ended.before or ended.number not in self._shown:
            self._put_events(folder, event_files(self.path, ended.number))

    def _put_events(self, folder: Path, events: Sequence[Path]) -> bool:
        """Put what is new of a trial's event files and its traceback; the files of an earlier driver give way."""
        # In the bucket they are with the trial's other objects, under whatever name the folder here has.
        files = {path: f"{EVENTS}/{path.name}" for path in events} | dict.fromkeys(folder.glob(ERROR), ERROR)
        changed = False
        for path, name in files.items():
            with suppress(FileNotFoundError):  # a trial that goes on writes its event files anew
                stat = path.stat()
                if self._events.get(path) != (stamp := (stat.st_mtime_ns, stat.st_size)):
                    self._store.put(f"trials/{folder.name}/{name}", path.read_bytes())
                    self._events[path], changed = stamp, True
        if changed and int(folder.name) not in self._tidied:
            mine = {f"trials/{folder.name}/{name}" for name in files.values()}
            there = [each.name for each in self._store.objects(f"trials/{folder.name}/{EVENTS}")]
            self._store.delete([name for name in there if name not in mine])
            self._tidied.add(int(folder.name))
        return changed
