"""Checks that every object store must pass."""

from __future__ import annotations

import threading

import pytest

from fashion.bucket.store import Store, TakenError
from tests.support.servers.s3_server import Server


def created_at_once(store: Store) -> list[str]:
    """The sorted outcomes ("done", "taken") of eight threads that create the same object at once."""
    outcomes: list[str] = []

    def put(text: bytes) -> None:
        try:
            store.put("x", text, create=True)
            outcomes.append("done")
        except TakenError:
            outcomes.append("taken")

    threads = [threading.Thread(target=put, args=(str(number).encode(),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes)


def assert_long_lists_are_whole(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fashion.bucket.store.PAGE", 50)
    client = server.client()
    for number in range(110):
        client.put_object(Bucket="sweeps", Key=f"{store.address.prefix}/many/{number:05d}", Body=b"")
    assert [each.name for each in store.objects("many")] == [f"many/{number:05d}" for number in range(110)]
    assert len(list(store.objects("many", after="many/00099"))) == 10
