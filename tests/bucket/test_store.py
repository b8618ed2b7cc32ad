"""Objects in a bucket: against a real S3 protocol server, well and failing."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion.bucket.address import parse_address
from fashion.bucket.store import AwayError, NotThereError, Store, TakenError
from fashion.errors import StorageError
from tests.support.servers.s3_server import Server, environment
from tests.support.servers.store_checks import assert_long_lists_are_whole, created_at_once

PREFIX = "s3://sweeps/deep/er"


@pytest.fixture
def store(s3: Server) -> Store:
    return Store(parse_address(PREFIX), patience=1.0)


def test_an_object_is_what_was_put(store: Store, s3: Server, tmp_path: Path) -> None:
    version = store.put("a/b.txt", b"one")
    assert s3.read("sweeps", "deep/er/a/b.txt") == b"one"
    assert store.get_version("a/b.txt") == (b"one", version)
    store.fetch("a/b.txt", tmp_path / "new" / "b.txt")
    assert (tmp_path / "new" / "b.txt").read_bytes() == b"one"
    store.delete(["a/b.txt", "never.txt"])
    with pytest.raises(NotThereError):
        store.get("a/b.txt")
    with pytest.raises(NotThereError):
        store.fetch("a/b.txt", tmp_path / "c.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_large_file_arrives_in_parts_as_one_object(store: Store, s3: Server, tmp_path: Path) -> None:
    content = os.urandom(20 << 20)
    (tmp_path / "big").write_bytes(content)
    store.put("big", tmp_path / "big")
    assert s3.read("sweeps", "deep/er/big") == content
    assert len([path for method, path in s3.requests if "partNumber" in path]) == 3
    store.fetch("big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_conditional_puts(store: Store) -> None:
    first = store.put("x", b"1", create=True)
    with pytest.raises(TakenError):
        store.put("x", b"2", create=True)
    second = store.put("x", b"2", version=first)
    assert second != first
    with pytest.raises(TakenError):
        store.put("x", b"3", version=first)
    assert store.get("x") == b"2"


def test_a_put_over_a_version_of_what_is_gone_is_refused(store: Store) -> None:
    version = store.put("x", b"1")
    store.delete(["x"])
    with pytest.raises(TakenError):
        store.put("x", b"2", version=version)


def test_of_two_that_create_at_once_one_succeeds(store: Store) -> None:
    assert created_at_once(store) == ["done"] + ["taken"] * 7


def test_lists(store: Store, s3: Server) -> None:
    for name in ("a/2", "a/1", "a/sub/3", "ab/4", "b"):
        store.put(name, b"12345")
    s3.write("sweeps", "deep/erratic", b"not below the prefix")
    assert [each.name for each in store.objects()] == ["a/1", "a/2", "a/sub/3", "ab/4", "b"]
    assert [each.name for each in store.objects("a")] == ["a/1", "a/2", "a/sub/3"]
    assert [each.name for each in store.objects("a", after="a/1")] == ["a/2", "a/sub/3"]
    assert store.folders() == ["a", "ab"]
    assert store.folders("a") == ["sub"]
    assert next(iter(store.objects("b")), None) is None  # a name, no folder
    one = next(iter(store.objects("a")))
    assert (one.size, bool(one.version), one.modified.tzinfo is not None) == (5, True, True)


def test_long_lists_are_whole(store: Store, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_long_lists_are_whole(store, s3, monkeypatch)


def test_a_store_travels_to_another_process(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))
    again.put("x", b"1")
    assert (again.address, again.patience, store.get("x")) == (store.address, 1.0, b"1")


@pytest.mark.parametrize(
    "fault",
    [
        lambda faults: faults.fail(503, times=2),
        lambda faults: faults.fail(500, times=2),
        lambda faults: faults.cut("within", times=2),
        lambda faults: faults.cut("after", times=2),
        lambda faults: faults.refuse(times=2),
        lambda faults: faults.delay(0.3),
    ],
)
def test_what_passes_is_waited_for(s3: Server, tmp_path: Path, fault: Callable[[Any], None]) -> None:
    store = Store(parse_address(PREFIX), patience=8.0)
    content = os.urandom(20 << 20)
    (tmp_path / "file").write_bytes(content)
    for act in (
        lambda: store.put("small", b"x"),
        lambda: store.put("file", tmp_path / "file"),
        lambda: store.fetch("file", tmp_path / "back"),
        lambda: list(store.objects()),
        lambda: store.delete(["small"]),
    ):
        met = s3.faults.met
        fault(s3.faults)
        act()
        assert s3.faults.met > met
    s3.faults.heal()
    assert (tmp_path / "back").read_bytes() == s3.read("sweeps", "deep/er/file") == content
    assert [each.name for each in store.objects()] == ["file"]


@pytest.mark.parametrize(
    "fault", [lambda f: f.fail(503), lambda f: f.cut("within"), lambda f: f.cut("after"), lambda f: f.refuse()]
)
def test_what_does_not_pass_is_told_in_seconds(store: Store, s3: Server, fault: Callable[[Any], None]) -> None:
    fault(s3.faults)
    began = time.monotonic()
    for act in (lambda: store.put("x", b"1"), lambda: store.get("x"), lambda: list(store.objects())):
        with pytest.raises(AwayError, match="s3://sweeps/deep/er: the store does not answer"):
            act()
    assert time.monotonic() - began < 15
    s3.faults.heal()
    store.put("x", b"1")


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "AccessDenied", "may not be read or written with these credentials"),
        (403, "InvalidAccessKeyId", "the credentials are not accepted"),
        (403, "SignatureDoesNotMatch", "the credentials are not accepted"),
        (301, "PermanentRedirect", "the bucket is in another region"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
    ],
)
def test_refusals_in_words(store: Store, s3: Server, status: int, code: str, told: str) -> None:
    s3.faults.fail(status, code)
    began = time.monotonic()
    for act in (
        lambda: store.put("x", b"1"),
        lambda: store.put("x", b"1", create=True),
        lambda: store.get("x"),
        lambda: store.delete(["x"]),
        store.require,
    ):
        with pytest.raises(StorageError, match=told) as caught:
            act()
        assert not isinstance(caught.value, AwayError)
    assert time.monotonic() - began < 8


def test_a_bucket_that_is_not_there(s3: Server) -> None:
    store = Store(parse_address("s3://nowhere/x"), patience=1.0)
    for act in (store.require, lambda: store.put("x", b"1"), lambda: store.get("x"), store.folders):
        with pytest.raises(StorageError, match="s3://nowhere/x: there is no such bucket"):
            act()


def test_no_credentials(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    began = time.monotonic()
    with pytest.raises(StorageError, match="no credentials were found"):
        Store(parse_address(PREFIX), patience=1.0).require()
    assert time.monotonic() - began < 10


def test_a_host_that_is_not_there(s3: Server) -> None:
    with environment({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}), pytest.raises(AwayError):
        Store(parse_address(PREFIX), patience=1.0).require()


def test_parts_and_blocks(store: Store, s3: Server) -> None:
    content = os.urandom(12 << 20)
    store.put_blocks("big", iter([content[: 7 << 20], content[7 << 20 :]]))
    assert s3.read("sweeps", "deep/er/big") == content
    version = store.get_version("big")[1]
    assert store.part("big", 5, 11 << 20) == (content[5 : 11 << 20], version)
    assert store.part("big") == (content, version)
    assert [each.version for each in store.objects()] == [version]
    with pytest.raises(NotThereError):
        store.part("absent", 0, 1)

    def broken() -> Iterator[bytes]:
        yield content
        raise InterruptedError("within")

    with pytest.raises(InterruptedError):
        store.put_blocks("half", broken())
    assert s3.names("sweeps") == ["deep/er/big"]


def test_a_name_that_this_client_can_not_have(store: Store, s3: Server) -> None:
    s3.write("sweeps", "deep/er/a//b", b"")
    with pytest.raises(StorageError, match="an object's name has no empty parts") as caught:
        store.require()
    assert not isinstance(caught.value, AwayError)
    assert "deep/er/a//b" in str(caught.value)
