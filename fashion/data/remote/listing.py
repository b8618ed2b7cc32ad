"""What a data set in a bucket consists of: its objects as the bucket lists them, before any is fetched."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fashion.bucket.store import NotThereError, Object, Store
from fashion.data.forms.label_file import NAMES
from fashion.data.forms.sidecar import SIDECAR
from fashion.data.forms.table import forms_in_words, scan_layout
from fashion.data.lists import LARGEST_LIST, SPLITS
from fashion.data.remote.pushed import MANIFEST, PackFile
from fashion.errors import DataError, Problem

CLAIM = "fashion-sweep.pushing.json"  # there while a data set is being pushed
# Everything that is read from split/.
LISTS = (
    *(f"split/{split}{end}.txt" for split in SPLITS for end in ("", "_attr")),
    "split/list_attr_cloth.txt",
    "split/attribute_names.txt",
)
# And what is read of a label file's data set.
LABEL_FILES = (*NAMES, SIDECAR)


def is_list(name: str) -> bool:
    """Whether an object is a list or the manifest, as opposed to images or packs."""
    return name == MANIFEST or name.startswith("split/") or name in LABEL_FILES


def lists(store: Store) -> dict[str, Object]:
    """The data set's lists and its manifest, by name.

    Raises DataError where there is no data set, or its push is not finished.
    """
    found = {each.name: each for each in store.objects("split") if each.name in LISTS and each.size <= LARGEST_LIST}
    place = str(store.address)
    try:
        content, version = store.part(MANIFEST)
        found[MANIFEST] = Object(MANIFEST, len(content), version, datetime.now(UTC))
    except NotThereError:
        # A data set without a manifest was copied there by other means: what is missing will show. But a push puts the
        # manifest last.
        if exists(store, CLAIM):
            rule, fix = "is being pushed, or a push was interrupted", "Run the same push again to finish it"
            raise DataError("The data set is not whole:", [Problem(place, rule, fix=fix)]) from None
    if LISTS[0] not in found:
        found |= _label_files(store)
    if LISTS[0] not in found and not any(name in found for name in NAMES):
        there = ", ".join(f"{name}/" for name in store.folders()[:5]) or "nothing"
        fix = f"Correct data.root, or push a data set there: fashion-sweep data push DIR {place}"
        rule = f"in a bucket as in a folder, {forms_in_words()}"
        raise DataError("There is no data set:", [Problem(place, rule, there, fix)])
    return found


def _label_files(store: Store) -> dict[str, Object]:
    """The label files at the top of the address, and what describes their labels."""
    found: dict[str, Object] = {}
    for stem in sorted({name.partition(".")[0] for name in LABEL_FILES}):
        for each in store.objects(after=f"{stem}."):  # sorted: those that begin so are the first
            if not each.name.startswith(f"{stem}."):
                break
            if each.name in LABEL_FILES and each.size <= LARGEST_LIST:
                found[each.name] = each
    return found


def exists(store: Store, name: str) -> bool:
    """Whether there is an object of that name. Meant for small ones: its content is read."""
    try:
        store.get(name)
    except NotThereError:
        return False
    return True


def packs(store: Store, wanted: Sequence[PackFile]) -> dict[str, Object]:
    """The objects of these packs, by name. Raises DataError naming every one that is missing."""
    there = {each.name: each for each in store.objects("packs")} if wanted else {}
    if missing := [pack.path for pack in wanted if pack.path not in there]:
        problems = [Problem(str(store.address / name), "is missing", fix="Push it again") for name in missing]
        raise DataError("The data set in the bucket is damaged:", problems)
    return {pack.path: there[pack.path] for pack in wanted}


def images(store: Store, root: Path) -> dict[str, Object]:
    """The objects of all images that the lists in `root` name. Missing ones are left out: readers will notice."""
    scan = scan_layout(root)
    names = {
        posixpath.normpath(image) for listed in scan.images.values() for image in listed if image not in scan.refused
    }
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    there = {each.name: each for top in ([""] if "" in tops else sorted(tops)) for each in store.objects(top)}
    return {name: there[name] for name in names & there.keys()}
