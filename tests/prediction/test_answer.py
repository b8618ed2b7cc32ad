"""predictions.csv: a heading for each column that no other has, and cells that a spreadsheet does not compute."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fashion.data.lists import Attribute
from fashion.errors import SubmissionError
from fashion.prediction.answer import (
    cell,
    header,
    validate_answer_probabilities,
    validate_table,
    write_answer_probabilities,
    write_table,
)
from fashion.prediction.pieces import Piece

ATTRIBUTES = (Attribute("sleeve", ("long, wide", '"short"')), Attribute("file", ("=1+1", "連衣裙", "-2")))


def piece(*names: str, problems: dict[int, str] | None = None) -> Piece:
    heads = tuple(
        np.random.default_rng(k).dirichlet(np.ones(k), len(names)).astype(np.float32)
        for k in (len(each.classes) for each in ATTRIBUTES)
    )
    classes = np.stack([head.argmax(1) for head in heads], axis=1)
    return Piece(names, classes, heads, problems or {})


def test_no_two_columns_have_one_name() -> None:
    assert header(ATTRIBUTES, True) == [
        "image", "sleeve", "sleeve probability", "file", "file probability", "left out because",
    ]  # fmt: skip
    assert header(ATTRIBUTES[:1], False) == ["file", "sleeve", "sleeve probability"]


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+1", "-2", "\tx"])
def test_a_formula_is_shown_and_not_computed(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell(f"a{text}") == f"a{text}"


@pytest.mark.parametrize("reasons", [False, True])
def test_what_is_written_is_read_back_and_every_change_is_noticed(tmp_path: Path, reasons: bool) -> None:
    pieces = [piece("a,b.jpg", "=c.jpg", "連.jpg"), piece("d\ne.jpg", problems={0: "it's empty"} if reasons else {})]
    table, probabilities = tmp_path / "t.csv", tmp_path / "p.parquet"
    write_table(table, ATTRIBUTES, pieces, reasons)
    write_answer_probabilities(probabilities, ATTRIBUTES, pieces, reasons)
    validate_table(table, ATTRIBUTES, pieces, reasons)
    validate_answer_probabilities(probabilities, pieces)
    with open(table, newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert [row[0] for row in rows] == ["image", "a,b.jpg", "'=c.jpg", "連.jpg", "d\ne.jpg"]
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    for damaged in (lines[:-2], [*lines, "x\n"], [lines[0], *lines[2:]], [*lines[1:]], []):
        table.write_text("".join(damaged), encoding="utf-8")
        with pytest.raises(SubmissionError, match="does not agree with the predictions"):
            validate_table(table, ATTRIBUTES, pieces, reasons)
    for others in (pieces[:1], [*pieces, pieces[0]], [pieces[0], piece("f.jpg")], [piece("a", "b", "c"), pieces[1]]):
        with pytest.raises(SubmissionError, match="does not agree with the predictions"):
            validate_answer_probabilities(probabilities, others)
