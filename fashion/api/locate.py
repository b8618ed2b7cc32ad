"""Where runs are kept: all of a storage folder or bucket, or the one that is meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fashion.bucket.address import Address, is_address
from fashion.record.find import find_path, run_paths

Location = Path | Address


def locations(storage: str) -> Sequence[Location]:
    """Where there may be runs. In a folder the run with the latest activity comes first; in a bucket each name directly
    below the address counts, in no particular order.

    Raises RunError for a malformed address, StorageError when the bucket can't be read.
    """
    if is_address(storage):
        from fashion.storage.working_copy import addresses

        return addresses(storage)
    return run_paths(os.path.expanduser(storage))


def find_location(storage: str, name: str | None = None) -> Location:
    """Where the run is: `name` is a run's name in `storage`, a folder or an address. Without a name it is the run with
    the latest activity.

    Raises RunError, with the nearest names, and StorageError when a bucket can't be read.
    """
    if is_address(storage) or (name is not None and is_address(name)):
        from fashion.storage.working_copy import find

        if (address := find(storage, name)) is not None:
            return address
    return find_path(os.path.expanduser(storage), None if name is None else os.path.expanduser(name))
