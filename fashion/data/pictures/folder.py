"""The pictures of a folder of the user's, found by content, and what of the folder is left out and why.

Hidden files and folders are not meant: `.ipynb_checkpoints`, and the `._photo.jpg` that macOS puts beside a photo.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fashion.data.images import in_threads
from fashion.data.pictures.formats import is_picture, suffixes
from fashion.errors import DataError, Problem

NOT_MEANT = ("__MACOSX",)  # folders, besides hidden ones
_SHOWN = 5  # endings, folders or links that a sentence names


@dataclass
class LeftOut:
    """What a listing does not hold. endings: of files that are no pictures, with their numbers. links: files and
    folders that are links, or links that lead nowhere. unreadable: files and folders that may not be read."""

    endings: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """One sentence a kind, with what would help."""
        told = []
        if number := self.endings.total():
            most = [f"{count:,} {ending or 'without an ending'}" for ending, count in self.endings.most_common(_SHOWN)]
            rest = " and others" if len(self.endings) > _SHOWN else ""
            files = "file" if number == 1 else "files"
            told.append(f"left out, since they are no pictures: {number:,} {files} ({', '.join(most)}{rest})")
        if self.links:
            told.append(f"left out: {_named(self.links, 'link')}; --follow-links reads what links lead to")
        if self.unreadable:
            told.append(f"left out, since they can't be read: {_named(self.unreadable, 'file or folder')}")
        return told


@dataclass(frozen=True)
class PictureFolder:
    """root: the folder, or the folder of the one picture. names: of the pictures, sorted, relative to it."""

    root: Path
    names: tuple[str, ...]
    left_out: LeftOut


def find_pictures(place: str | Path, follow_links: bool = False) -> PictureFolder:
    """Every picture below a folder, or the one picture that `place` is, whatever it is called.

    A file with a picture's ending is one, even if it is damaged: whoever decodes it says so. Other files are looked
    into. Links are followed with `follow_links`; a folder that links lead to several times is read once.

    Raises DataError where there is no picture, or where a picture's name is not UTF-8.
    """
    root = Path(place)
    if root.is_file():
        return PictureFolder(root.parent, (root.name,), LeftOut())
    left_out = LeftOut()
    meant: list[str] = []
    others: list[str] = []
    for name in _files(root, follow_links, left_out):
        (meant if os.path.splitext(name)[1].lower() in suffixes() else others).append(name)

    def looked_into(name: str) -> bool | None:
        try:
            return is_picture(root / name)
        except OSError:
            return None

    for name, found in zip(others, in_threads(looked_into, others), strict=True):
        if found is None:
            left_out.unreadable.append(name)
        elif found:
            meant.append(name)
        else:
            left_out.endings[os.path.splitext(name)[1].lower()] += 1
    if not meant:
        said = "; ".join(left_out.sentences()) or "no files, or only hidden ones"
        raise DataError("There is nothing to predict:", [Problem(str(root), "must be or hold pictures", said)])
    foreign = [Problem(str(root), "a file's name must be UTF-8", ascii(name)) for name in meant if not _utf8(name)]
    if foreign:
        raise DataError("Images can't be used:", foreign)
    return PictureFolder(root, tuple(sorted(meant)), left_out)


def _files(root: Path, follow_links: bool, left_out: LeftOut) -> Iterator[str]:
    """Every regular file that is meant, relative to `root`."""
    waiting, seen = [""], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:  # links may lead round in a circle
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise DataError("There is nothing to predict:", [_unreadable(root, error)]) from error
            left_out.unreadable.append(folder)
            continue
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name in NOT_MEANT:
                continue
            if entry.is_symlink() and not (follow_links and os.path.exists(entry.path)):
                left_out.links.append(name)
            elif entry.is_dir():
                waiting.append(name)
            elif entry.is_file():
                yield name
            else:
                left_out.endings[os.path.splitext(name)[1].lower()] += 1  # a pipe or a socket


def _unreadable(root: Path, error: OSError) -> Problem:
    return Problem(str(root), "must be a picture, or a folder that holds pictures", str(error.strerror))


def _named(names: list[str], word: str) -> str:
    rest = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{len(names):,} {word}{'' if len(names) == 1 else 's'} ({', '.join(names[:_SHOWN])}{rest})"


def _utf8(name: str) -> bool:
    """Whether a file's name is UTF-8. Python shows other bytes as surrogates, which files of predictions can't hold."""
    return not any("\ud800" <= each <= "\udfff" for each in name)
