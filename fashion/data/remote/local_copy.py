"""This machine's copy of a data set in a bucket: fetched once into the cache folder, and used only when whole.

The copy is a folder that `data.layout` can read, with images or packed caches. Three files lie beside it. NAME.json
says that the copy is whole, and its fingerprint. NAME.fetched has a line for each object with the version that was
fetched, so that an interrupted fetch can go on and a later one fetches only what has changed. NAME.lock is there
because the processes of a machine share the copy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fashion.bucket.address import Address, is_address, parse_address
from fashion.bucket.store import Object, Store
from fashion.config.data import AS_WRITTEN, Form, LabelReading
from fashion.data.cache.arrow_files import put_seal
from fashion.data.contents import require_room
from fashion.data.layout import Dataset, read_dataset
from fashion.data.lists import LABELLED
from fashion.data.remote import listing
from fashion.data.remote.fetch import Fetch, Progress
from fashion.data.remote.pushed import MANIFEST, Pushed, read_manifest
from fashion.errors import BlockedError, DataError, Problem
from fashion.files import KernelLock, write_atomic

# Seconds for which one request is repeated, and within which it must be answered. Longer waits are up to `data.fetch`,
# which can be interrupted.
PATIENCE, QUIET = 5.0, 20.0
LOCK_SECONDS = 1.0
DataRoot = Path | Address  # what `data.root` names
Known = dict[str, tuple[str, int]]  # name of an object that was fetched -> its version in the bucket, its size


def parse_root(text: str) -> DataRoot:
    """What `data.root` names: an address, or a folder as an absolute path. Raises DataError for a malformed address."""
    if not is_address(text):
        return Path(os.path.expanduser(text)).absolute()  # Path.expanduser raises for an unknown user
    try:
        return parse_address(text)
    except ValueError as error:
        raise DataError("The data set can't be found:", [Problem("data.root", f"must {error}", text)]) from None


def on_this_machine(
    root: DataRoot,
    cache_dir: Path,
    forms: Collection[Form] = (),
    splits: Collection[str] = LABELLED,
    fingerprint: str = "",
    progress: Progress | None = None,
    reading: LabelReading = AS_WRITTEN,
) -> Path:
    """The data set on this machine: `root` itself, or this machine's copy of what is in a bucket, fetched if necessary.

    Of packed images only those of `forms` and `splits` are fetched, of other data sets everything. A copy that already
    has the given fingerprint is used without asking the bucket. reading: how its labels are read.
    Waits while another process of this machine fetches.

    Raises:
        DataError: there is no data set there, or it can't be used, is damaged or lacks images in one of the forms.
        StorageError: the bucket can't be read.
        BlockedError: the cache folder can't be written.
    """
    if isinstance(root, Path):
        return root
    copy = LocalCopy(root, cache_dir, reading)
    if fingerprint and copy.holds(fingerprint, forms, splits):
        return copy.root
    with copy.mine(progress):
        if not (fingerprint and copy.holds(fingerprint, forms, splits)):
            with _room_for(copy.root):
                copy.fetch(forms, splits, progress)
                copy.finish(progress)
    return copy.root


def fetch_unread(address: Address, cache_dir: Path, progress: Progress | None = None) -> Path:
    """Like `on_this_machine`, but for a data set that may be unusable, to find out why."""
    copy = LocalCopy(address, cache_dir)
    with copy.mine(progress), _room_for(copy.root):
        copy.fetch((), (), progress)
    return copy.root


@contextmanager
def _room_for(root: Path) -> Iterator[None]:
    """Turn an OSError inside the `with` block into a BlockedError."""
    try:
        yield
    except OSError as error:
        raise BlockedError(
            f"The data set can't be written in {root}: {error}. Set FASHION_CACHE to a folder with room."
        ) from error


@dataclass(frozen=True)
class LocalCopy:
    """A machine's copy of the data set at an address. `root` is its folder, whether it exists or not."""

    address: Address
    cache_dir: Path
    reading: LabelReading = AS_WRITTEN

    @property
    def root(self) -> Path:
        digest = hashlib.sha256(str(self.address).encode()).hexdigest()[:12]
        return self.cache_dir / "data" / f"{self.address.name[:64]}-{digest}"

    def _beside(self, suffix: str) -> Path:
        return self.root.with_name(self.root.name + suffix)

    def holds(self, fingerprint: str, forms: Collection[Form], splits: Collection[str]) -> bool:
        """Whether the copy is whole, is of this data set, and has the packed images that are wanted."""
        try:
            if json.loads(self._beside(".json").read_bytes())["fingerprint"] != fingerprint:
                return False
            pushed = read_manifest(self.root)
            if pushed is None or not pushed.packs:
                return True
            fetched = self._fetched()
            return all(
                pack.path in fetched and _is_here(self.root / pack.path, pack.size)
                for pack in pushed.wanted(splits, forms, str(self.address))
            )
        except (OSError, ValueError, KeyError, TypeError, DataError):
            return False  # the bucket will tell what is wrong, or was pushed since

    @contextmanager
    def mine(self, progress: Progress | None) -> Iterator[None]:
        """Within the `with` block no other process touches the copy."""
        with _room_for(self.root):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            lock, waited = KernelLock(self._beside(".lock")), 0
            while not lock.held:
                try:
                    lock.acquire(timeout=LOCK_SECONDS)
                except TimeoutError:
                    waited += 1
                    if progress is not None:
                        progress(f"another process is fetching {self.address} (s)", waited, waited + 60)
        try:
            yield
        finally:
            lock.release()

    def fetch(self, forms: Collection[Form], splits: Collection[str], progress: Progress | None) -> None:
        """Fetch what is missing or has changed in the bucket, and remove what is no longer there."""
        store = Store(self.address, PATIENCE, QUIET)
        lists = listing.lists(store)
        self.root.mkdir(parents=True, exist_ok=True)
        known = self._bring(store, self._fetched(), lists, {}, progress)
        self._forget(known, {name for name in known if listing.is_list(name)} - lists.keys())
        pushed = self._manifest()
        if pushed is not None and pushed.packs:
            packs = pushed.wanted(splits, forms, str(self.address))
            wanted, still = listing.packs(store, packs), {pack.path for pack in pushed.packs}
            for pack in packs:
                (self.root / pack.path).parent.mkdir(parents=True, exist_ok=True)
                put_seal(self.root / pack.path, pack.seal)  # first: a cache file without a seal counts as damaged
            known = self._bring(store, known, wanted, {pack.path: pack.sha256 for pack in packs}, progress)
        else:
            wanted = listing.images(store, self.root)
            still = set(wanted)
            known = self._bring(store, known, wanted, {}, progress)
        self._forget(known, known.keys() - lists.keys() - still)
        lines = [json.dumps([name, *what]) + "\n" for name, what in sorted(known.items())]
        write_atomic(self._beside(".fetched"), "".join(lines).encode())

    def finish(self, progress: Progress | None) -> None:
        """Mark the copy as whole. Raises DataError where it is not."""
        pushed = self._manifest()
        dataset = self._read(self.reading if pushed is None else AS_WRITTEN)
        label = "contents of all images"
        fingerprint = dataset.fingerprint(
            None if progress is None else lambda done, total: progress(label, done, total)
        )
        if pushed is not None and fingerprint != pushed.fingerprint:
            self._beside(".fetched").unlink(missing_ok=True)
            rule = f"must hold what was pushed, with fingerprint {pushed.fingerprint}"
            fix = "Push it again; if it is whole in the bucket, run the command again, which fetches all of it anew"
            problem = Problem(str(self.address), rule, fingerprint, fix)
            raise DataError("The data set in the bucket is damaged:", [problem])
        write_atomic(
            self._beside(".json"), json.dumps({"address": str(self.address), "fingerprint": fingerprint}).encode()
        )

    def _read(self, reading: LabelReading) -> Dataset:
        try:
            return read_dataset(self.root, reading=reading)
        except DataError as error:
            raise DataError(f"The data set at {self.address} can't be used:", error.problems) from error

    def _manifest(self) -> Pushed | None:
        try:
            return read_manifest(self.root)
        except ValueError as error:
            rule = "must be as `fashion-sweep data push` wrote it"
            problem = Problem(str(self.address / MANIFEST), rule, str(error), "Push the data set again")
            raise DataError("The data set can't be used:", [problem]) from error

    def _bring(
        self, store: Store, known: Known, wanted: dict[str, Object], digests: dict[str, str], progress: Progress | None
    ) -> Known:
        """Fetch those objects that are not here in the bucket's version. Returns what is here afterwards."""
        missing = [
            each
            for name, each in wanted.items()
            if known.get(name) != (each.version, each.size) or not _is_here(self.root / name, each.size)
        ]
        if not missing:
            return known
        self._beside(".json").unlink(missing_ok=True)
        require_room(f"The data set at {self.address}", sum(each.size for each in missing), self.root.parent)
        known = dict(known)
        with open(self._beside(".fetched"), "a", encoding="utf-8") as log:

            def fetched(each: Object) -> None:
                known[each.name] = (each.version, each.size)
                log.write(json.dumps([each.name, each.version, each.size]) + "\n")
                log.flush()

            Fetch(store, self.root, self._beside(".partial"), fetched, progress).bring(missing, digests)
        return known

    def _forget(self, known: Known, names: Collection[str]) -> None:
        """Remove what is no longer in the bucket's data set."""
        for name in names:
            self._beside(".json").unlink(missing_ok=True)
            (self.root / name).unlink(missing_ok=True)
            if (parent := (self.root / name).parent) != self.root:
                with suppress(OSError):  # others are still in it; an empty split/ would be taken for a data set's form
                    parent.rmdir()
            del known[name]

    def _fetched(self) -> Known:
        """What the log says was fetched. A damaged line was cut off by a kill, and its file is fetched again."""
        found: Known = {}
        try:
            lines = self._beside(".fetched").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return found
        for line in lines:
            try:
                name, version, size = json.loads(line)
                found[str(name)] = (str(version), int(size))
            except (ValueError, TypeError):
                continue
        return found


def _is_here(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False
