"""The manifest of a pushed data set, `fashion-sweep.json` beside its `split/`: its fingerprint and its packed caches.

A data set is pushed either with its images as they are, or with packed caches instead, one for each size at which
sweeps train. In the second case there is no image to open: the manifest names the digest of what the images held.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.config.data import Form
from fashion.config.trial import value_lacking
from fashion.errors import DataError, Problem
from fashion.files import parse, whole

MANIFEST = "fashion-sweep.json"
FORMAT = 1
OLD = tuple(
    value_lacking("data", name) for name in Form._fields[3:]
)  # orientation and depth of every pack that was pushed before there were these settings
LARGEST = 1 << 20  # bytes; each pack takes half a kilobyte
_PATH = re.compile(r"packs/[0-9a-f]{16}/[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.arrow")


@dataclass(frozen=True)
class PackFile:
    """One packed cache. `size` is in bytes; `seal` is what `data.pack` keeps beside the file.

    `path` is relative to the data set's root and names the content, so that another content is another object.
    """

    split: str
    form: Form
    path: str
    size: int
    sha256: str
    seal: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"split": self.split, **self.form._asdict(), "path": self.path,
                "size": self.size, "sha256": self.sha256, "seal": dict(self.seal)}  # fmt: skip


@dataclass(frozen=True)
class Pushed:
    """A pushed data set: its fingerprint and the digest of its images by `data.contents`.

    Without packs the images themselves are there.
    """

    fingerprint: str
    contents: str
    packs: tuple[PackFile, ...] = ()

    @property
    def forms(self) -> list[Form]:
        return sorted({pack.form for pack in self.packs})

    def wanted(self, splits: Collection[str], forms: Collection[Form], place: str) -> list[PackFile]:
        """The caches of these splits, as far as the data set has them, in these forms. `place` names it in problems.

        Raises DataError listing every form that was not pushed, and how to push it.
        """
        missing = [form for form in forms if form not in self.forms]
        if missing:
            there = ", ".join(_words(form) for form in self.forms)
            rule = f"holds packed images in these forms: {there}"
            problems = [Problem(place, rule, _words(form), f"{self._nearer(form)}{_push(form)}") for form in missing]
            raise DataError("The data set has no images of the requested size:", problems)
        return [pack for pack in self.packs if pack.split in splits and pack.form in forms]

    def _nearer(self, form: Form) -> str:
        """What to do about a form that was not pushed: packs of a version without some settings have one that differs
        in those alone."""
        if (old := Form(*form[:3], *OLD)) in self.forms:
            names = zip(Form._fields[3:], old[3:], strict=True)
            said = " and ".join(f"data.{name}: {value}" for name, value in names)
            return f"Write {said} to use what is there, or push that form too: "
        return "Push that form too: "

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "fingerprint": self.fingerprint, "contents": self.contents,
                "packs": [pack.to_json() for pack in self.packs]}  # fmt: skip

    @classmethod
    def from_json(cls, content: bytes) -> Pushed:
        """Raises ValueError for anything but a manifest of this version."""
        found = parse(content)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"must be a manifest of format {FORMAT}")
        packs = found.get("packs")
        if not isinstance(packs, list):
            raise ValueError("packs must be a list")
        return cls(_hex(found, "fingerprint", 16), _hex(found, "contents", 64), tuple(_pack(each) for each in packs))


def read_manifest(root: Path) -> Pushed | None:
    """The manifest in a folder; None where there is none. Raises ValueError where it is wrong or can't be read."""
    try:
        with open(root / MANIFEST, "rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(str(error.strerror)) from error
    if len(content) > LARGEST:
        raise ValueError(f"must have at most {LARGEST:,} bytes")
    return Pushed.from_json(content)


def _pack(found: Any) -> PackFile:
    if not isinstance(found, dict):
        raise ValueError("a pack must be an object")
    path, seal = found.get("path"), found.get("seal")
    if not isinstance(path, str) or not _PATH.fullmatch(path):  # a file will be written there
        raise ValueError("a pack's path must be packs/DIGEST/NAME.arrow")
    # A pack of a version that had no such setting was made as every pack was then.
    settings = [found.get(name, value_lacking("data", name)) for name in Form._fields[1:]]
    words = [found.get("split"), *settings]
    if not all(isinstance(each, str) for each in words) or not isinstance(seal, dict):
        raise ValueError(f"a pack must have split, {', '.join(Form._fields[1:])} and seal")
    if not whole(1)(found.get("resize")) or not whole(1)(found.get("size")):
        raise ValueError("a pack's resize and size must be whole numbers")
    split, *said = (str(each) for each in words)
    return PackFile(split, Form(found["resize"], *said), path, found["size"], _hex(found, "sha256", 64), seal)


def _hex(found: Mapping[str, Any], name: str, digits: int) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
        raise ValueError(f"{name} must be {digits} hexadecimal digits")
    return value


def _words(form: Form) -> str:
    """As in `resize 320, stretch, bicubic, orientation apply, depth declared`."""
    return f"resize {form.resize}, {form.fit}, {form.interpolation}, orientation {form.orientation}, depth {form.depth}"


def _push(form: Form) -> str:
    options = " ".join(f"--{name} {value}" for name, value in form._asdict().items())
    return f"fashion-sweep data push DIR ADDRESS {options}"
