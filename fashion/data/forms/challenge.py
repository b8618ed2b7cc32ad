"""The challenge's layout: reads all its text files and collects every structural problem instead of raising."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fashion.data.forms.images import MOST_CLASSES, alike, check_names, look_at, read_packed, report_links
from fashion.data.lists import LABELLED, SPLITS, Attribute, Looking, Scan, text_lines, without_header
from fashion.errors import CONTROLS

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)


def scan_challenge(root: Path, follow_links: bool, looking: Looking | None = None) -> Scan:
    """Read every text file of the challenge's layout (`fashion.data.layout`) that is there. What is wrong is collected
    in the scan; nothing is raised."""
    scan = Scan(Path(os.path.realpath(root)), follow_links=follow_links, looking=looking)
    scan.packed = read_packed(scan)
    for split in SPLITS:
        if split in LABELLED or (scan.root / f"split/{split}.txt").exists():
            _read_images(scan, split)
    report_links(scan)
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
        look_at(scan, f"split/{split}.txt:{number}", image)


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
    check_names(scan, place, names, "Give the attribute another name in split/attribute_names.txt.")
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
