"""`labels.json`, which may lie beside a label file or in a data set's folder: where the images are, and the classes.

It fixes what a label file alone leaves open: the order of the classes, classes that no image has, and whether an
attribute is multi-label.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from fashion.config.base import Frozen
from fashion.config.data import SplitRule
from fashion.data.forms.images import MOST_CLASSES
from fashion.data.lists import LARGEST_LIST, Attribute, Scan
from fashion.errors import CONTROLS

SIDECAR = "labels.json"


class DescribedAttribute(Frozen):
    """An attribute as `labels.json` has it."""

    model_config = ConfigDict(strict=True)

    name: str = Field(min_length=1)
    classes: list[str] = Field(min_length=1, max_length=MOST_CLASSES)
    multi_label: bool = False


class LabelsDescription(Frozen):
    """What `labels.json` holds. images: the folder of the images, relative to the file's own; null: that folder.

    split: how the splits that the label file names were made, where a rule made them.
    """

    images: str | None = None
    attributes: list[DescribedAttribute] = Field(default_factory=list)
    split: SplitRule | None = None

    def attribute(self, name: str) -> Attribute | None:
        """The attribute of that name; None where the file has none."""
        found = next((each for each in self.attributes if each.name == name), None)
        return Attribute(found.name, tuple(found.classes), found.multi_label) if found else None


def read_sidecar(scan: Scan, folder: Path) -> LabelsDescription:
    """The `labels.json` of a folder, one without content where there is none. What is wrong becomes a problem."""
    path = folder / SIDECAR
    if not os.path.lexists(path):
        return LabelsDescription()
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_LIST:
            scan.add("unreadable", SIDECAR, f"must be a file of at most {LARGEST_LIST:,} bytes")
            return LabelsDescription()
        found = LabelsDescription.model_validate_json(path.read_bytes())
    except OSError as error:
        scan.add("unreadable", SIDECAR, "the file must be readable", str(error.strerror))
        return LabelsDescription()
    except ValidationError as error:
        for each in error.errors()[:20]:
            place = ".".join([SIDECAR, *map(str, each["loc"])])
            scan.add("names", place, each["msg"].removeprefix("Value error, "), "", "`data convert` writes such files")
        return LabelsDescription()
    return found if _is_sound(scan, found) else LabelsDescription()


def _is_sound(scan: Scan, found: LabelsDescription) -> bool:
    before = len(scan.problems)
    names = [each.name for each in found.attributes]
    if len(set(names)) < len(names):
        scan.add("names", f"{SIDECAR}.attributes", "attribute names differ from one another", ", ".join(names))
    for each in found.attributes:
        place = f"{SIDECAR}.attributes, {each.name}"
        if len(set(each.classes)) < len(each.classes):
            twice = sorted({name for name in each.classes if each.classes.count(name) > 1})
            scan.add("names", place, "a class name occurs once in its attribute", ", ".join(map(repr, twice)))
        for name in each.classes:
            if CONTROLS.search(name) or not name.strip():
                scan.add("names", place, "a class has a name without control characters", ascii(name))
            elif each.multi_label and "|" in name:
                scan.add("names", place, "a class of a multi-label attribute has no | in its name", repr(name))
    return len(scan.problems) == before


def image_folder(folder: Path, described: LabelsDescription) -> Path:
    """The folder that the names of images are relative to, with links resolved."""
    return Path(os.path.realpath(folder / described.images if described.images is not None else folder))
