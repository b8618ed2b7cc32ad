"""What the forms of data sets share: a listed image looked at, the links among them, and the names of attributes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fashion.data.lists import INSIDE, Scan
from fashion.data.remote.pushed import MANIFEST, Pushed, read_manifest
from fashion.errors import CONTROLS

_NAME = re.compile(r"[^\s/]+")
MOST_CLASSES = 10_000  # of an attribute without class names: one wrong label must not make a billion classes
TAKEN_NAME = "image"  # the name of a column in every file of predictions


def read_packed(scan: Scan) -> Pushed | None:
    """The manifest of packed caches in the data set's folder, if there are any."""
    try:
        if outside := scan.elsewhere(MANIFEST):
            raise ValueError(f"{INSIDE}: {outside}")
        found = read_manifest(scan.root)
    except ValueError as error:
        scan.add("unreadable", MANIFEST, "must be as `fashion-sweep data push` wrote it", str(error), "Push it again")
        return None
    return found if found is not None and found.packs else None


def look_at(scan: Scan, place: str, image: str) -> None:
    """Add to `scan` what is wrong with an image that is named at `place`: a path or a link that leads out of the data
    set, a file that is not there."""
    scan.count_look()
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


def report_links(scan: Scan) -> None:
    """One problem for all images behind links: such data sets have them by the thousand."""
    if scan.links:
        place, image, target = scan.links[0]
        more = f" (and {len(scan.links) - 1:,} more images)" if len(scan.links) > 1 else ""
        fix = (
            "If these are your links, follow them: data.follow_links: true in the spec, --follow-links for `data`. "
            "Or put the files themselves there: copy them (cp -rL), or make hard links (cp -rlL)"
        )
        scan.add("link", place, f"an image {INSIDE}", f"{image} -> {target}{more}", fix)


def check_names(scan: Scan, place: str, names: Sequence[str], fix: str) -> None:
    """Add to `scan` what is wrong with the names of attributes, which also name columns and metrics."""
    times = Counter(unicodedata.normalize("NFC", name) for name in names)
    for name in names:
        if not _NAME.fullmatch(name) or CONTROLS.search(name) or times[unicodedata.normalize("NFC", name)] > 1:
            scan.add(
                "names", place, "attribute names differ from one another and hold no blanks or slashes", repr(name)
            )
        elif name == TAKEN_NAME:
            scan.add("names", place, "this name is taken by the column of images in files of predictions", name, fix)
