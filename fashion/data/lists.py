"""What was read of a data set's text files, with every problem beside it, and the lines of one of them."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from fashion.data.pushed import Pushed
from fashion.errors import Problem

SPLITS = ("train", "val", "test")
LABELLED = ("train", "val")  # these need labels; test may have them
LARGEST_LIST = 1 << 30  # bytes; ten million images have a third of it
INSIDE = "must lie in the data set's folder, where symbolic links lead as well"


@dataclass(frozen=True)
class Attribute:
    """One head: a category ("sleeve") and the names of its classes in label order."""

    name: str
    classes: tuple[str, ...]


@dataclass
class Scan:
    """All that could be read, and every structural problem with its kind; `check` goes on from here even then.

    `lines[split][i]` is the line number of `images[split][i]`; `rows[split][i]` its labels, None where that line is
    bad, read from line `row_lines[split][i]`. `refused` holds listed images that lie elsewhere: nobody may open them.
    `packed`: packed caches stand in the images' place, which need not be there.
    """

    root: Path
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    attributes: tuple[Attribute, ...] = ()
    images: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)
    rows: dict[str, list[tuple[int, ...] | None]] = field(default_factory=dict)
    row_lines: dict[str, list[int]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    packed: Pushed | None = None
    _folders: dict[str, bool] = field(default_factory=dict)

    def elsewhere(self, name: str) -> str:
        """Where a symbolic link leads with a file of the data set, if that is outside of it; else empty."""
        folder = os.path.dirname(name)
        if folder not in self._folders:  # a hundred thousand images have a few folders
            self._folders[folder] = self._leaves(self.root / folder)
        path = self.root / name
        return os.path.realpath(path) if self._folders[folder] or (os.path.islink(path) and self._leaves(path)) else ""

    def _leaves(self, path: Path) -> bool:
        return not Path(os.path.realpath(path)).is_relative_to(self.root)

    def add(self, kind: str, place: str, rule: str, value: str = "", fix: str = "") -> None:
        self.problems.append((kind, Problem(place, rule, value, fix)))


def text_lines(scan: Scan, name: str) -> list[tuple[int, str]] | None:
    """(line number, stripped text) of a file in split/; trailing blank lines dropped, others are problems."""
    path = scan.root / "split" / name
    if outside := scan.elsewhere(f"split/{name}"):
        scan.add("path", f"split/{name}", INSIDE, outside)
        return None
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
            scan.add("unreadable", f"split/{name}", "must be a file", stat.filemode(found.st_mode))
            return None
        if found.st_size > LARGEST_LIST:
            scan.add("unreadable", f"split/{name}", f"has at most {LARGEST_LIST:,} bytes", f"{found.st_size:,}")
            return None
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        scan.add("missing", f"split/{name}", "the file must exist")
        return None
    except OSError as error:
        scan.add("unreadable", f"split/{name}", "the file must be readable", str(error.strerror))
        return None
    except UnicodeDecodeError as error:
        scan.add(
            "unreadable",
            f"split/{name}",
            "must be UTF-8 text",
            f"byte {error.object[error.start]:#04x} at {error.start}",
        )
        return None
    if "\0" in text:
        scan.add("unreadable", f"split/{name}", "must be text", "a NUL character")
        return None
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1)]
    while lines and not lines[-1][1]:
        lines.pop()
    for number, line in lines:
        if not line:
            scan.add("blank", f"split/{name}:{number}", "no blank lines: images and labels are matched line by line")
    kept = [(number, line) for number, line in lines if line]
    if not kept:
        scan.add("empty", f"split/{name}", "must not be empty")
        return None
    return kept
