"""One driver of all machines: leases in a real S3 server's bucket, with failing networks and dead holders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fashion.bucket import lease as leases
from fashion.bucket.address import parse_address
from fashion.bucket.lease import NAME, Lease
from fashion.bucket.store import Store
from fashion.errors import RunError, StorageError
from tests.support.servers.s3_server import Server

RUN = "s3://sweeps/a/run"


@pytest.fixture
def store(s3: Server) -> Store:
    return Store(parse_address(RUN), patience=1.0)


def quick(store: Store, told: list[str] | None = None) -> Lease:
    return Lease(store, (told if told is not None else []).append, lease=2.0, renewal=0.3)


def content(s3: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(s3.read("sweeps", f"a/run/{NAME}"))
    return found


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process takes itself for one of another machine."""
    monkeypatch.setattr(leases, "_machine", lambda: "another boot")


def test_a_lease_is_renewed_and_released(store: Store, s3: Server) -> None:
    with quick(store) as lease:
        first = content(s3)
        assert (first["pid"], first["released"]) == (os.getpid(), False)
        time.sleep(1)
        assert content(s3)["renewed"] > first["renewed"] + 1
        assert not lease.lost
    assert content(s3)["released"] is True
    began = time.monotonic()
    with quick(store):
        assert time.monotonic() - began < 1


def test_a_live_process_of_this_machine_is_named_at_once(store: Store, s3: Server) -> None:
    with quick(store) as held:
        began = time.monotonic()
        with pytest.raises(RunError, match=rf"s3://sweeps/a/run: another sweep is running .*process {os.getpid()} on"):
            quick(store).__enter__()
        assert time.monotonic() - began < 1
        time.sleep(0.5)
        assert not held.lost


def test_a_live_process_of_another_machine_is_seen_by_its_renewals(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with quick(store) as held:
        elsewhere(monkeypatch)
        told: list[str] = []
        with pytest.raises(RunError, match="another sweep is running"):
            quick(store, told).__enter__()
        assert "waiting 2 s for a sign of life" in told[0]
        assert not held.lost


def held_by(s3: Server, code: str = "") -> None:
    """Let a process that is gone by then have taken the lease."""
    text = (
        "import os; from fashion.bucket.address import parse_address; "
        "from fashion.bucket.lease import Lease; from fashion.bucket.store import Store\n"
        f"{code}\nLease(Store(parse_address({RUN!r})), print).__enter__(); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", text], env={**os.environ, **s3.env}, timeout=60)
    assert done.returncode == 9


def test_a_dead_process_of_this_machine_is_succeeded_at_once(store: Store, s3: Server) -> None:
    held_by(s3)
    began = time.monotonic()
    with quick(store):
        assert time.monotonic() - began < 1.5


def test_a_dead_process_of_another_machine_is_succeeded_after_a_while(store: Store, s3: Server) -> None:
    held_by(s3, "from fashion.bucket import lease; lease._machine = lambda: 'another boot'")
    began, told = time.monotonic(), list[str]()
    with quick(store, told) as lease:
        assert 2 <= time.monotonic() - began < 6
        time.sleep(0.7)
        assert not lease.lost
    assert len(told) == 1


def test_of_many_that_take_over_at_once_one_succeeds(store: Store, s3: Server) -> None:
    held_by(s3, "from fashion.bucket import lease; lease._machine = lambda: 'another boot'")
    outcomes: list[str] = []
    over = threading.Event()

    def drive() -> None:
        try:
            with quick(store) as lease:
                outcomes.append("drives")
                over.wait(20)
                outcomes.append(lease.lost)
        except RunError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(5)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while len(outcomes) < 5 and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    over.set()
    for thread in threads:
        thread.join()
    assert outcomes.count("drives") == 1
    assert outcomes.count("") == 1  # it was not lost either
    assert len([each for each in outcomes if "another sweep is running" in each]) == 4


def test_a_lease_that_was_taken_over_is_lost(store: Store, s3: Server) -> None:
    with quick(store) as lease:
        other = {"id": "x", "host": "other\x1b[2J", "pid": 7, "started": "then", "released": False}
        s3.write("sweeps", f"a/run/{NAME}", json.dumps(other).encode())
        end = time.monotonic() + 10
        while not lease.lost and time.monotonic() < end:
            time.sleep(0.05)
        assert "process 7 on other\\x1b[2J, since then has taken the sweep over" in lease.lost
    assert content(s3)["id"] == "x"  # it does not release what is another's


@pytest.mark.parametrize("fault", [lambda f: f.fail(503), lambda f: f.cut("after")])
def test_an_outage_costs_the_lease_only_if_another_takes_it(
    store: Store,
    s3: Server,
    fault: Callable[[Any], None],
) -> None:
    with quick(store) as lease:
        fault(s3.faults)
        time.sleep(3.5)
        s3.faults.heal()
        renewed = content(s3)["renewed"]
        time.sleep(2.5)
        assert content(s3)["renewed"] > renewed
        assert not lease.lost


def test_a_lease_whose_answers_are_lost_is_taken_all_the_same(store: Store, s3: Server) -> None:
    s3.faults.cut("after", times=1, only=("PUT",))
    with quick(store) as lease:
        assert content(s3)["pid"] == os.getpid()
        time.sleep(1)
        assert not lease.lost
        assert content(s3)["renewed"] > 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"pid": "x", "released": 0}', b"\xff"])
def test_a_damaged_lease_is_waited_for_and_replaced(store: Store, s3: Server, damage: bytes) -> None:
    s3.write("sweeps", f"a/run/{NAME}", damage)
    with quick(store):
        assert content(s3)["pid"] == os.getpid()


def test_a_bucket_that_can_only_be_read(store: Store, s3: Server) -> None:
    s3.faults.fail(403, only=("PUT",))
    with pytest.raises(StorageError, match="may not be read or written"):
        quick(store).__enter__()
