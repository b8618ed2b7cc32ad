"""A run that is kept in a bucket, and its working copy on this machine.

s3://BUCKET/PREFIX/NAME/manifest.json            as in a run directory
                        journal/START.jsonl      whole lines of the journal from its byte START on (15 digits)
                        lease.json               who drives it (`lease`)
                        trials/, best/, predictions/   as in a run directory

The working copy is a run directory as any other, under the cache folder. The bucket is the truth: a copy that lags behind
is brought up to it, one that is ahead (its machine was killed before it had uploaded) is told apart from one that went
another way, byte by byte. An object of the journal is created once and then only grows: where two would go on from the
same byte, one of them fails.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fashion.bucket import lease as leases
from fashion.bucket.address import Address, is_address, parse_address
from fashion.bucket.lease import Lease
from fashion.bucket.store import NotThereError, Store, TakenError
from fashion.data.contents import default_cache_dir
from fashion.errors import Problem, RunError
from fashion.files import now, parse, write_atomic
from fashion.record.lock import driver_alive
from fashion.record.run import Run
from fashion.storage.segments import Progress, follow, last_put, mark, segments

MANIFEST = "manifest.json"
LOCK_SECONDS = 600.0


class NoRunError(RunError):
    """There is no run at that address."""


def working_copy(address: Address) -> Path:
    """Where a run's copy on this machine is, or will be."""
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:12]
    return default_cache_dir().absolute() / "stored" / f"{address.name[:64]}-{digest}"


def find(storage: str, name: str | None) -> Address | None:
    """The run's address; None when it is to be looked for in folders. Without a name the run of the latest activity.

    Raises RunError, with the nearest names, and StorageError.
    """
    if name is not None and is_address(name):
        return _parsed(name, "RUN")
    if not is_address(storage) or (name is not None and (Path(name) / MANIFEST).is_file()):
        return None
    address = _parsed(storage, "--storage")
    names = Store(address).folders()
    if name in names:
        return address / name
    latest = {each: last_put(segments(Store(address / each))) for each in names}
    runs = sorted((each for each in names if latest[each]), key=lambda each: latest[each], reverse=True)
    if not runs:
        raise RunError(Problem(str(address), "holds no runs", fix="Start one: fashion-sweep run SPEC"))
    if name is None:
        return address / runs[0]
    near = difflib.get_close_matches(name, runs, n=1)
    fix = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(runs[:10])}"
    raise RunError(Problem(str(address), "holds no such run", repr(name), fix))


def addresses(storage: str) -> list[Address]:
    """Where there may be runs in a bucket: each name directly below."""
    address = _parsed(storage, "--storage")
    return [address / name for name in Store(address).folders()]


def _parsed(text: str, place: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise RunError(Problem(place, f"must {error}", repr(text))) from None


@dataclass(frozen=True)
class Copy:
    """A run in a bucket as a reader has it. driven: somebody drives it, on whatever machine. notes: what is to be told."""

    address: Address
    path: Path
    driven: bool
    notes: tuple[str, ...] = ()

    def of(self, run: Run) -> Run:
        """The run that was read from the copy, knowing where it is kept."""
        run.kept_at(str(self.address), self.driven)
        return run


def brought(address: Address, progress: Progress | None = None) -> Copy:
    """The run's working copy, brought up to the bucket; as it is while this machine drives the run.

    Raises NoRunError, RunError for a record that does not hang together, StorageError.
    """
    path = working_copy(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    if driver_alive(path) and (path / MANIFEST).is_file():
        return Copy(address, path, True)
    try:
        lock.acquire(timeout=1.0)
    except Timeout:
        # A driver of this machine that is still preparing, or another reader: the copy is theirs to write.
        if (path / MANIFEST).is_file():
            return Copy(address, path, True)
        rule = "another process is just reading this run for the first time"
        raise RunError(Problem(str(address), rule, fix="Try again")) from None
    try:
        store = Store(address)
        notes: list[str] = []
        if _reconcile(store, path, notes.append, progress) is None:
            raise NoRunError(Problem(str(address), "is no run", "no manifest.json"))
        return Copy(address, path, _driven(store), tuple(notes))
    finally:
        lock.release()


def _driven(store: Store) -> bool:
    lease = next(store.objects(after=leases.NAME.removesuffix(".json")), None)
    if lease is None or lease.name != leases.NAME:
        return False
    try:
        return leases.driven(lease, store.get(leases.NAME))
    except NotThereError:
        return False


@dataclass(frozen=True)
class Held:
    """A run in a bucket that this process drives. uploaded: bytes of the journal that are in the bucket."""

    address: Address
    path: Path
    store: Store
    lease: Lease
    uploaded: int


@contextmanager
def held(
    storage: str, name: str, note: Callable[[str], None], progress: Progress | None = None
) -> Iterator[Held | None]:
    """Within, this process alone drives the run of that name, and its working copy is as the bucket, or ahead of it.
    None for storage in a folder.

    Raises RunError when another process drives it, StorageError when the bucket can't be read and written.
    """
    if not is_address(storage):
        yield None
        return
    address = _parsed(storage, "storage") / name
    path, store = working_copy(address), Store(address)
    with Lease(store, note) as lease:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            lock.acquire(timeout=LOCK_SECONDS)  # of a reader, which brings the copy up to the bucket
        except Timeout:
            rule = "another process is still reading this run"
            raise RunError(Problem(str(path), rule, fix="Wait for it, or stop it")) from None
        try:
            yield Held(address, path, store, lease, _reconcile(store, path, note, progress) or 0)
        finally:
            lock.release()


def _lock(path: Path) -> FileLock:
    """Held by whoever may write the working copy from the bucket. Beside it, since the copy itself is replaced."""
    return FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)


def push_manifest(store: Store, path: Path) -> None:
    """Put the working copy's manifest. Only for the lease's holder. Raises RunError if another one was faster."""
    content = (path / MANIFEST).read_bytes()
    try:
        try:
            there, version = store.get_version(MANIFEST)
        except NotThereError:
            there, version = b"", ""
        if there != content:
            store.put(MANIFEST, content, create=not version, version=version)
    except TakenError:
        if store.get(MANIFEST) != content:  # else its own, whose answer was lost
            rule = "another process has changed the run's manifest meanwhile"
            raise RunError(Problem(str(store.address), rule, fix="Type the same command again")) from None


def push_folder(address: Address, folder: Path, last: str = "") -> None:
    """Put a finished folder of the working copy (`best`, `predictions/test`) in place of what the bucket has of it. `last`:
    the file that says it is whole, absent meanwhile."""
    copy, store = working_copy(address), Store(address)
    name = str(folder.relative_to(copy))
    files = {f"{name}/{path.name}": path for path in sorted(folder.iterdir()) if path.is_file()}
    before = [each.name for each in store.objects(name)]
    final = f"{name}/{last}"
    store.delete([each for each in before if each == final])
    for each, path in sorted(files.items(), key=lambda entry: entry[0] == final):
        store.put(each, path)
    store.delete([each for each in before if each not in files])


def _reconcile(store: Store, path: Path, note: Callable[[str], None], progress: Progress | None) -> int | None:
    """Bring the working copy up to the bucket; returns how many bytes of its journal are the bucket's (it may have more),
    None when the bucket has no such run. A copy that the bucket contradicts is set aside."""
    try:
        manifest = store.get(MANIFEST)
    except NotThereError:
        _set_aside(path, f"{store.address} is not there (any more)", note)
        return None
    if (path / MANIFEST).is_file() and _identity((path / MANIFEST).read_bytes()) != _identity(manifest):
        _set_aside(path, f"{store.address} is another run now", note)
    path.mkdir(exist_ok=True)
    known = follow(store, path, progress)
    if known is None:
        _set_aside(path, f"{store.address} went on from another machine, without what only this one had", note)
        path.mkdir()
        known = follow(store, path, progress)
        assert known is not None, "an empty journal contradicts none"
    if not (path / MANIFEST).is_file() or (path / MANIFEST).read_bytes() != manifest:
        write_atomic(path / MANIFEST, manifest)
    mark(path, known)
    return known


def _identity(manifest: bytes) -> Any:
    """What tells one run from another of the same name."""
    try:
        content = parse(manifest)
        return content.get("id"), content["created"], content["data_fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return hashlib.sha256(manifest).hexdigest()


def _set_aside(path: Path, reason: str, note: Callable[[str], None]) -> None:
    """Move a working copy that the bucket contradicts; one without a journal, which holds nothing, goes."""
    if not path.exists():
        return
    journal = path / "journal.jsonl"
    if not journal.is_file() or not journal.stat().st_size:
        shutil.rmtree(path)
        return
    aside = path.with_name(f"{path.name}.{re.sub('[^0-9]', '', now())[:17]}")
    os.rename(path, aside)
    note(f"{reason}: the copy that this machine had is kept in {aside}")
