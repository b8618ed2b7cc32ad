"""A Ray cluster that starts, or is joined, while this process does something else.

Ray's processes take seconds to come up, and most of that is waiting. A sweep has enough to do in the meantime:
importing torch, resolving weights, building caches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from fashion.cluster.interrupts import deferred
from fashion.cluster.session import cluster, coming


class ClusterAhead:
    """`with ClusterAhead() as ahead: ahead.begin(...); ...; with ahead.take(...): ...`

    What has begun is ended with the outer block, whether it was used or not. From `begin` on, `sys.stdout` leads
    nowhere, as it does within `fashion.cluster.session.cluster`.
    """

    def __init__(self) -> None:
        self._begun, self._coming = False, ""
        self._there = threading.Event()
        self._left = threading.Event()
        self._entered: AbstractContextManager[None] | None = None
        self._error: BaseException | None = None
        self._notes: list[str] = []

    def begin(self, address: str | None) -> None:
        """Start Ray, or join the cluster at `address`, in a thread of its own."""
        self._begun, self._coming = True, coming(address)
        threading.Thread(target=self._enter, args=(address,), name="cluster-ahead", daemon=True).start()

    def wait(self, waiting: Callable[[str], None]) -> None:
        """Wait until what has begun is there, or has failed. Nothing of Ray's may be imported before: two threads that
        import modules which need each other see them half made.

        waiting: is told what is waited for, and with an empty text that it is no longer.
        """
        if self._begun and not self._there.is_set():
            waiting(self._coming)
            self._there.wait()
            waiting("")

    def take(self, note: Callable[[str], None]) -> AbstractContextManager[None] | None:
        """The cluster, to be left by whoever takes it; None where nothing has begun. `note` is told what it would have
        been told by `fashion.cluster.session.cluster`.

        Raises what that raises.
        """
        if self._begun:
            self._there.wait()
        for text in self._notes:
            note(text)
        self._notes.clear()
        error, self._error = self._error, None
        if error is not None:
            raise error
        entered, self._entered = self._entered, None
        return None if entered is None else Taken(entered, self._left)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred():
            if self._begun:
                self._there.wait()
            entered, self._entered = self._entered, None
            if entered is not None:
                entered.__exit__(None, None, None)
            self._left.set()

    def _enter(self, address: str | None) -> None:
        context = cluster(address, self._notes.append, waiting=lambda text: None)
        try:
            context.__enter__()
            self._entered = context
        except BaseException as error:  # raised in the thread that takes it
            self._error = error
        finally:
            self._there.set()
        # Linux ends Ray's processes, which ask for it, when the thread ends that started them.
        self._left.wait()


class Taken(AbstractContextManager[None]):
    """A context that was entered before: only its end is left, which `left` tells."""

    def __init__(self, entered: AbstractContextManager[None], left: threading.Event) -> None:
        self._entered, self._left = entered, left

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return self._entered.__exit__(kind, error, trace)
        finally:
            self._left.set()
