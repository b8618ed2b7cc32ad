"""A bucket of Google Cloud Storage: what differs from S3's, and that runs and data live there as they do in S3.

Google's own server is not to be had on a machine without its cloud: `google_server` speaks its XML API as documented.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.bucket.address import parse_address
from fashion.bucket.lease import Lease
from fashion.bucket.store import AwayError, NotThereError, Store, TakenError
from fashion.data.layout import read_dataset
from fashion.data.remote.local_copy import on_this_machine
from fashion.errors import RunError, StorageError
from tests.support import data_in_buckets
from tests.support.data_in_buckets import FORM, IMAGES, LISTS, pushed
from tests.support.running import fashion
from tests.support.servers.google_server import environment_of, google_server
from tests.support.servers.s3_server import Server, environment
from tests.support.servers.store_checks import assert_long_lists_are_whole, created_at_once
from tests.support.stored_runs import another_machine, record_lr
from tests.support.typed import typed

demo_root = data_in_buckets.demo_root  # the fixture

STORAGE = "gs://sweeps/team/a"


@pytest.fixture
def google() -> Iterator[Server]:
    """A server with the bucket `sweeps`, which this process's environment names."""
    with google_server() as server, environment(environment_of(server)):
        server.make_bucket("sweeps")
        yield server


@pytest.fixture
def store(google: Server) -> Store:
    return Store(parse_address(STORAGE), patience=1.0)


def test_objects(store: Store, google: Server, tmp_path: Path) -> None:
    version = store.put("a/b.txt", b"one")
    assert google.read("sweeps", "team/a/a/b.txt") == b"one"
    assert store.get_version("a/b.txt") == (b"one", version)
    content = os.urandom(20 << 20)
    (tmp_path / "big").write_bytes(content)
    store.put("a/big", tmp_path / "big")
    assert google.read("sweeps", "team/a/a/big") == content
    assert len([path for _, path in google.requests if "partNumber" in path]) == 3
    store.fetch("a/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert store.part("a/big", 5, 9)[0] == content[5:9]
    assert [each.name for each in store.objects()] == ["a/b.txt", "a/big"]
    assert [each.name for each in store.objects("a", after="a/b.txt")] == ["a/big"]
    assert store.folders() == ["a"]
    store.delete(["never.txt", "a/b.txt", "never either"])
    assert google.names("sweeps") == ["team/a/a/big"], "what is not there keeps nothing else from being deleted"
    store.delete(["a/b.txt"])
    with pytest.raises(NotThereError):
        store.get("a/b.txt")


def test_long_lists_are_whole(store: Store, google: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_long_lists_are_whole(store, google, monkeypatch)


def test_conditional_puts_name_the_generation(store: Store) -> None:
    """The same bytes have the same ETag, by which nothing could be told apart."""
    first = store.put("x", b"1", create=True)
    with pytest.raises(TakenError):
        store.put("x", b"2", create=True)
    second = store.put("x", b"1", version=first)
    assert second != first
    with pytest.raises(TakenError):
        store.put("x", b"3", version=first)
    assert store.get_version("x") == (b"1", second)
    store.delete(["x"])
    with pytest.raises(TakenError):
        store.put("x", b"2", version=second)
    assert store.put("x", b"2", create=True) not in (first, second)


def test_of_two_that_create_at_once_one_succeeds(store: Store) -> None:
    assert created_at_once(store) == ["done"] + ["taken"] * 7


def test_failures_are_told_as_those_of_s3(store: Store, google: Server) -> None:
    google.faults.fail(503, times=2)
    store.put("x", b"1")
    google.faults.fail(503)
    with pytest.raises(AwayError, match="the store does not answer"):
        store.put("x", b"2")
    google.faults.fail(403)
    with pytest.raises(StorageError, match="may not be read or written with these credentials"):
        store.put("x", b"2")
    google.faults.heal()
    assert store.get("x") == b"1"
    with pytest.raises(StorageError, match="there is no such bucket"):
        Store(parse_address("gs://absent/a"), patience=1.0).put("x", b"1")


def test_a_lease_is_held_by_one(store: Store) -> None:
    with Lease(store, pytest.fail, lease=2.0, renewal=0.3) as lease:
        with pytest.raises(RunError, match="gs://sweeps/team/a: another sweep is running"):
            Lease(store, pytest.fail, lease=2.0, renewal=0.3).__enter__()
        assert not lease.lost
    with Lease(store, pytest.fail, lease=2.0, renewal=0.3):
        pass


def test_a_record_is_kept_there_and_read_on_another_machine(
    google: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    another_machine(monkeypatch, tmp_path / "first machine")
    record_lr(STORAGE)
    another_machine(monkeypatch, tmp_path / "second machine")
    listed = typed(capsys, "ls", "--storage", STORAGE)
    assert [line.split()[:5] for line in listed.splitlines()[1:]] == [["lr", "unfinished", "3/4", "0.4000", "75.00"]]
    assert f"lr  {STORAGE}/lr  unfinished" in typed(capsys, "show", f"{STORAGE}/lr")
    assert json.loads(typed(capsys, "best", f"{STORAGE}/lr", "--json"))["promoted"] == f"{STORAGE}/lr/best"
    model = json.loads(google.read("sweeps", "team/a/lr/best/model.json"))
    assert (model["trial"], model["epoch"]) == (0, 2)


def test_a_data_set_is_pushed_and_fetched(google: Server, demo_root: Path, tmp_path: Path) -> None:
    address = parse_address("gs://sweeps/data/demo")
    sent = pushed(demo_root, address, FORM)
    assert sent.sent == 3 + LISTS
    assert pushed(demo_root, address, FORM).sent == 0
    root = on_this_machine(address, tmp_path, [FORM])
    copy = read_dataset(root)
    assert copy.fingerprint() == read_dataset(demo_root).fingerprint()
    assert sum(len(split.images) for split in copy.splits.values()) == IMAGES


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_whose_data_and_storage_are_there(google: Server, demo_root: Path, tmp_path: Path) -> None:
    """As typed on one machine, and its best predicted on another."""
    pushed(demo_root, parse_address("gs://sweeps/data/demo"))
    spec = {
        "name": "s",
        "data": {"root": "gs://sweeps/data/demo", "resize": 36, "crop": 32},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": 2},
        "search": {"trials": 2},
        "storage": STORAGE,
    }
    machines = [tmp_path / "first", tmp_path / "second"]
    for machine in machines:
        machine.mkdir()
    (machines[0] / "s.yaml").write_text(json.dumps(spec))
    done = fashion(machines[0], "run", "s.yaml", **environment_of(google), FASHION_CACHE=str(machines[0] / "cache"))
    assert done.returncode == 0, done
    done = fashion(
        machines[1], "best", f"{STORAGE}/s", "--predict", "--json",
        **environment_of(google), FASHION_CACHE=str(machines[1] / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["promoted"] == f"{STORAGE}/s/best"
    kept = google.names("sweeps", "team/a/s/predictions/")
    assert [name.rpartition("/")[2] for name in kept if "prediction" in name], kept
