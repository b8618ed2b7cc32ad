"""Files of a row for each image: what an interrupted process has left is gone on with, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from fashion.data.cache.arrays import Rows, Unfinished, open_array, whole_array
from fashion.data.cache.arrow_files import seal_path
from fashion.errors import BlockedError

ROWS = Rows(7, (2, 3), np.float32)
VALUES = np.arange(1, 43, dtype=np.float32).reshape(7, 2, 3)


def begin(path: Path, rows: Rows = ROWS) -> Unfinished:
    return Unfinished.begin("The cache", path, "values", rows, {"shape": "[2, 3]", "of": "{}"})


@pytest.mark.parametrize("sealed", [False, True])
def test_what_was_written_is_kept_and_the_rest_is_zeros(tmp_path: Path, sealed: bool) -> None:
    path = tmp_path / "a.arrow"
    begin(path).put(0, VALUES[:4])
    seen: list[tuple[int, int]] = []
    again = begin(path)
    assert again.done(lambda *told: seen.append(told)) == 4
    assert seen == [(1, 7), (2, 7), (3, 7), (4, 7)]
    assert np.array_equal(again.rows[:4], VALUES[:4])
    assert not again.rows[4:].any()
    assert whole_array(path, "values", 7) is None
    again.put(4, VALUES[4:])
    again.finish(sealed)
    found = whole_array(path, "values", 7)
    assert found is not None
    assert np.array_equal(found, VALUES)
    assert whole_array(path, "values", 8) is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.arrow", "a.arrow.seal", "a.arrow.used"]


def test_a_row_that_a_machine_lost_when_it_went_down_is_not_done(tmp_path: Path) -> None:
    begun = begin(tmp_path / "a.arrow")
    begun.put(0, VALUES)
    begun.rows[5] = 0  # its checksum had reached the disk, its page had not
    assert begin(begun.path).done() == 5


@pytest.mark.parametrize("damage", ["no seal", "truncated", "another shape"])
def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path: Path, damage: str) -> None:
    begun = begin(tmp_path / "a.arrow")
    begun.put(0, VALUES)
    rows = Rows(9, (2, 3), np.float32) if damage == "another shape" else ROWS
    if damage == "no seal":
        seal_path(begun.temporary).unlink()
    elif damage == "truncated":
        with open(begun.temporary, "r+b") as file:
            file.truncate(100)
    again = begin(begun.path, rows)
    assert again.done() == 0
    assert len(again.rows) == rows.count
    assert not again.rows.any()


def test_nothing_is_left_where_there_is_no_room_or_the_rows_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BlockedError, match=r"The cache needs .* GB in .* are free"):
        begin(tmp_path / "a.arrow", Rows(1 << 40, (2, 3), np.float32))
    begun = begin(tmp_path / "b.arrow")
    begun.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.uint8])
def test_other_columns_and_the_rows_are_what_arrow_reads(tmp_path: Path, kind: type[np.generic]) -> None:
    values: NDArray[np.generic] = VALUES.astype(kind)
    path, names = tmp_path / "a.arrow", [f"{row}.png" for row in range(7)]
    rows, others = Rows(7, (2, 3), kind), {"name": pa.array(names)}
    file = Unfinished.begin("The cache", path, "values", rows, {"shape": "[2, 3]"}, others)
    file.put(0, values)
    file.finish()
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    assert batch.column("name").to_pylist() == names
    expected = [row.tobytes() for row in values] if kind is np.uint8 else values.reshape(7, 6).tolist()
    assert batch.column("values").to_pylist() == expected
    if kind is not np.uint8:
        assert np.array_equal(open_array(path, "values"), values)
