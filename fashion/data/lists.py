"""Reading the text files of a data set: their lines, the images they list, and a record of every problem found."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fashion.config.data import SplitRule
from fashion.data.remote.pushed import Pushed
from fashion.errors import Problem
from fashion.labels import MISSING as MISSING

if TYPE_CHECKING:  # light commands read lists, and need no arrays
    import numpy as np
    from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
LABELLED = ("train", "val")  # these need labels; test may have them
CHALLENGE = "the challenge's layout"  # the form of data sets for which nothing else is recorded
LARGEST_LIST = 1 << 30  # bytes; a list of ten million images takes a third of it
INSIDE = "must lie in the data set's folder, where symbolic links lead as well"

LOOKS = 1000  # images that are looked at between two calls of Scan.looking
Looking = Callable[[int], None]  # told how many images have been looked at
Line = tuple[int, str]  # line number from 1, text without blanks at its ends


def looking_with(progress: Callable[[str, int, int], None]) -> Looking:
    """Tells `progress` with a label how many images have been looked at; nobody knows of how many."""
    return lambda done: progress("images looked for", done, 0)


@dataclass(frozen=True)
class Attribute:
    """One head: a category ("sleeve") and the names of its classes in label order.

    multi_label: each class holds or doesn't, on its own, and an image may have several or none of them; otherwise an
    image has exactly one. In a matrix of labels (N, columns) an attribute takes `columns` columns: the index of its
    class, or for a multi-label one 0 or 1 for each class; MISSING where it is not known.
    """

    name: str
    classes: tuple[str, ...]
    multi_label: bool = False

    @property
    def columns(self) -> int:
        return len(self.classes) if self.multi_label else 1


class NoTextError(ValueError):
    """A file that can't be a list: `rule` is broken, and `value` is what was found."""

    def __init__(self, rule: str, value: str) -> None:
        super().__init__(f"{rule}; got {value}")
        self.rule, self.value = rule, value


@dataclass
class Scan:
    """All that could be read, and every structural problem with its kind. `check` goes on from here in any case.

    `lines[split][i]` is the line number of `images[split][i]`. `rows[split][i]` are the labels read from line
    `row_lines[split][i]`, None where that line is bad. `refused` holds listed images that lie outside the data set:
    nobody may open them, and `links` names those of them that are links, or lie behind one, as (line, image, target).
    With `follow_links` such images are like any other. `packed` is set where packed caches replace the images, which
    need not be there then.

    form: the name of the data set's form. source: the label file, as messages name it; empty where there is none.
    file_column: the column of the label file that names the images.
    labels: matrices (N, columns), in place of `rows`, of the forms whose labels are not lists of their own. rule: how
    the splits were made, where the data have none. groups: of each image of a split, those which stay on one side.
    looked: how many named images were looked at; `looking` is told now and then, since a million take half a minute.
    """

    root: Path
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    attributes: tuple[Attribute, ...] = ()
    images: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, Sequence[int]] = field(default_factory=dict)
    rows: dict[str, list[tuple[int, ...] | None]] = field(default_factory=dict)
    row_lines: dict[str, list[int]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    packed: Pushed | None = None
    follow_links: bool = False
    links: list[tuple[str, str, str]] = field(default_factory=list)
    form: str = CHALLENGE
    source: str = ""
    file_column: str = ""
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    rule: SplitRule | None = None
    groups: dict[str, list[str | None]] = field(default_factory=dict)
    looking: Looking | None = None
    looked: int = 0
    _folders: dict[str, bool] = field(default_factory=dict)

    def elsewhere(self, name: str) -> str:
        """The target of a symbolic link that leads out of the data set with this file; empty if there is none, or if
        such links are followed."""
        if self.follow_links:
            return ""
        folder = os.path.dirname(name)
        if folder not in self._folders:  # a hundred thousand images have a few folders
            self._folders[folder] = self._leaves(self.root / folder)
        path = self.root / name
        return os.path.realpath(path) if self._folders[folder] or (os.path.islink(path) and self._leaves(path)) else ""

    def count_look(self) -> None:
        """One more image is looked at."""
        self.looked += 1
        if self.looking is not None and self.looked % LOOKS == 0:
            self.looking(self.looked)

    def labelled(self, split: str) -> Iterator[tuple[int, ...] | None]:
        """The labels of each image of a split, None where its line is bad; nothing for a split without labels."""
        if split in self.labels:
            return map(tuple, self.labels[split].tolist())
        return iter(self.rows.get(split, ()))

    def image_place(self, split: str, number: int) -> str:
        """Where the data set names the image of line `number`."""
        return f"split/{split}.txt:{number}" if self.form == CHALLENGE else f"{self.source or self.root.name}:{number}"

    def label_place(self, split: str) -> str:
        """Where the labels of a split are."""
        return f"{self.source or self.root.name}, {split}" if self.form != CHALLENGE else f"split/{split}_attr.txt"

    def _leaves(self, path: Path) -> bool:
        return not Path(os.path.realpath(path)).is_relative_to(self.root)

    def add(self, kind: str, place: str, rule: str, value: str = "", fix: str = "") -> None:
        self.problems.append((kind, Problem(place, rule, value, fix)))


def parse_lines(content: bytes) -> list[Line]:
    """All lines of a text file up to the last that is not blank.

    Raises UnicodeDecodeError where it is not UTF-8, NoTextError where it holds a NUL character.
    """
    text = content.decode("utf-8-sig")
    if "\0" in text:
        raise NoTextError("must be text", "a NUL character")
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1)]
    while lines and not lines[-1][1]:
        lines.pop()
    return lines


def read_lines(path: Path) -> list[Line]:
    """`parse_lines` of a file. Raises OSError where it can't be read, NoTextError where it is no file or too large."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would block for ever
        raise NoTextError("must be a file", stat.filemode(found.st_mode))
    if found.st_size > LARGEST_LIST:
        raise NoTextError(f"has at most {LARGEST_LIST:,} bytes", f"{found.st_size:,}")
    return parse_lines(path.read_bytes())


def without_header(lines: Sequence[Line], exists: Callable[[str], bool]) -> Sequence[Line]:
    """The lines of a split's list that name images.

    A first line such as "picture_filename", with neither a dot nor a slash, is a header unless `exists` knows a file of
    that name.
    """
    first = lines[0][1] if lines else "."
    return lines if "." in first or "/" in first or exists(first) else lines[1:]


def listed_images(root: Path, split: str) -> list[str]:
    """The images that a split of the data set in `root` lists, read without looking at the images themselves.

    Raises OSError where the list can't be read, ValueError where it is no text.
    """
    lines = [line for line in read_lines(root / "split" / f"{split}.txt") if line[1]]
    return [image for _, image in without_header(lines, lambda name: os.path.exists(root / name))]


def lacks_split(root: Path, split: str) -> bool:
    """Whether a data set is in `root` that has no list of this split."""
    return os.path.isdir(root / "split") and not os.path.exists(root / "split" / f"{split}.txt")


def text_lines(scan: Scan, name: str) -> list[Line] | None:
    """The lines of a file in split/ that are not blank; None, and a problem in `scan`, if it is unreadable or empty.

    Blank lines before the last line of text are problems too.
    """
    place = f"split/{name}"
    if outside := scan.elsewhere(place):
        scan.add("path", place, INSIDE, outside)
        return None
    try:
        lines = read_lines(scan.root / place)
    except FileNotFoundError:
        scan.add("missing", place, "the file must exist")
        return None
    except OSError as error:
        scan.add("unreadable", place, "the file must be readable", str(error.strerror))
        return None
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#04x} at {error.start}"
        scan.add("unreadable", place, "must be UTF-8 text", found)
        return None
    except NoTextError as error:
        scan.add("unreadable", place, error.rule, error.value)
        return None
    for number, line in lines:
        if not line:
            scan.add("blank", f"{place}:{number}", "no blank lines: images and labels are matched line by line")
    kept = [(number, line) for number, line in lines if line]
    if not kept:
        scan.add("empty", place, "must not be empty")
        return None
    return kept
