"""Small file systems that a test can fill up or make read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(place: Path, size: str, *umount: str) -> Iterator[Path]:
    """A file system of this size, mounted at the new folder `place`; `umount` are options to unmount it with.

    Skips the test where mounting is not permitted.
    """
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", *umount, place], check=True)
