"""Where the answer for a folder of pictures goes, so that two folders of one name never overwrite each other's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

from fashion.bucket.address import is_address, parse_address
from fashion.bucket.store import NotThereError, Store
from fashion.errors import DataError, Problem

SOURCE_NAME = "source.json"  # beside an answer: of what it is
LONGEST = 150  # bytes of a folder's or picture's name that its answer's name has
# What is known of the answer of that name: the bytes of its SOURCE_NAME, b"" if it has none, None if there is no answer
Said = Callable[[str], bytes | None]


def picture_place(text: str) -> Path:
    """The absolute path that a user means by `--images TEXT`. Raises DataError where there is nothing."""
    place = Path(os.path.abspath(os.path.expanduser(text)))
    if not os.path.exists(place):
        rule = "must be a folder of pictures, or a picture"
        fix = "Copy pictures from a bucket into a folder first" if is_address(text) else ""
        raise DataError("There is nothing to predict:", [Problem("--images", rule, text, fix)])
    return place


def answer_name(place: Path, predictions: Path, location: str, before: str = "") -> str:
    """`images-NAME`, with `before` in front, for a folder or picture of that name. If the answer there is another
    folder's, or does not say whose it is, `images-NAME-2` and so on. predictions: the run's folder of answers on this
    machine. location: the run, which may be in a bucket."""
    # Names of temporary folders are longer by some characters, and file systems allow 255 bytes.
    said = os.fsencode(place.name or "root")
    name = os.fsdecode(said) if len(said) <= LONGEST else said[:LONGEST].decode(errors="ignore")
    wanted = f"{before}images-{name}"
    for number in count(1):
        name = wanted if number == 1 else f"{wanted}-{number}"
        found = [_in_folder(predictions)(name)]
        if is_address(location):
            found.append(_in_bucket(Store(parse_address(location)))(name))
        if all(each is None or _folder(each) == str(place) for each in found):
            return name
    raise AssertionError("count ends")


def _in_folder(predictions: Path) -> Said:
    def said(name: str) -> bytes | None:
        try:
            return (predictions / name / SOURCE_NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b"" if os.path.lexists(predictions / name) else None

    return said


def _in_bucket(store: Store) -> Said:
    def said(name: str) -> bytes | None:
        try:
            return store.get(f"predictions/{name}/{SOURCE_NAME}")
        except NotThereError:
            return b"" if any(True for _ in store.objects(f"predictions/{name}")) else None

    return said


def _folder(said: bytes) -> str | None:
    """The folder that an answer says it is of."""
    try:
        found = json.loads(said)["source"]["folder"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
