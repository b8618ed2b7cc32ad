"""The classes of an attribute, from the cells of its column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion.data.forms.images import MOST_CLASSES
from fashion.data.lists import MISSING, Attribute, Scan
from fashion.errors import CONTROLS, nearest

_WHOLE = re.compile(r"([+-]?)0*([0-9]{1,18})(?:\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
# Distinct cells that are kept: the most that an attribute of MOST_CLASSES can need where cells hold several names.
MOST_CELLS = 200_000
FEW_NUMBERS = 20  # so many distinct real numbers may be classes, such as the sizes 0.5, 1.0 and 1.5
FEW_TEXTS = 100  # more distinct texts, most of which occur once, are descriptions or identifiers
SEPARATOR = "|"
MOST_TOLD = 10_000  # lines with an unknown class, of an attribute


@dataclass
class CellCodes:
    """The cells of a column as they stream by: `texts` has each distinct one, `parts` an index into it for each row,
    MISSING where the cell is empty. overflown: there were too many distinct texts to go on."""

    texts: dict[str, int] = field(default_factory=dict)
    parts: list[NDArray[np.int32]] = field(default_factory=list)
    overflown: bool = False

    def add(self, cells: pa.Array) -> None:
        encoded = cells.dictionary_encode()
        if not self.overflown:
            for text in encoded.dictionary.to_pylist():
                self.texts.setdefault(text, len(self.texts))
            self.overflown = len(self.texts) > MOST_CELLS
        if self.overflown:
            self.parts.append(np.zeros(len(cells), np.int32))
            return
        codes = np.array([self.texts[text] for text in encoded.dictionary.to_pylist()] + [MISSING], np.int32)
        indices = encoded.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)
        self.parts.append(codes[indices])

    def codes(self) -> NDArray[np.int32]:
        return np.concatenate([np.zeros(0, np.int32), *self.parts])


def whole_number(text: str) -> str:
    """A whole number as it is written without zeros in front and without .0; empty for any other text."""
    found = _WHOLE.fullmatch(text)
    if found is None:
        return ""
    sign = "-" if found[1] == "-" and found[2] != "0" else ""
    return sign + found[2]


def labels_of(
    scan: Scan, name: str, cells: CellCodes, lines: NDArray[np.int64], described: Attribute | None
) -> tuple[Attribute, NDArray[np.int64]] | None:
    """The attribute of a column, and its labels (N, columns) as `Attribute` has them.

    None, and problems in `scan`, where the cells are no classes.
    """
    place = f"{scan.source}, {name}"
    codes, texts = cells.codes(), list(cells.texts)
    if described is None:
        if not texts:
            scan.add("label", place, "an attribute has a label somewhere", "empty cells alone")
            return None
        described = _found(scan, place, cells, texts, int((codes >= 0).sum()))
        if described is None:
            return None
    table = np.full((len(texts) + 1, described.columns), MISSING, np.int64)  # the last row is what is missing
    wrong: dict[int, str] = {}
    index = _index_of(described)
    for code, text in enumerate(texts):
        try:
            table[code] = _row(described, index, text)
        except KeyError as error:
            wrong[code] = str(error.args[0])
    if wrong:
        rule = f"labels of {name} are {_some(described.classes)}"
        rows = np.flatnonzero(np.isin(codes, list(wrong)))
        for row in rows[:MOST_TOLD]:
            value = wrong[int(codes[row])]
            fix = nearest(value, described.classes)
            scan.add("label", f"{scan.source}:{lines[row]}, {name}", rule, repr(value), fix)
        return None
    return described, table[codes]


def _found(scan: Scan, place: str, cells: CellCodes, texts: list[str], labelled: int) -> Attribute | None:
    """The attribute that the cells show: sorted classes, numbers as numbers."""
    name = place.rpartition(", ")[2]
    fix = "Leave the column out: data.attributes names those that are learnt"
    numbers = all(map(_NUMBER.fullmatch, texts))
    whole = numbers and all(map(whole_number, texts))
    if numbers and not whole and len(texts) > min(FEW_NUMBERS, labelled // 2):
        rule = "an attribute has classes; many distinct real numbers are a regression, which this program does not do"
        scan.add("label", place, rule, f"{len(texts):,} distinct numbers, such as {texts[0]}", fix)
        return None
    several = not numbers and any(SEPARATOR in text for text in texts)
    if several:
        names = {part.strip() for text in texts for part in text.split(SEPARATOR)} - {""}
    else:
        names = {whole_number(text) for text in texts} if whole else set(texts)
    if cells.overflown or len(names) > MOST_CLASSES:
        least = "more than " if cells.overflown else ""
        count = f"{least}{min(len(names), MOST_CELLS):,} distinct values, such as {texts[0][:60]!r}"
        scan.add("label", place, f"an attribute has at most {MOST_CLASSES:,} classes", count, fix)
        return None
    if not numbers and not several and len(names) > max(FEW_TEXTS, labelled // 2):
        rule = "an attribute has classes that several images share, not a description or an identifier of each"
        scan.add("label", place, rule, f"{len(names):,} distinct texts in {labelled:,} rows", fix)
        return None
    if not names:
        scan.add("label", place, "an attribute has a class somewhere", "cells without a name alone")
        return None
    if odd := sorted(each for each in names if CONTROLS.search(each)):
        scan.add("names", place, "a class name holds no control characters", ascii(odd[0]))
        return None
    ordered = sorted(names, key=int if whole else (lambda each: (float(each), each)) if numbers else str)
    return Attribute(name, tuple(ordered), several)


def _index_of(attribute: Attribute) -> dict[str, int]:
    """What a cell may hold for each class: its name; its index, where no name is a number."""
    index = {name: number for number, name in enumerate(attribute.classes)}
    if not any(map(whole_number, attribute.classes)):
        index |= {str(number): number for number in range(len(attribute.classes))}
    return index


def _row(attribute: Attribute, index: dict[str, int], text: str) -> int | list[int]:
    """The labels of a cell. Raises KeyError with the name that is no class."""

    def known(name: str) -> int:
        if name not in index and (plain := whole_number(name)) in index:
            return index[plain]
        return index[name]

    if not attribute.multi_label:
        try:
            return known(text)
        except KeyError:
            return known(text.removesuffix(SEPARATOR))
    held = {known(part.strip()) for part in text.split(SEPARATOR) if part.strip()}
    return [int(number in held) for number in range(len(attribute.classes))]


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) + (f" and {len(classes) - 10:,} more" if len(classes) > 10 else "")
