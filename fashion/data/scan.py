"""Reads all text files of a data set and collects every structural problem instead of raising."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from fashion.data.lists import INSIDE, LABELLED, SPLITS, Attribute, Scan, text_lines, without_header
from fashion.data.pushed import MANIFEST, Pushed, read_manifest
from fashion.errors import CONTROLS

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_NAME = re.compile(r"[^\s/]+")
MOST_CLASSES = 10_000  # of an attribute without class names: one wrong label must not make a billion classes
TAKEN_NAME = "image"  # the name of a column in every file of predictions


@dataclass(frozen=True)
class DataLayout:
    """found: whether a folder is in this layout. scan: its lists and labels, with every problem instead of an
    exception."""

    found: Callable[[str], bool]
    scan: Callable[[str, bool], Scan]


def scan_layout(root: str | Path, follow_links: bool = False) -> Scan:
    """Scan a folder in the first of LAYOUTS that it is in. A folder in none gets the problems of the challenge's
    layout. follow_links: images may lie outside of the folder, behind symbolic links."""
    name = next((name for name, layout in LAYOUTS.items() if layout.found(str(root))), "challenge")
    return LAYOUTS[name].scan(str(root), follow_links)


def _scan_challenge(root: str, follow_links: bool) -> Scan:
    """Read every text file of the challenge's layout (`fashion.data.layout`) that is there. What is wrong is collected
    in the scan; nothing is raised."""
    scan = Scan(Path(os.path.realpath(root)), follow_links=follow_links)
    if not os.path.isdir(scan.root / "split"):
        scan.add("missing", root, "a data set is a folder that holds img/ and split/", "no folder split/ there",
                 "Set data.root to the data set, or make one: fashion-sweep data demo DIR.")  # fmt: skip
        return scan
    scan.packed = _read_packed(scan)
    for split in SPLITS:
        if split in LABELLED or (scan.root / f"split/{split}.txt").exists():
            _read_images(scan, split)
    _report_links(scan)
    headers: dict[str, list[str]] = {}
    for split in SPLITS:
        if split in LABELLED or (scan.root / f"split/{split}_attr.txt").exists():
            header = _read_labels(scan, split)
            if header is not None:
                headers[split] = header
    heads = _number_of_heads(scan)
    groups = _read_class_names(scan)
    names = _attribute_names(scan, heads, headers)
    if groups is not None and heads is not None and len(groups) != heads:
        scan.add(
            "heads",
            "split/list_attr_cloth.txt",
            f"has as many groups as split/train_attr.txt has columns ({heads})",
            f"{len(groups)} groups",
        )
    elif groups is None and heads is not None and not _too_many_classes(scan):
        groups = [tuple(str(label) for label in range(1 + _largest(scan, head))) for head in range(heads)]
    if groups is not None and len(names) == len(groups):
        scan.attributes = tuple(Attribute(name, classes) for name, classes in zip(names, groups, strict=True))
        _check_range(scan)
    return scan


def _read_packed(scan: Scan) -> Pushed | None:
    try:
        if outside := scan.elsewhere(MANIFEST):
            raise ValueError(f"{INSIDE}: {outside}")
        found = read_manifest(scan.root)
    except ValueError as error:
        scan.add("unreadable", MANIFEST, "must be as `fashion-sweep data push` wrote it", str(error), "Push it again")
        return None
    return found if found is not None and found.packs else None


def _read_images(scan: Scan, split: str) -> None:
    lines = text_lines(scan, f"{split}.txt")
    if lines is None:
        return
    lines = list(without_header(lines, lambda name: os.path.exists(scan.root / name)))
    if not lines:
        scan.add("empty", f"split/{split}.txt", "must list at least one image")
        return
    scan.images[split] = [line for _, line in lines]
    scan.lines[split] = [number for number, _ in lines]
    for number, image in lines:
        place = f"split/{split}.txt:{number}"
        if (
            PurePosixPath(image).is_absolute()
            or PureWindowsPath(image).drive
            or ".." in PurePosixPath(image).parts
            or "\\" in image
        ):
            scan.refused.add(image)
            rule = "an image's path is relative to the data set, uses / and has no .."
            scan.add("path", place, rule, repr(image))
        elif outside := scan.elsewhere(image):
            scan.refused.add(image)
            scan.links.append((place, image, outside))
        elif scan.packed is None and not os.path.isfile(scan.root / image):
            scan.add("missing", place, "the image file must exist", image, _other_form(scan.root, image))


def alike(one: str, other: str) -> bool:
    """Whether two names are the same text in Unicode's composed and decomposed form (macOS writes the latter)."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def _other_form(root: Path, image: str) -> str:
    """The remedy where the image is there under the same name in Unicode's other form."""
    for form, word in (("NFC", "composed"), ("NFD", "decomposed")):
        other = unicodedata.normalize(form, image)  # type: ignore[arg-type]
        if other != image and os.path.isfile(root / other):
            return (
                f"It is there in Unicode's {word} form, {other!a}: write the list in that form, or rename the "
                "files (convmv does it)"
            )
    return ""


def _report_links(scan: Scan) -> None:
    """One problem for all images behind links: such data sets have them by the thousand."""
    if scan.links:
        place, image, target = scan.links[0]
        more = f" (and {len(scan.links) - 1:,} more images)" if len(scan.links) > 1 else ""
        fix = (
            "If these are your links, follow them: data.follow_links: true in the spec, --follow-links for `data`. "
            "Or put the files themselves there: copy them (cp -rL), or make hard links (cp -rlL)"
        )
        scan.add("link", place, f"an image {INSIDE}", f"{image} -> {target}{more}", fix)


def _read_labels(scan: Scan, split: str) -> list[str] | None:
    """Fill `scan.rows[split]`; returns the header's words if the file has one."""
    name = f"split/{split}_attr.txt"
    lines = text_lines(scan, f"{split}_attr.txt")
    if lines is None:
        return None
    header = None
    if not any(re.search(r"^[+-]?\.?[0-9]", word) for word in lines[0][1].split()):
        header = lines[0][1].split()
        lines = lines[1:]
    words = [(number, line.split()) for number, line in lines]
    width = len(header) if header is not None else (len(words[0][1]) if words else 0)
    rows: list[tuple[int, ...] | None] = []
    for number, row in words:
        bad = [word for word in row if not _INTEGER.fullmatch(word)]
        if len(row) != width:
            scan.add("columns", f"{name}:{number}", f"has {width} labels, like the first line", f"{len(row)} labels")
        elif bad:
            scan.add("label", f"{name}:{number}", "labels are integers", ", ".join(repr(word) for word in bad))
        rows.append(None if bad or len(row) != width else tuple(int(word) for word in row))
    images = scan.images.get(split)
    if images is not None and len(images) != len(rows):
        scan.add(
            "count", name, f"one line of labels per image ({len(images)} in split/{split}.txt)", f"{len(rows)} lines"
        )
    scan.rows[split] = rows
    scan.row_lines[split] = [number for number, _ in words]
    return header


def _number_of_heads(scan: Scan) -> int | None:
    widths = {split: len(row) for split, rows in scan.rows.items() for row in rows if row is not None}
    for split, width in widths.items():
        if width != widths.get("train", width):
            scan.add(
                "heads",
                f"split/{split}_attr.txt",
                f"has as many labels per line as split/train_attr.txt ({widths['train']})",
                str(width),
            )
    return widths.get("train")


def _read_class_names(scan: Scan) -> list[tuple[str, ...]] | None:
    """Class names of every head, from `list_attr_cloth.txt`; None where it is missing or wrong.

    The file has an optional count, an optional header, then "name group" lines with groups from 1.
    """
    name = "split/list_attr_cloth.txt"
    if not (scan.root / name).exists():
        return None
    lines = text_lines(scan, "list_attr_cloth.txt")
    if lines is None:
        return None
    count = int(lines[0][1]) if _INTEGER.fullmatch(lines[0][1]) else None
    lines = lines[1:] if count is not None else lines
    if lines and not _INTEGER.fullmatch(lines[0][1].split()[-1]):
        lines = lines[1:]
    groups: dict[int, list[str]] = {}
    before = len(scan.problems)
    for number, line in lines:
        words = line.rsplit(None, 1)
        if len(words) != 2 or not _INTEGER.fullmatch(words[1]) or int(words[1]) < 1:
            scan.add("names", f"{name}:{number}", 'a line is "class-name group" with groups from 1', repr(line))
            continue
        known = groups.setdefault(int(words[1]), [])
        if words[0] in known:
            scan.add("names", f"{name}:{number}", "a class name occurs once in its group", repr(words[0]))
        elif twin := next((each for each in known if alike(each, words[0])), ""):
            rule = "class names of a group differ in more than the form of their Unicode characters, which nobody sees"
            scan.add("names", f"{name}:{number}", rule, f"{words[0]!a} and {twin!a}", "Write them alike")
        if CONTROLS.search(words[0]):
            scan.add("names", f"{name}:{number}", "a class name holds no control characters", ascii(words[0]))
        known.append(words[0])
    if len(scan.problems) > before:
        return None
    if count is not None and count != len(lines):
        scan.add("names", f"{name}:1", "the first line is the number of classes", f"{count}, but {len(lines)} follow")
    if sorted(groups) != list(range(1, len(groups) + 1)):
        scan.add("names", name, "groups are numbered 1, 2, 3 ... without gaps", str(sorted(groups)))
        return None
    return [tuple(groups[group]) for group in sorted(groups)]


def _attribute_names(scan: Scan, heads: int | None, headers: dict[str, list[str]]) -> list[str]:
    """Names from attribute_names.txt, else from the header of the training labels, else attribute1, attribute2 ..."""
    if heads is None:
        return []
    names = [f"attribute{head + 1}" for head in range(heads)]
    place = "split/train_attr.txt:1"
    if "train" in headers:
        names = headers["train"]
        for split, other in headers.items():
            if other != names:
                scan.add(
                    "names",
                    f"split/{split}_attr.txt:1",
                    "the header equals that of split/train_attr.txt",
                    " ".join(other),
                )
    if (scan.root / "split/attribute_names.txt").exists():
        place = "split/attribute_names.txt"
        names = [line for _, line in text_lines(scan, "attribute_names.txt") or []]
        if names and len(names) != heads:
            scan.add("names", place, f"one name for each of the {heads} columns of labels", f"{len(names)} names")
    times = Counter(unicodedata.normalize("NFC", name) for name in names)
    for name in names:
        if not _NAME.fullmatch(name) or CONTROLS.search(name) or times[unicodedata.normalize("NFC", name)] > 1:
            scan.add(
                "names", place, "attribute names differ from one another and hold no blanks or slashes", repr(name)
            )
        elif name == TAKEN_NAME:
            fix = "Give the attribute another name in split/attribute_names.txt."
            scan.add("names", place, "this name is taken by the column of images in files of predictions", name, fix)
    return names


def _largest(scan: Scan, head: int) -> int:
    return max([0, *(row[head] for rows in scan.rows.values() for row in rows if row is not None and head < len(row))])


def _too_many_classes(scan: Scan) -> bool:
    """Whether labels of classes without names are too large to be believed; each such label becomes a problem."""
    before = len(scan.problems)
    for split, rows in scan.rows.items():
        for number, row in zip(scan.row_lines[split], rows, strict=True):
            if row is not None and max(row) >= MOST_CLASSES:
                rule = f"labels without split/list_attr_cloth.txt are 0 to {MOST_CLASSES - 1}"
                scan.add("label", f"split/{split}_attr.txt:{number}", rule, str(max(row)))
    return len(scan.problems) > before


def _check_range(scan: Scan) -> None:
    counts = [len(attribute.classes) for attribute in scan.attributes]
    for split, rows in scan.rows.items():
        for number, row in zip(scan.row_lines[split], rows, strict=True):
            for attribute, k, label in zip(scan.attributes, counts, row or (), strict=False):
                if not 0 <= label < k:
                    scan.add(
                        "label",
                        f"split/{split}_attr.txt:{number}",
                        f"labels of {attribute.name} are 0 to {k - 1}",
                        str(label),
                    )


# The layouts in which a data set may lie, in the order in which they are looked for.
LAYOUTS: Mapping[str, DataLayout] = {
    "challenge": DataLayout(lambda root: os.path.isdir(os.path.join(root, "split")), _scan_challenge),
}
