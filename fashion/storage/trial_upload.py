"""A trial's files go into the bucket in a thread, while the trial trains on. Knows nothing of torch."""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fashion.errors import StorageError
from fashion.storage.trial_objects import At, Attempt, Outage

# Epochs that a trial trains further than what the bucket holds; then it waits.
AHEAD = 20


class Uploads:
    """The files of one attempt on their way into the bucket: best weights in their order, of the resumable states the
    newest alone. A state goes after the best weights that it tells of.

    While the bucket does not answer, each call is repeated, for `attempt.AWAY_SECONDS`; `told` is what the user should know.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        attempt.keep()
        self.up: At = attempt.up  # the furthest state that is in the bucket, with the best weights before it
        self.told: deque[str] = deque()
        self.changed = threading.Condition()
        self.bests: list[int] = []  # epochs
        self.state: tuple[At, Path] | None = None
        self.recorded_best = 0  # the best weights of epochs before it are to be deleted
        self.error: Exception | None = None
        self.closed = False
        self.outage = Outage(attempt.store.address)
        self.thread = threading.Thread(target=self._run, daemon=True, name="upload")
        self.thread.start()

    def add(self, at: At, last: Path, best: bool) -> None:
        """The state in `last`, and the best weights of its last epoch, are on disk and are to go up. `last` may be replaced
        meanwhile."""
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
        """Whether the bucket holds a state so far or further. Raises what ended the thread: BlockedError, where the bucket
        was away for too long or can't be used."""
        with self.changed:
            if self.up < at and self.error is not None:
                raise self.error
            return self.up >= at

    def wait(self, at: At, seconds: float) -> None:
        """Until that is reached or fails, there is something to tell, or the time is over."""
        with self.changed:
            self.changed.wait_for(lambda: self.up >= at or self.error or self.told, seconds)

    def forget_bests(self, before: int) -> None:
        """Let best weights of epochs before this one be deleted: it is recorded as the best."""
        with self.changed:
            self.recorded_best = before
            self.changed.notify_all()

    def close(self) -> None:
        """End the thread, at once or when its request has ended; nobody waits for that. What it was putting is of epochs
        that were not wanted any more, and is deleted again."""
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
            if self.closed:  # also of a call that failed: its request may have been carried out
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
            # Last: nobody waits for it.
            if forget:
                self._patiently(lambda: self.attempt.forget_bests(forget))
        finally:
            if state is not None:
                state[1].unlink(missing_ok=True)

    def _patiently(self, call: Callable[[], object]) -> bool:
        """Call until it succeeds, while the bucket is away. False where the thread has to end."""
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
