"""An ImageFolder: `train/CLASS/x.jpg`, or `CLASS/x.jpg` where there are no splits. Its one attribute is `label`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fashion.config.data import LabelReading
from fashion.data.forms.columns import SPLIT_WORDS
from fashion.data.forms.images import look_at, report_links
from fashion.data.forms.sidecar import read_sidecar
from fashion.data.lists import MISSING, Attribute, Looking, Scan
from fashion.data.pictures.formats import suffixes
from fashion.data.splits.assign import assign_splits
from fashion.errors import CONTROLS

FORM = "ImageFolder"
ATTRIBUTE = "label"
_NOT_MEANT = ("__MACOSX",)


def is_image_folder(root: Path) -> bool:
    """Whether a folder holds pictures in folders of its own: one of the first hundred of each is looked at."""
    return any(True for _ in _pictures_of_classes(root))


def _pictures_of_classes(root: Path) -> Iterator[str]:
    for folder in _folders(root)[:100]:
        for name in [folder, *(f"{folder}/{inner}" for inner in _folders(root / folder)[:100])]:
            for entry in os.scandir(root / name):
                if _is_picture(entry.name):
                    yield f"{name}/{entry.name}"


def split_folders(root: Path) -> dict[str, list[str]]:
    """Split -> the folders that are named like it and hold folders. Empty unless one of them is train."""
    found: dict[str, list[str]] = {}
    for name in _folders(root):
        split = SPLIT_WORDS.get(name.lower(), "") if not name.isdigit() else ""
        if split and (_folders(root / name) or split == "test"):
            found.setdefault(split, []).append(name)
    return found if "train" in found else {}


def scan_image_folder(root: Path, follow_links: bool, reading: LabelReading, looking: Looking | None = None) -> Scan:
    """Read the folders. What is wrong is collected in the scan; nothing is raised."""
    scan = Scan(Path(os.path.realpath(root)), follow_links=follow_links, form=FORM, looking=looking)
    described = read_sidecar(scan, scan.root)
    if reading.attributes not in (None, (ATTRIBUTE,)):
        rule = f"an ImageFolder has one attribute, {ATTRIBUTE}"
        scan.add("columns", "data.attributes", rule, ", ".join(reading.attributes or ()))
    by_split = split_folders(scan.root)
    tops = [(split, name) for split, names in by_split.items() for name in names] or [("", "")]
    for split, names in by_split.items():
        if len(names) > 1:
            scan.add("names", str(root), f"one folder holds the images of {split}", ", ".join(names))
    for name in _folders(scan.root) if by_split else ():
        if ("", name) not in tops and all(name != top for _, top in tops):
            words = ", ".join(sorted({word for word in SPLIT_WORDS if not word.isdigit()}))
            scan.add("names", f"{root}/{name}", f"a folder beside train is named after a split ({words})", name)
    if not by_split and "train" in map(str.lower, _folders(scan.root)):
        # Taken for classes, train and test would be learnt.
        fix = "Write one label file beside train, with a column split, in place of one in each folder (metadata.*)"
        scan.add("names", f"{root}/train", "a split's folder holds a folder for each class", "images without one", fix)
    images: list[str] = []
    labels: list[str | None] = []
    splits: list[str] = []
    for split, top in tops:
        at = f"{top}/" if top else ""
        loose = sorted(e.name for e in os.scandir(scan.root / top) if _is_picture(e.name)) if split == "test" else []
        for name in _folders(scan.root / top):
            found = [f"{at}{each}" for each in _pictures(scan, scan.root / top, name)]
            images += found
            labels += [name] * len(found)
        images += [f"{at}{each}" for each in loose]
        labels += [None] * len(loose)
        splits += [split] * (len(images) - len(splits))
    _fill(scan, images, labels, splits if by_split else None, reading, described.attribute(ATTRIBUTE))
    return scan


def _fill(
    scan: Scan,
    images: list[str],
    labels: list[str | None],
    splits: list[str] | None,
    reading: LabelReading,
    described: Attribute | None,
) -> None:
    for image in images:
        if CONTROLS.search(image):
            scan.refused.add(image)
            scan.add("path", ascii(image), "a file's name holds no control characters and is UTF-8")
        else:
            look_at(scan, image, image)
    report_links(scan)
    named = {name for name in labels if name is not None}
    attribute = described or Attribute(ATTRIBUTE, tuple(sorted(named, key=_number_or_name)))
    for name in sorted(named - set(attribute.classes)):
        scan.add("label", f"{scan.root}: {name}", "labels.json names every class", name)
    if not scan.problems:
        scan.attributes = (attribute,)
    index = {name: number for number, name in enumerate(attribute.classes)}
    matrix = np.array([[MISSING if name is None else index.get(name, MISSING)] for name in labels], np.int64)
    assign_splits(scan, images, np.arange(len(images)), matrix.reshape(-1, 1), splits, (), reading.split)


def _number_or_name(name: str) -> tuple[bool, int, str]:
    """Numbers as numbers, before names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _pictures(scan: Scan, folder: Path, name: str) -> list[str]:
    """The pictures in and below a class's folder, sorted, relative to `folder`."""
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder / name, followlinks=scan.follow_links):
        real = os.path.realpath(place)
        folders[:] = sorted(each for each in folders if _meant(each) and real not in seen)
        seen.add(real)  # links may lead round in a circle
        found += [os.path.relpath(os.path.join(place, each), folder) for each in files if _is_picture(each)]
    return sorted(found)


def _folders(folder: Path) -> list[str]:
    """The folders in a folder, sorted; hidden ones are not meant."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if _meant(entry.name) and entry.is_dir())


def _meant(name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_MEANT


def _is_picture(name: str) -> bool:
    return _meant(name) and os.path.splitext(name)[1].lower() in suffixes()
