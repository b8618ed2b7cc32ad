"""Addresses of object stores, `s3://BUCKET/PREFIX` and `gs://BUCKET/PREFIX`, beside the paths of folders."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fashion.errors import CONTROLS

SCHEMES = ("s3", "gs")
# S3's rules; those of Google Cloud Storage allow "_" and longer names with dots, too.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True)
class Address:
    """A place in an object store. prefix: names joined by "/", without one at either end; empty for the whole bucket."""

    scheme: str
    bucket: str
    prefix: str = ""

    def __truediv__(self, name: str) -> Address:
        return Address(self.scheme, self.bucket, f"{self.prefix}/{name}".strip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def parent(self) -> Address:
        """Without the last of its names; of a whole bucket itself."""
        return Address(self.scheme, self.bucket, self.prefix.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last of its names; of a whole bucket the bucket's."""
        return (self.prefix or self.bucket).rpartition("/")[2]


def is_address(text: str) -> bool:
    """Whether the text is meant for an object store and not for a folder: it begins as `scheme://`, or with a slip of the
    pen for one that there is (`s3:/bucket`)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|(s3|gs)(:|//)", text, re.IGNORECASE) is not None


def parse_address(text: str) -> Address:
    """Raises ValueError with the rule that the text breaks, in words that follow "must"."""
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"begin with {' or '.join(f'{each}://' for each in SCHEMES)}, or be a folder")
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("name a bucket: 3 or more lower-case letters, digits, dots and hyphens after the scheme")
    names = prefix.rstrip("/").split("/") if prefix.rstrip("/") else []
    if any(name in ("", ".", "..") for name in names) or CONTROLS.search(prefix) or len(prefix) > 700:
        raise ValueError(
            "have names joined by single slashes after the bucket, none of them . or .., 700 characters at most"
        )
    return Address(scheme, bucket, "/".join(names))
