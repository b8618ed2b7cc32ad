"""A label file's cells as text, alike for every form of file.

Every value becomes text as a CSV has it: 3.0 is "3", true is "true", a list of names is joined by "|", and what is
empty, null or NaN is null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MOST_MISTAKES = 10_000  # of a file, after which it is not read on
NONE_OF_THEM = "|"  # a multi-label cell: it is known that no class holds
MOST_SAID = 200  # characters of what a library says of a file that are told
MISSING_WORDS = ("", "null", "NaN", "nan")


@dataclass(frozen=True)
class RowBlock:
    """Rows that follow one another: the line of each, counted from 1, and their cells as text, null where missing."""

    lines: NDArray[np.int64]
    columns: Mapping[str, pa.Array]


@dataclass(frozen=True)
class LabelTable:
    """A label file that was opened. names: its columns. blocks: reads the columns that it is asked for."""

    names: tuple[str, ...]
    blocks: Callable[[Sequence[str]], Iterator[RowBlock]]


def without_missing(column: pa.Array) -> pa.Array:
    """Texts without the blanks around them, null for those that mean it."""
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(column, pa.array(MISSING_WORDS)), pa.scalar(None, pa.string()), column)


def as_text(value: Any) -> str | None:
    """A JSON value as a cell of a CSV has it. Raises TypeError for an object, or a list of anything but values."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list) and not any(isinstance(each, list | dict) or each is None for each in value):
        return "|".join([*(as_text(each) or "" for each in value), ""]) or NONE_OF_THEM
    raise TypeError(str(value)[:60])
