"""How somebody asks a command to end: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when its terminal goes.

All three raise KeyboardInterrupt in the main thread, wherever the command is, so that what it holds is given back on
the way out. Handlers can be set in that thread alone: in any other one, as in a notebook's, nothing here has an effect.
A signal that this process was started to ignore stays ignored (`nohup` does so with SIGHUP).
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A terminal that goes is told of twice, by the shell and by the kernel, and service managers send SIGTERM and SIGHUP
# together: within this time that is one request. Ctrl-C is a person's, and each one counts.
BURST_SECONDS = 1.0

_last = -math.inf  # when the last of them came, by the monotonic clock


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, each of the three signals raises KeyboardInterrupt."""
    with _handled(_interrupt):
        yield


def nothing_left(code: int) -> None:
    """From here on each of the three signals ends the process at once, with `code`: what it had to do is done and
    printed, and only Python's own end is left, which takes a second where torch is loaded."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ASKING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, lambda number, frame: os._exit(code))


@contextmanager
def first_asks() -> Iterator[threading.Event]:
    """Inside, the first signal only sets the event, so that what is being recorded gets recorded; another one raises
    KeyboardInterrupt."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            _interrupt(number, frame)
        else:
            _again(number)
            asked.set()

    with _handled(ask):
        yield asked


@contextmanager
def deferred() -> Iterator[None]:
    """Let signals wait until the block has ended: for what must not be left half done, such as starting Ray or removing
    its files. A second Ctrl-C interrupts the block itself."""
    waiting: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        if waiting and number == signal.SIGINT:
            raise KeyboardInterrupt
        waiting.append(number)

    try:
        with _handled(wait):
            yield
    finally:
        if waiting:
            signal.raise_signal(waiting[0])


@contextmanager
def hangups_blocked() -> Iterator[None]:
    """Processes that are started inside never hear of SIGHUP: it is for this one to end them, in good order."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def caused_by_interrupt(error: BaseException) -> bool:
    """Whether an exception is, or was raised while handling, a KeyboardInterrupt: libraries replace it by their own."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _again(number):
        raise KeyboardInterrupt


def _again(number: int) -> bool:
    """Whether this signal belongs to the request of the one before."""
    global _last
    now, before = time.monotonic(), _last
    _last = now
    return number != signal.SIGINT and now - before < BURST_SECONDS


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None is a handler that was not set from Python: it is left alone, too.
    found = {number: signal.getsignal(number) for number in ASKING}
    before = {number: each for number, each in found.items() if each not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)
