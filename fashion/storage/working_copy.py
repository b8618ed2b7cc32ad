"""A run that is kept in a bucket, and its working copy on this machine.

s3://BUCKET/PREFIX/NAME/manifest.json            as in a run directory
                        journal/START.jsonl      whole lines of the journal, from its byte START (15 digits) on
                        lease.json               who drives it (`bucket/lease.py`)
                        trials/, best/, predictions/   as in a run directory

The working copy is an ordinary run directory in the cache folder. The bucket is the truth: a copy that lags behind is
brought up to date. A copy that is ahead, because its machine was killed before it had uploaded, is told byte by byte
from one that contradicts the bucket. An object of the journal is created once and then only grows: if two processes go
on from the same byte, one of them fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.bucket import lease as leases
from fashion.bucket.address import Address, is_address, parse_address
from fashion.bucket.lease import Lease
from fashion.bucket.store import NotThereError, Store, TakenError
from fashion.data.contents import default_cache_dir
from fashion.errors import Problem, RunError
from fashion.files import KernelLock, now, parse, write_atomic
from fashion.record.find import named_run
from fashion.record.lock import driver_alive
from fashion.record.run import Run
from fashion.storage.segments import Progress, follow, last_put, mark, segments

MANIFEST = "manifest.json"
LOCK_SECONDS = 600.0


class NoRunError(RunError):
    """There is no run at this address."""


def working_copy(address: Address) -> Path:
    """The folder of a run's copy on this machine, whether it exists or not."""
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:12]
    return default_cache_dir().absolute() / "stored" / f"{address.name[:64]}-{digest}"


def find(storage: str, name: str | None) -> Address | None:
    """The address of the run of this name; None if it is to be looked for in folders.

    Without a name it is the run with the latest activity. Raises RunError, with the nearest name, where there is no
    such run, and StorageError.
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
    return address / named_run(str(address), runs, name)


def addresses(storage: str) -> list[Address]:
    """The addresses in a bucket that may hold runs: every name directly below `storage`."""
    address = _parsed(storage, "--storage")
    return [address / name for name in Store(address).folders()]


def _parsed(text: str, place: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise RunError(Problem(place, f"must {error}", repr(text))) from None


@dataclass(frozen=True)
class WorkingCopy:
    """A run in a bucket as a reader sees it.

    `driven` says whether some process drives it, on whatever machine. `notes` are to be shown to the user.
    """

    address: Address
    path: Path
    driven: bool
    notes: tuple[str, ...] = ()

    def of(self, run: Run) -> Run:
        """The same run, which was read from this copy, with its location set to the address."""
        run.kept_at(str(self.address), self.driven)
        return run


def brought(address: Address, progress: Progress | None = None) -> WorkingCopy:
    """The run's working copy, brought up to date with the bucket. While this machine drives the run it is left alone.

    Raises NoRunError, RunError for a record with missing parts, and StorageError.
    """
    path = working_copy(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    if driver_alive(path) and (path / MANIFEST).is_file():
        return WorkingCopy(address, path, True)
    try:
        lock.acquire(timeout=1.0)
    except TimeoutError:
        # A driver on this machine that is still preparing, or another reader, is writing the copy.
        if (path / MANIFEST).is_file():
            return WorkingCopy(address, path, True)
        rule = "another process is reading this run for the first time at this moment"
        raise RunError(Problem(str(address), rule, fix="Try again")) from None
    try:
        store = Store(address)
        notes: list[str] = []
        if _reconcile(store, path, notes.append, progress) is None:
            raise NoRunError(Problem(str(address), "is no run", "no manifest.json"))
        return WorkingCopy(address, path, _driven(store), tuple(notes))
    finally:
        lock.release()


def _driven(store: Store) -> bool:
    """Whether some process holds the run's lease."""
    lease = next(store.objects(after=leases.NAME.removesuffix(".json")), None)
    if lease is None or lease.name != leases.NAME:
        return False
    try:
        return leases.driven(lease, store.get(leases.NAME))
    except NotThereError:
        return False


@dataclass(frozen=True)
class Held:
    """A run in a bucket that this process drives. `uploaded` is how many bytes of the journal are in the bucket."""

    address: Address
    path: Path
    store: Store
    lease: Lease
    uploaded: int


@contextmanager
def held(
    storage: str, name: str, note: Callable[[str], None], progress: Progress | None = None
) -> Iterator[Held | None]:
    """Within the `with` block only this process drives the run, whose working copy equals the bucket or is ahead of it.

    None for storage in a folder. Raises RunError where another process drives the run, StorageError where the bucket
    can't be read and written.
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
            lock.acquire(timeout=LOCK_SECONDS)  # a reader holds it while it brings the copy up to date
        except TimeoutError:
            rule = "another process is still reading this run"
            raise RunError(Problem(str(path), rule, fix="Wait for it, or stop it")) from None
        try:
            yield Held(address, path, store, lease, _reconcile(store, path, note, progress) or 0)
        finally:
            lock.release()


def _lock(path: Path) -> KernelLock:
    """The lock of whoever updates the working copy. It lies beside the copy, since the copy itself may be replaced."""
    return KernelLock(path.with_name(f"{path.name}.lock"))


def push_manifest(store: Store, path: Path) -> None:
    """Put the working copy's manifest; only the lease's holder may. Raises RunError if another process was faster."""
    content = (path / MANIFEST).read_bytes()
    try:
        try:
            there, version = store.get_version(MANIFEST)
        except NotThereError:
            there, version = b"", ""
        if there != content:
            store.put(MANIFEST, content, create=not version, version=version)
    except TakenError:
        if store.get(MANIFEST) != content:  # if it is the same, this put succeeded and its answer was lost
            rule = "another process has changed the run's manifest meanwhile"
            raise RunError(Problem(str(store.address), rule, fix="Run the same command again")) from None


def push_folder(address: Address, folder: Path, last: str = "") -> None:
    """Replace what the bucket has of a finished folder of the working copy (`best`, `predictions/test`).

    `last` names the file that marks the folder as whole. It is absent meanwhile.
    """
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
    """Bring the working copy up to date with the bucket. A copy that contradicts the bucket is set aside.

    Returns how many bytes of its journal are in the bucket, which may be fewer than it has; None where the bucket has
    no such run.
    """
    try:
        manifest = store.get(MANIFEST)
    except NotThereError:
        _set_aside(path, f"{store.address} no longer exists", note)
        return None
    if (path / MANIFEST).is_file() and _identity((path / MANIFEST).read_bytes()) != _identity(manifest):
        _set_aside(path, f"{store.address} is another run now", note)
    path.mkdir(exist_ok=True)
    known = follow(store, path, progress)
    if known is None:
        _set_aside(path, f"{store.address} was continued by another machine, without what only this machine had", note)
        path.mkdir()
        known = follow(store, path, progress)
        assert known is not None, "an empty journal contradicts nothing"
    if not (path / MANIFEST).is_file() or (path / MANIFEST).read_bytes() != manifest:
        write_atomic(path / MANIFEST, manifest)
    mark(path, known)
    return known


def _identity(manifest: bytes) -> Any:
    """What distinguishes runs of the same name."""
    try:
        content = parse(manifest)
        return content.get("id"), content["created"], content["data_fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return hashlib.sha256(manifest).hexdigest()


def _set_aside(path: Path, reason: str, note: Callable[[str], None]) -> None:
    """Rename a working copy that contradicts the bucket. A copy without a journal holds nothing and is removed."""
    if not path.exists():
        return
    journal = path / "journal.jsonl"
    if not journal.is_file() or not journal.stat().st_size:
        shutil.rmtree(path)
        return
    aside = path.with_name(f"{path.name}.{re.sub('[^0-9]', '', now())[:17]}")
    os.rename(path, aside)
    note(f"{reason}; this machine's copy is kept in {aside}")
