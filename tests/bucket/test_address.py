"""Addresses of object stores: what is one, what is none, and why."""

from __future__ import annotations

import pytest

from fashion.bucket.address import Address, is_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket", Address("s3", "bucket")),
        ("s3://bucket/", Address("s3", "bucket")),
        ("gs://my_bucket.example/a/b-c/", Address("gs", "my_bucket.example", "a/b-c")),
        ("s3://b-1/p q/ü", Address("s3", "b-1", "p q/ü")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert is_address(text)
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


def test_names_below() -> None:
    address = parse_address("s3://bucket")
    assert str(address / "a") == "s3://bucket/a"
    assert str(address / "a" / "b") == "s3://bucket/a/b"
    assert ((address / "a" / "b").name, address.name) == ("b", "bucket")
    assert (address / "a" / "b").parent == address / "a"
    assert (address / "a").parent == address


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("s4://bucket/x", "begin with s3:// or gs://"),
        ("S3://bucket/x", "begin with s3:// or gs://"),
        ("http://bucket/x", "begin with s3:// or gs://"),
        ("s3:/bucket/x", "begin with s3:// or gs://"),
        ("s3:bucket/x", "begin with s3:// or gs://"),
        ("s3//bucket/x", "begin with s3:// or gs://"),
        ("gs:/bucket", "begin with s3:// or gs://"),
        ("s3://", "name a bucket"),
        ("s3:///x", "name a bucket"),
        ("s3://Bucket/x", "name a bucket"),
        ("s3://bu/x", "name a bucket"),
        ("s3://bu cket/x", "name a bucket"),
        ("s3://user@bucket/x", "name a bucket"),
        ("s3://bucket//x", "joined by single slashes"),
        ("s3://bucket/x//y", "joined by single slashes"),
        ("s3://bucket/../x", "joined by single slashes"),
        ("s3://bucket/x\ny", "joined by single slashes"),
        ("s3://bucket/" + "x" * 800, "700 characters at most"),
    ],
)
def test_what_is_meant_for_a_bucket_and_names_none(text: str, rule: str) -> None:
    assert is_address(text)
    with pytest.raises(ValueError, match=rule):
        parse_address(text)


@pytest.mark.parametrize("text", ["runs", "/s3/x", "./s3:x", "s3", "s3x:y", "runs/s3://x", "C:/runs", "a:b"])
def test_folders(text: str) -> None:
    assert not is_address(text)
