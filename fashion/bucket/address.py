"""Addresses in object stores, such as `s3://BUCKET/PREFIX` and `gs://BUCKET/PREFIX`, as opposed to paths of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fashion.errors import CONTROLS


@dataclass(frozen=True)
class StoreKind:
    """A kind of object store. version: what changes with an object's bytes and a conditional put compares, the ETag or
    the version in obstore's metadata. Its client is a row of `obstore_client.CLIENTS`."""

    version: Literal["e_tag", "version"]


# The object stores by the scheme of their addresses. Google Cloud Storage compares an object's generation.
OBJECT_STORES: Mapping[str, StoreKind] = {
    "s3": StoreKind("e_tag"),
    "gs": StoreKind("version"),
}
_SLIP = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://|({'|'.join(OBJECT_STORES)})(:|//)", re.IGNORECASE)
# S3's rules; Google Cloud Storage also allows "_", and longer names with dots.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True)
class Address:
    """An address in an object store. prefix: names joined by "/", without one at either end; empty for the whole
    bucket."""

    scheme: str
    bucket: str
    prefix: str = ""

    def __truediv__(self, name: str) -> Address:
        return Address(self.scheme, self.bucket, f"{self.prefix}/{name}".strip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def parent(self) -> Address:
        """The address without its last name; a whole bucket is its own parent."""
        return Address(self.scheme, self.bucket, self.prefix.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last name of the prefix, or the bucket's."""
        return (self.prefix or self.bucket).rpartition("/")[2]


def is_address(text: str) -> bool:
    """Whether the text means an object store and not a folder: it begins with `scheme://`, or with a known scheme that
    is mistyped (`s3:/bucket`)."""
    return _SLIP.match(text) is not None


def parse_address(text: str) -> Address:
    """Read an address. Raises ValueError with the rule that the text breaks, in words that follow "must"."""
    scheme, _, rest = text.partition("://")
    if scheme not in OBJECT_STORES:
        raise ValueError(f"begin with {' or '.join(f'{each}://' for each in OBJECT_STORES)}, or be a folder")
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("name a bucket: 3 or more lower-case letters, digits, dots and hyphens after the scheme")
    names = prefix.rstrip("/").split("/") if prefix.rstrip("/") else []
    if any(name in ("", ".", "..") for name in names) or CONTROLS.search(prefix) or len(prefix) > 700:
        raise ValueError(
            "have names joined by single slashes after the bucket, none of them . or .., 700 characters at most"
        )
    return Address(scheme, bucket, "/".join(names))
