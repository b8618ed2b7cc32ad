"""Uploading a trial's files in a thread while the trial goes on training. Knows nothing of torch."""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fashion.errors import StorageError
from fashion.storage.trial_objects import At, Attempt, Outage

# How many epochs a trial may be ahead of what the bucket holds before it waits.
AHEAD = 20


class Uploads:
    """The files of one attempt on their way into the bucket: best weights in order, and the newest resumable state.

    A state is uploaded after the best weights to which it refers. While the bucket does not answer, each call is
    repeated for up to `trial_objects.AWAY_SECONDS`. `told` collects what the user should know.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        attempt.keep()
        self.up: At = attempt.up  # the furthest state in the bucket, which has the best weights before it as well
        self.told: deque[str] = deque()
        self.changed = threading.Condition()
        self.bests: list[int] = []  # epochs
        self.state: tuple[At, Path] | None = None
        self.recorded_best = 0  # best weights of earlier epochs are to be deleted
        self.error: Exception | None = None
        self.closed = False
        self.outage = Outage(attempt.store.address)
        self.thread = threading.Thread(target=self._run, daemon=True, name="upload")
        self.thread.start()

    def add(self, at: At, last: Path, best: bool) -> None:
        """Queue the state in the file `last` and, with `best`, the best weights of its last epoch. Both are on disk.

        The caller may replace `last` afterwards.
        """
        kept = last.with_name(f".last-{at[0]:04d}.{at[1]:05d}.tmp")
        kept.unlink(missing_ok=True)
        try:
            os.link(last, kept)
        except OSError:  # a file system without links
            shutil.copyfile(last, kept)
        with self.changed:
            if best:
                self.bests.append(at[0])
            before, self.state = self.state, (at, kept)
            self.changed.notify_all()
        if before is not None:
            before[1].unlink(missing_ok=True)

    def reached(self, at: At) -> bool:
        """Whether the bucket holds this state or a further one.

        Raises what ended the thread, such as a BlockedError where the bucket was away for too long or can't be used.
        """
        with self.changed:
            if self.up < at and self.error is not None:
                raise self.error
            return self.up >= at

    def wait(self, at: At, seconds: float) -> None:
        """Return once this state is reached or has failed, there is something to tell, or the time is over."""
        with self.changed:
            self.changed.wait_for(lambda: self.up >= at or self.error or self.told, seconds)

    def forget_bests(self, before: int) -> None:
        """Allow best weights of earlier epochs to be deleted, since this epoch is recorded as the best."""
        with self.changed:
            self.recorded_best = before
            self.changed.notify_all()

    def close(self) -> None:
        """Tell the thread to end after its current request, without waiting for it.

        What it was uploading belongs to epochs that are no longer wanted, and is deleted again.
        """
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._work()
        except Exception as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()
        finally:
            if self.closed:  # even if the call failed: its request may have been carried out
                self.attempt.take_back()
            if self.state is not None:
                self.state[1].unlink(missing_ok=True)

    def _wait_for_work(self) -> bool:
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.bests or self.state or self.recorded_best)
            return not self.closed

    def _work(self) -> None:
        with self.changed:
            bests, state, forget = self.bests, self.state, self.recorded_best
            self.bests, self.state, self.recorded_best = [], None, 0
        try:
            for epoch in bests:
                self._patiently(lambda epoch=epoch: self.attempt.put_best(epoch))  # type: ignore[misc]
            if state is not None and self._patiently(lambda: self.attempt.put_state(*state)):
                with self.changed:
                    self.up = state[0]
                    self.changed.notify_all()
            # Last, because nobody waits for it.
            if forget:
                self._patiently(lambda: self.attempt.forget_bests(forget))
        finally:
            if state is not None:
                state[1].unlink(missing_ok=True)

    def _patiently(self, call: Callable[[], object]) -> bool:
        """Repeat the call while the bucket is away. False if the thread has to end."""
        while not self.closed:
            try:
                call()
            except StorageError as error:
                self._tell(self.outage.failed(error, "meanwhile"))
                with self.changed:
                    self.changed.wait_for(lambda: self.closed, self.outage.pause)
                continue
            self._tell(self.outage.worked())
            if not self.closed:
                self.attempt.keep()
                return True
        return False

    def _tell(self, text: str) -> None:
        if text:
            with self.changed:
                self.told.append(text)
                self.changed.notify_all()
