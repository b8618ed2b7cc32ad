"""The forms in which a data set may lie, in one table, told apart by what is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fashion.config.data import AS_WRITTEN, LabelReading
from fashion.data.forms import image_folder, label_file
from fashion.data.forms.challenge import scan_challenge
from fashion.data.forms.columns import SPLIT_WORDS
from fashion.data.forms.rows import READERS
from fashion.data.lists import CHALLENGE, Looking, Scan
from fashion.data.pictures.formats import suffixes
from fashion.errors import Problem, nearest

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_LOOKED_AT = 2000  # entries of a folder that is in no form


@dataclass(frozen=True)
class DataLayout:
    """words: what it looks like. found: the file or folder that holds it, given what the user named; None where that is
    no such data set. scan: its images and labels, with every problem instead of an exception."""

    words: str
    found: Callable[[Path], Path | None]
    scan: Callable[[Path, bool, LabelReading, Looking | None], Scan]


def scan_layout(
    root: str | Path,
    follow_links: bool = False,
    reading: LabelReading = AS_WRITTEN,
    looking: Looking | None = None,
) -> Scan:
    """Scan a data set in the first of LAYOUTS that it is in. What is in none gets one problem, which says what is there
    and what would make it a data set. follow_links: images may lie outside of the folder, behind symbolic links.
    looking: is told how many images have been looked at."""
    told = form_of(root)
    if told is None:
        scan = Scan(Path(os.path.realpath(root)), follow_links=follow_links)
        scan.problems.append(("missing", unknown(Path(root))))
        return scan
    name, place = told
    return LAYOUTS[name].scan(place, follow_links, reading, looking)


def form_of(root: str | Path) -> tuple[str, Path] | None:
    """The name of the form of what is at `root`, and the file or folder to scan; None where it is in none."""
    for name, layout in LAYOUTS.items():
        if (place := layout.found(Path(root))) is not None:
            return name, place
    return None


def forms_in_words() -> str:
    """What a data set may be, in one sentence."""
    return "a data set is " + "; or ".join(layout.words for layout in LAYOUTS.values())


def unknown(root: Path) -> Problem:
    """The problem of what is in no form: which forms there are, what is there, and what makes it the nearest one."""
    value, fix = _looked_at(root)
    return Problem(str(root), forms_in_words(), value, fix)


def _looked_at(root: Path) -> tuple[str, str]:
    """What is there instead of a data set, and what would mend it."""
    demo = "Correct data.root, or make a data set: fashion-sweep data demo DIR."
    if not os.path.exists(root):
        parent = root.parent
        near = nearest(root.name, [each.name for each in os.scandir(parent)]) if parent.is_dir() else ""
        return "nothing there", near or demo
    if not root.is_dir():
        return _looked_at_file(root)
    with os.scandir(root) as entries:
        found = [entry for _, entry in zip(range(_LOOKED_AT), entries, strict=False)]
    folders = sorted(each.name for each in found if each.is_dir())
    endings = Counter(os.path.splitext(each.name)[1].lower() for each in found if not each.is_dir())
    tables = sorted(each.name for each in found if os.path.splitext(each.name)[1].lower() in READERS)
    parts = [f"{len(folders)} folder{'s' if len(folders) > 1 else ''} ({', '.join(folders[:4])})"] if folders else []
    parts += [f"{count:,} {ending or 'files without an ending'}" for ending, count in endings.most_common(4)]
    value = f"no folder split/ and no label file, but {', '.join(parts)}" if parts else "an empty folder"
    if tables:
        many = f", or call it labels{os.path.splitext(tables[0])[1]}" if len(tables) == 1 else ""
        return value, f"Name the label file itself: {root / tables[0]}{many}"
    if "list_attr_celeba.txt" in [each.name for each in found]:
        return value, f"It looks like CelebA: fashion-sweep data convert {root} labels.csv"
    for name in folders:
        if form_of(root / name) is not None and SPLIT_WORDS.get(name.lower()) is None:
            return value, f"{root / name} is a data set: name that folder"
    if any(ending in suffixes() for ending in endings):
        fix = "Put the images of each class into a folder that is named after it, or write a label file beside them: "
        return value, f"{fix}labels.csv with the line file_name,label and a line for each image"
    if any(ending in _ARCHIVES for ending in endings):
        return value, "Unpack the archive"
    return value, demo


def _looked_at_file(path: Path) -> tuple[str, str]:
    ending = path.suffix.lower()
    kind = f"a file that ends in {ending}" if ending else "a file without an ending"
    if ending in _ARCHIVES:
        return f"an archive ({ending})", "Unpack it, and name the folder or the label file that it holds"
    if ending in _SPREADSHEETS:
        return f"a spreadsheet ({ending})", "Save it as CSV (UTF-8)"
    if ending == ".json":
        return kind, "If it is mmpretrain's: fashion-sweep data convert FILE labels.csv. Otherwise write JSON Lines"
    if ending in suffixes():
        return "one picture", "Name the folder, or the label file, of all of them"
    return kind, f"A label file ends in {', '.join(READERS)}"


def _label_file(root: Path) -> Path | None:
    if root.is_dir():
        names = label_file.label_files(root)
        return root / names[0] if names else None
    return root if root.exists() and root.suffix.lower() in READERS else None


def _scan_label_file(path: Path, follow_links: bool, reading: LabelReading, looking: Looking | None) -> Scan:
    scan = label_file.scan_label_file(path, follow_links, reading, looking)
    others = [name for name in label_file.label_files(path.parent) if name != path.name]
    if others and path.name in label_file.NAMES and scan.problems:
        scan.add(
            "missing", path.name, "is what was read", f"{', '.join(others)} beside it", "Name the one that is meant"
        )
    return scan


def _scan_challenge(root: Path, follow_links: bool, reading: LabelReading, looking: Looking | None) -> Scan:
    scan = scan_challenge(root, follow_links, looking)
    for name, value in zip(reading._fields, reading, strict=True):
        if value is not None and name != "folds":
            rule = f"does not apply to {CHALLENGE}, whose lists say it"
            scan.add("names", f"data.{name}", rule, str(value), "`data convert` makes a label file of it")
    return scan


# In the order in which they are looked for.
LAYOUTS: Mapping[str, DataLayout] = {
    CHALLENGE: DataLayout(
        "a folder that holds img/ and split/ (the challenge's layout)",
        lambda root: root if os.path.isdir(root / "split") else None,
        _scan_challenge,
    ),
    label_file.FORM: DataLayout(
        f"a label file ({', '.join(READERS)}), or a folder with labels.* or metadata.* in it",
        _label_file,
        _scan_label_file,
    ),
    image_folder.FORM: DataLayout(
        "a folder with a folder of images for each class (CLASS/x.jpg, or train/CLASS/x.jpg)",
        lambda root: root if image_folder.is_image_folder(root) else None,
        image_folder.scan_image_folder,
    ),
}
