"""A data set into a bucket: its folder as it is, or the packed caches of it in the images' place.

What is there already is not sent again, so that an interrupted push goes on. The manifest is put last: until then no
machine takes what is there for a data set. Meanwhile an object says whose push it is.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fashion.bucket.address import Address
from fashion.bucket.store import PART, NotThereError, Object, Store, TakenError
from fashion.data.layout import Dataset
from fashion.data.pack import Pack, read_seal
from fashion.data.pushed import MANIFEST, Form, PackFile, Pushed
from fashion.data.remote.fetch import THREADS, Progress, Waiting, megabytes
from fashion.data.remote.listing import CLAIM, LISTS
from fashion.errors import DataError, Problem

PATIENCE = 5.0  # seconds that one request is repeated for


@dataclass(frozen=True)
class Sent:
    """What a push did. sent: objects, of `size` bytes; kept: those that were there already; left: those below the address
    that are not of the data set. forms: of which packed images are there now."""

    fingerprint: str
    sent: int
    kept: int
    size: int
    left: int
    forms: tuple[Form, ...]


def push(
    dataset: Dataset,
    address: Address,
    forms: Sequence[Form],
    replace: bool,
    progress: Progress,
    cache_dir: Path | None = None,
) -> Sent:
    """Put the data set at an address; with forms its packed caches, which are built here first if need be.

    Caches of further forms may be pushed to an address that has some. Another data set there, or this one in the other
    way, is left alone without `replace`.

    Raises:
        DataError: the images can't be used, or the address holds something else.
        StorageError: the bucket can't be read or written.
    """
    if dataset.packed is not None:
        problem = Problem(
            str(dataset.root), "holds packed images", fix="Push the folder that has the images themselves"
        )
        raise DataError("The data set can't be pushed:", [problem])
    store = Store(address, PATIENCE)
    there = _listed(store, progress)
    contents = dataset.contents(partial(progress, "contents of all images"))
    wanted = Pushed(dataset.fingerprint(), contents)
    old, version = _manifest(store)
    claim = json.dumps({"fingerprint": wanted.fingerprint, "packed": bool(forms)}).encode()
    claimed = _read(store, CLAIM)
    if not replace:
        _require_free(address, wanted, bool(forms), old, claim, claimed, there)
    packs = _packed(dataset, forms, cache_dir, progress)
    if claimed != claim:
        _claim(store, claim, claimed)
    if old is not None and not _alike(old, wanted, bool(forms)):
        store.delete([MANIFEST])  # a machine that fetches now must not meet a mixture
        old, version = None, ""
    lists = {name: dataset.root / name for name in LISTS if (dataset.root / name).is_file()}
    if packs:
        files = {file.path: path for file, path in packs}
        new = {(file.split, file.form) for file, _ in packs}
        kept = [each for each in (old.packs if old else ()) if (each.split, each.form) not in new]
        wanted = Pushed(wanted.fingerprint, contents, (*kept, *(file for file, _ in packs)))
    else:
        images = [image for split in dataset.splits.values() for image in split.images]
        files = {posixpath.normpath(image): dataset.root / image for image in images}
    sending = _Sending(store, there, progress)
    sending.all({**lists, **files})
    still = {*lists, *files, *(pack.path for pack in wanted.packs), MANIFEST, CLAIM}
    gone = [name for name in there.keys() - still if name in LISTS]
    store.delete(gone)  # before: they would change what is read
    _put_manifest(store, wanted, version)
    old_packs = [name for name in there.keys() - still if name.startswith("packs/")]
    store.delete([*old_packs, CLAIM])
    left = len(there.keys() - still) - len(gone) - len(old_packs)
    return Sent(wanted.fingerprint, sending.sent, sending.kept, sending.size, left, tuple(wanted.forms))


def _listed(store: Store, progress: Progress) -> dict[str, Object]:
    there: dict[str, Object] = {}
    for each in store.objects():
        there[each.name] = each
        if len(there) % 1000 == 0:  # a request
            progress(f"listing {store.address}", len(there), len(there) + 1000)
    return there


def _manifest(store: Store) -> tuple[Pushed | None, str]:
    """What is there, and the version of the manifest's object."""
    try:
        content, version = store.get_version(MANIFEST)
        return Pushed.from_json(content), version
    except NotThereError:
        return None, ""
    except ValueError as error:
        fix = "Remove the object, if nobody uses what is there, and type the command again"
        problem = Problem(
            str(store.address / MANIFEST), "must be as `fashion-sweep data push` wrote it", str(error), fix
        )
        raise DataError("The address is taken:", [problem]) from error


def _alike(old: Pushed, wanted: Pushed, packed: bool) -> bool:
    return old.fingerprint == wanted.fingerprint and bool(old.packs) == packed


def _require_free(
    address: Address,
    wanted: Pushed,
    packed: bool,
    old: Pushed | None,
    claim: bytes,
    claimed: bytes | None,
    there: Mapping[str, Object],
) -> None:
    """Raise DataError unless nothing is there but what this data set's earlier pushes left."""
    fix = "Push to another address, or replace what is there: --replace"
    rule = f"takes the data set {wanted.fingerprint}, or is free"
    if old is not None and old.fingerprint != wanted.fingerprint:
        value = f"the data set {old.fingerprint}"
    elif old is not None and not _alike(old, wanted, packed):
        value = f"this data set {'as its images' if packed else 'as packed images'}"
    elif claimed is not None and claimed != claim:
        value = "another push that is under way or was interrupted"
    elif old is None and claimed is None and there:
        value = f"{len(there):,} objects of something else"
    else:
        return
    raise DataError("The address is taken:", [Problem(str(address), rule, value, fix)])


def _claim(store: Store, claim: bytes, claimed: bytes | None) -> None:
    try:
        store.put(CLAIM, claim, create=claimed is None)
    except TakenError:
        if _read(store, CLAIM) != claim:  # else it met itself, repeated after a lost answer, or its like
            problem = Problem(
                str(store.address), "is pushed to by somebody else just now", fix="Choose another address"
            )
            raise DataError("The address is taken:", [problem]) from None


def _put_manifest(store: Store, wanted: Pushed, version: str) -> None:
    content = json.dumps(wanted.to_json(), indent=1).encode()
    try:
        store.put(MANIFEST, content, create=not version, version=version)
    except TakenError:
        if _read(store, MANIFEST) != content:  # else as above
            fix = "Type the command again"
            problem = Problem(str(store.address), "was pushed to by somebody else meanwhile", fix=fix)
            raise DataError("The address is taken:", [problem]) from None


def _read(store: Store, name: str) -> bytes | None:
    try:
        return store.get(name)
    except NotThereError:
        return None


def _packed(
    dataset: Dataset, forms: Sequence[Form], cache_dir: Path | None, progress: Progress
) -> list[tuple[PackFile, Path]]:
    """The caches of all splits, built where they are missing, with their files here."""
    found = []
    for resize, fit, interpolation in forms:
        for split in dataset.splits:
            label = f"{split} images at {resize} px"
            pack = Pack.open_or_build(
                dataset, split, resize, fit, interpolation, cache_dir, partial(progress, label), verify=True
            )
            with open(pack.path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            path = f"packs/{digest[:16]}/{pack.path.name}"
            form, size = (resize, fit, interpolation), pack.path.stat().st_size
            found.append((PackFile(split, form, path, size, digest, read_seal(pack.path)), pack.path))
    return found


class _Sending:
    """Puts files that are not there yet, several at a time. sent, kept: how many; size: bytes that were sent."""

    def __init__(self, store: Store, there: Mapping[str, Object], progress: Progress) -> None:
        self.store, self.there, self.progress = store, there, progress
        self.waiting = Waiting(str(store.address), progress)
        self.lock = threading.Lock()
        self.sent = self.kept = self.size = self.done = self.total = 0

    def all(self, files: Mapping[str, Path]) -> None:
        sizes = {name: path.stat().st_size for name, path in files.items()}
        self.total = sum(sizes.values())
        pool = ThreadPoolExecutor(THREADS)
        try:
            for _ in pool.map(lambda name: self._small(name, files[name]), [n for n in files if sizes[n] <= PART]):
                pass
            for name in files:
                if sizes[name] > PART:
                    self._large(name, files[name])
        finally:
            self.waiting.stopped.set()
            pool.shutdown(cancel_futures=True)

    def _small(self, name: str, path: Path) -> None:
        content = path.read_bytes()
        if self._is_there(name, len(content), f'"{_md5(content).hex()}"'):
            return
        self.waiting(lambda: self.store.put(name, content))
        self._count(len(content))
        self._count_sent(len(content))

    def _large(self, name: str, path: Path) -> None:
        size = path.stat().st_size
        found = self.there.get(name)
        if found is not None and found.size == size and self._is_there(name, size, _tag_of_parts(path)):
            return

        def send() -> None:
            before = self.done
            try:
                self.store.put_blocks(name, self._blocks(path))
            except BaseException:
                self.done = before
                raise

        self.waiting(send)
        self._count_sent(size)

    def _blocks(self, path: Path) -> Iterator[bytes]:
        with open(path, "rb") as file:
            while block := file.read(PART):
                yield block
                self._count(len(block))

    def _is_there(self, name: str, size: int, tag: str) -> bool:
        """Whether an object of that content is there. Stores whose tags are no MD5 get it again."""
        found = self.there.get(name)
        if found is None or found.size != size or found.version != tag:
            return False
        with self.lock:
            self.kept += 1
        self._count(size)
        return True

    def _count(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.progress(f"pushing to {self.store.address} (MB)", megabytes(self.done), megabytes(self.total))

    def _count_sent(self, size: int) -> None:
        with self.lock:
            self.sent += 1
            self.size += size


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _tag_of_parts(path: Path) -> str:
    """What S3 tags an object with that was sent in parts: the MD5 of their MD5s."""
    with open(path, "rb") as file:
        parts = [_md5(part) for part in iter(lambda: file.read(PART), b"")]
    return f'"{_md5(b"".join(parts)).hex()}-{len(parts)}"'
