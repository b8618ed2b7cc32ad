"""Objects in a bucket: puts, conditional puts, gets and lists. No other module talks to an object store.

An object exists whole or not at all, and a put with `create` or `version` fails if another was faster; nothing can be
appended to or renamed. obstore makes the requests. One that fails on the way (5xx, timeouts, cut connections) is
repeated for `patience` seconds. Credentials are those of the cloud's own tools: environment, profiles, the machine's
role.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fashion.bucket.address import OBJECT_STORES, Address
from fashion.bucket.obstore_client import NO_BUCKET, hopeless, make_client, refused
from fashion.errors import FashionError, Problem, StorageError
from fashion.files import new_file, sync

# Seconds for which a command tries before it gives up. A running sweep waits longer: see `storage.record_upload`.
PATIENCE = 10.0
# Seconds without an answer after which a request is given up and repeated; the time to send a part counts.
READ_SECONDS = 60.0
PART = 8 << 20  # bytes; a larger file is sent in parts, which become one object when the last has arrived
PAGE = 1000  # objects in one answer to a list
AT_ONCE = 4  # parts sent at the same time; on a slow line each of more would take longer than READ_SECONDS
T = TypeVar("T")


class AwayError(StorageError):
    """The store did not answer, or answered that it can't at the moment: the same call may succeed later."""


class TakenError(FashionError):
    """A conditional put came too late: the object exists already, or is of another version than expected."""


class NotThereError(FashionError):
    """No object has that name."""


@dataclass(frozen=True)
class Object:
    """An object as a list shows it. name: relative to the store's address. size: in bytes. version: its ETag, which
    changes with the bytes (a conditional put needs that of `get_version`). modified: by the store's clock."""

    name: str
    size: int
    version: str
    modified: datetime


class Store:
    """The objects whose names begin with an address's prefix; names are relative to it.

    Every call raises StorageError for what waiting does not mend: no such bucket, or credentials that are missing,
    expired or insufficient. It raises the subclass AwayError if the store could not be reached for `patience` seconds;
    a request counts as unanswered after `quiet` seconds. A store can be pickled.
    """

    def __init__(self, address: Address, patience: float = PATIENCE, quiet: float = READ_SECONDS) -> None:
        self.address, self.patience, self.quiet = address, patience, quiet
        self._client = make_client(address, patience, quiet)

    def __reduce__(self) -> Any:
        return type(self), (self.address, self.patience, self.quiet)

    def put(self, name: str, content: bytes | Path, create: bool = False, version: str = "") -> str:
        """Write an object, from bytes or from a file, and return its version. With `create` only if there is none, with
        `version` only over that version; raises TakenError otherwise.

        A conditional put whose answer was lost is repeated and may then find its own object: look at what is there.
        """
        import obstore

        over = {OBJECT_STORES[self.address.scheme].version: version}
        mode: Any = "create" if create else over if version else "overwrite"
        multipart = False if create or version or isinstance(content, bytes) else None

        def act() -> str:
            written = obstore.put(
                self._client,
                name,
                content,
                mode=mode,
                use_multipart=multipart,
                chunk_size=PART,
                max_concurrency=AT_ONCE,
            )
            return self._version(written)

        try:
            return self._repeated(name, act)
        except NotThereError:
            if version:
                raise TakenError(str(self.address / name)) from None  # it was deleted
            raise StorageError(Problem(str(self.address), *NO_BUCKET)) from None

    def get(self, name: str) -> bytes:
        return self.get_version(name)[0]

    def get_version(self, name: str) -> tuple[bytes, str]:
        """An object's bytes and its version. Raises NotThereError."""
        import obstore

        def act() -> tuple[bytes, str]:
            found = obstore.get(self._client, name)
            return bytes(found.bytes()), self._version(found.meta)

        return self._repeated(name, act)

    def part(self, name: str, start: int = 0, end: int | None = None) -> tuple[bytes, str]:
        """Bytes [start, end) of an object, or all of them, and the object's version as a list shows it. Raises
        NotThereError."""
        import obstore

        def act() -> tuple[bytes, str]:
            options: Any = {} if end is None else {"range": (start, end)}
            found = obstore.get(self._client, name, options=options)
            content, size = bytes(found.bytes()), found.meta["size"]
            if len(content) != min(size, size if end is None else end) - start:
                raise AwayError(f"{self.address / name}: {len(content)} bytes of {size} came.")
            return content, str(found.meta["e_tag"])

        return self._repeated(name, act)

    def put_blocks(self, name: str, blocks: Iterator[bytes]) -> None:
        """Write an object from blocks as they are made, in parts. If making them raises, no object is written. A part
        that failed is repeated; the whole is not, since earlier blocks are gone."""
        import obstore

        with self._told(name):
            obstore.put(self._client, name, blocks, use_multipart=True, chunk_size=PART, max_concurrency=AT_ONCE)

    def fetch(self, name: str, path: Path) -> None:
        """Write an object's bytes to a file, which exists whole or not at all. Raises NotThereError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = new_file(path)
        os.close(handle)
        try:
            self._repeated(name, lambda: self._fetch(name, temporary))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _fetch(self, name: str, path: Path) -> None:
        import obstore

        with open(path, "wb") as file:
            found = obstore.get(self._client, name)
            for block in found:
                file.write(block)
            if file.tell() != found.meta["size"]:
                raise AwayError(f"{self.address / name}: {file.tell()} of {found.meta['size']} bytes came.")
            file.flush()
            sync(file.fileno(), path)

    def objects(self, prefix: str = "", after: str = "") -> Iterator[Object]:
        """The objects below `prefix`, which ends where a slash follows, sorted by name; only those whose names come
        after `after`."""
        import obstore

        while True:
            # A new list from the last name on for each page, so that a request that fails is repeated from there.
            found = self._repeated(
                prefix,
                lambda after: next(
                    iter(obstore.list(self._client, prefix or None, offset=after or None, chunk_size=PAGE)), []
                ),
                after,
            )
            for each in sorted(found, key=lambda each: each["path"]):
                after = each["path"]
                yield Object(each["path"], each["size"], str(each["e_tag"]), each["last_modified"])
            if len(found) < PAGE:
                return

    def require(self) -> None:
        """Raise StorageError unless the bucket exists and may be listed."""
        next(self.objects(), None)

    def folders(self, prefix: str = "") -> list[str]:
        """The names directly below `prefix` that have objects below them."""
        import obstore

        found = self._repeated(prefix, lambda: obstore.list_with_delimiter(self._client, prefix or None))
        return sorted(each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"])

    def delete(self, names: list[str]) -> None:
        """Remove objects; one that does not exist counts as removed."""
        import obstore

        if not names:
            return
        try:
            self._repeated(names[0], lambda: obstore.delete(self._client, names))
        except NotThereError:  # Google's store stops at an object that does not exist
            for name in names if len(names) > 1 else []:
                self.delete([name])

    def _version(self, meta: Any) -> str:
        return str(meta[OBJECT_STORES[self.address.scheme].version])

    def _repeated(self, name: str, act: Callable[..., T], *arguments: Any) -> T:
        """What `act` returns. It is called again for `patience` seconds while the store is away: obstore does not
        repeat every request that may be repeated."""
        end, pause = time.monotonic() + self.patience, 0.1
        while True:
            try:
                with self._told(name):
                    return act(*arguments)
            except AwayError:
                if time.monotonic() + pause > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 3.0)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn obstore's exceptions into the package's."""
        from obstore import exceptions as its

        try:
            yield
        except (its.NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error) or "bucket does not exist" in str(error):
                raise StorageError(Problem(str(self.address), *NO_BUCKET)) from error
            raise NotThereError(str(self.address / name)) from error
        except (its.AlreadyExistsError, its.PreconditionError) as error:
            raise TakenError(str(self.address / name)) from error
        except its.InvalidPathError as error:
            place, value = str(self.address), str(error).partition("\n")[0]
            fix = "Rename or remove it, or use another prefix"
            raise StorageError(Problem(place, "an object's name has no empty parts", value, fix)) from error
        except (its.PermissionDeniedError, its.UnauthenticatedError) as error:
            raise StorageError(Problem(str(self.address), *refused(str(error)))) from error
        except its.BaseError as error:
            text = " ".join(str(error).split())
            if rule := hopeless(text):
                raise StorageError(Problem(str(self.address), *rule)) from error
            reason = text.partition(" Debug source:")[0][:300]
            away, fix = f"the store does not answer ({reason})", "Check that it can be reached from here, and try again"
            raise AwayError(Problem(str(self.address), away, fix=fix)) from error
