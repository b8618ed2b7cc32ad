"""Pushing a data set into a bucket: its folder as it is, or with packed caches instead of the images.

What is there already is not sent again, so an interrupted push can go on. The manifest is put last: until then no
machine takes what is there for a data set. Meanwhile a claim, an object of its own, says which data set is being
pushed.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fashion.bucket.address import Address
from fashion.bucket.store import NotThereError, Object, Store, TakenError
from fashion.config.data import Form
from fashion.data.cache.arrow_files import read_seal
from fashion.data.convert.write import rows_of, write_labels
from fashion.data.layout import Dataset
from fashion.data.lists import CHALLENGE
from fashion.data.pack import Pack
from fashion.data.remote.fetch import Progress
from fashion.data.remote.listing import CLAIM, LABEL_FILES, LISTS
from fashion.data.remote.pushed import MANIFEST, PackFile, Pushed
from fashion.data.remote.send import Send
from fashion.errors import DataError, Problem

PATIENCE = 5.0  # seconds for which one request is repeated


@dataclass(frozen=True)
class Sent:
    """What a push did.

    It sent `sent` objects of `size` bytes in all. `kept` objects were there already. `left` objects below the address
    do not belong to the data set and were left alone. `forms` are those in which packed images are there now.
    """

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
    """Put the data set at an address, either its images or, with `forms`, packed caches, built first if necessary.

    Caches in further forms may be added to those at an address. Without `replace`, another data set there is left
    alone, and so is this one if it holds images where caches are pushed or the reverse.

    Raises:
        DataError: the images can't be used, or the address holds something else.
        StorageError: the bucket can't be read or written.
    """
    if dataset.packed is not None:
        fix = "Push the folder that has the images themselves"
        problem = Problem(str(dataset.root), "holds packed images", fix=fix)
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
    with tempfile.TemporaryDirectory(prefix="fashion-push-") as scratch:
        lists = _lists(dataset, Path(scratch))
        return _sent(dataset, store, there, old, version, wanted, packs, lists, progress)


def _lists(dataset: Dataset, scratch: Path) -> dict[str, Path]:
    """The files that name the images and their labels, by the names of their objects. In another form than the
    challenge's they are written anew, with the split of each image, so that no machine has to divide the data again."""
    if dataset.form == CHALLENGE:
        return {name: dataset.root / name for name in LISTS if (dataset.root / name).is_file()}
    return {path.name: path for path in write_labels(rows_of(dataset), scratch / "labels.parquet")}


def _sent(
    dataset: Dataset,
    store: Store,
    there: Mapping[str, Object],
    old: Pushed | None,
    version: str,
    wanted: Pushed,
    packs: Sequence[tuple[PackFile, Path]],
    lists: Mapping[str, Path],
    progress: Progress,
) -> Sent:
    """Send what is not there, remove what an earlier data set left, and put the manifest last."""
    if packs:
        files = {file.path: path for file, path in packs}
        new = {(file.split, file.form) for file, _ in packs}
        kept = [each for each in (old.packs if old else ()) if (each.split, each.form) not in new]
        wanted = Pushed(wanted.fingerprint, wanted.contents, (*kept, *(file for file, _ in packs)))
    else:
        images = [image for split in dataset.splits.values() for image in split.images]
        files = {posixpath.normpath(image): dataset.root / image for image in images}
    sending = Send(store, there, progress)
    sending.all({**lists, **files})
    still = {*lists, *files, *(pack.path for pack in wanted.packs), MANIFEST, CLAIM}
    gone = [name for name in there.keys() - still if name in (*LISTS, *LABEL_FILES)]
    store.delete(gone)  # before the manifest: they would change what is read
    _put_manifest(store, wanted, version)
    old_packs = [name for name in there.keys() - still if name.startswith("packs/")]
    store.delete([*old_packs, CLAIM])
    left = len(there.keys() - still) - len(gone) - len(old_packs)
    return Sent(wanted.fingerprint, sending.sent, sending.kept, sending.size, left, tuple(wanted.forms))


def _listed(store: Store, progress: Progress) -> dict[str, Object]:
    """All objects at the address, by name."""
    there: dict[str, Object] = {}
    for each in store.objects():
        there[each.name] = each
        if len(there) % 1000 == 0:  # one request's worth
            progress(f"listing {store.address}", len(there), len(there) + 1000)
    return there


def _manifest(store: Store) -> tuple[Pushed | None, str]:
    """The manifest at the address and the version of its object; (None, "") where there is none."""
    try:
        content, version = store.get_version(MANIFEST)
        return Pushed.from_json(content), version
    except NotThereError:
        return None, ""
    except ValueError as error:
        rule = "must be as `fashion-sweep data push` wrote it"
        fix = "If nobody uses what is there, remove the object and run the command again"
        problem = Problem(str(store.address / MANIFEST), rule, str(error), fix)
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
    """Raise DataError where the address holds anything but what earlier pushes of this data set left."""
    fix = "Push to another address, or replace what is there: --replace"
    rule = f"must be free or hold the data set {wanted.fingerprint}"
    if old is not None and old.fingerprint != wanted.fingerprint:
        value = f"the data set {old.fingerprint}"
    elif old is not None and not _alike(old, wanted, packed):
        value = f"this data set {'as its images' if packed else 'as packed images'}"
    elif claimed is not None and claimed != claim:
        value = "another push that is under way or was interrupted"
    elif old is None and claimed is None and there:
        value = f"{len(there):,} other objects"
    else:
        return
    raise DataError("The address is taken:", [Problem(str(address), rule, value, fix)])


def _claim(store: Store, claim: bytes, claimed: bytes | None) -> None:
    """Put the claim. Raises DataError where another push puts its own at the same time."""
    try:
        store.put(CLAIM, claim, create=claimed is None)
    except TakenError:
        # If it is the same claim, the request was repeated after a lost answer, or the same data set is being pushed
        # twice.
        if _read(store, CLAIM) != claim:
            rule = "somebody else is pushing there at this moment"
            problem = Problem(str(store.address), rule, fix="Choose another address")
            raise DataError("The address is taken:", [problem]) from None


def _put_manifest(store: Store, wanted: Pushed, version: str) -> None:
    content = json.dumps(wanted.to_json(), indent=1).encode()
    try:
        store.put(MANIFEST, content, create=not version, version=version)
    except TakenError:
        if _read(store, MANIFEST) != content:  # if it is the same: as with the claim
            rule = "somebody else has pushed there meanwhile"
            problem = Problem(str(store.address), rule, fix="Run the command again")
            raise DataError("The address is taken:", [problem]) from None


def _read(store: Store, name: str) -> bytes | None:
    """An object's content; None where there is none."""
    try:
        return store.get(name)
    except NotThereError:
        return None


def _packed(
    dataset: Dataset, forms: Sequence[Form], cache_dir: Path | None, progress: Progress
) -> list[tuple[PackFile, Path]]:
    """The caches of all splits, built if they are missing, each with its file on this machine."""
    found = []
    for form in forms:
        for split in dataset.splits:
            label = partial(progress, f"{split} images at {form.resize} px")
            pack = Pack.open_or_build(dataset, split, *form, cache_dir=cache_dir, progress=label, verify=True)
            with open(pack.path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            path = f"packs/{digest[:16]}/{pack.path.name}"
            size = pack.path.stat().st_size
            found.append((PackFile(split, form, path, size, digest, read_seal(pack.path)), pack.path))
    return found
