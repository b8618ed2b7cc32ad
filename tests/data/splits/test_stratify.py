"""Iterative stratification, beside a plain reading of the paper's algorithm and its figures of merit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fashion.config.data import LabelReading, SplitRule
from fashion.data.layout import Dataset, read_dataset
from fashion.data.splits.divide import units
from fashion.data.splits.stratify import stratify
from fashion.errors import DataError
from tests.support.label_files import labelled, pictures


def examples(seed: int = 0, n: int = 600, labels: int = 12) -> NDArray[np.bool_]:
    """Multi-label data with labels from common to rare."""
    shares = np.geomspace(0.5, 0.01, labels)
    return np.random.default_rng(seed).random((n, labels)) < shares


def as_counts(matrix: NDArray[np.bool_]) -> list[dict[int, int]]:
    return [dict.fromkeys(np.flatnonzero(row).tolist(), 1) for row in matrix]


def label_distribution(matrix: NDArray[np.bool_], sets: NDArray[np.int64], count: int) -> float:
    """LD of the paper's section 4: the mean over labels of the mean deviation of a set's odds from the data's."""
    whole = matrix.sum(0) / (~matrix).sum(0)
    odds = [matrix[sets == each].sum(0) / (~matrix[sets == each]).sum(0) for each in range(count)]
    return float(np.mean([np.abs(each - whole) for each in odds]))


def by_the_paper(matrix: NDArray[np.bool_], shares: tuple[float, ...]) -> list[int]:
    """Algorithm 1, line by line over sets; the first example and the first set win where it draws lots."""
    left = dict(enumerate(matrix))
    wanted = [share * len(matrix) for share in shares]
    of_label = [[share * matrix[:, label].sum() for share in shares] for label in range(matrix.shape[1])]
    chosen = [-1] * len(matrix)
    while left:
        counts = {label: sum(row[label] for row in left.values()) for label in range(matrix.shape[1])}
        there = {label: count for label, count in counts.items() if count}
        rarest = min(there, key=lambda label: (there[label], label)) if there else None
        for number in [number for number, row in left.items() if rarest is None or row[rarest]]:
            first = wanted if rarest is None else of_label[rarest]
            to = max(range(len(shares)), key=lambda each: (first[each], wanted[each], -each))
            chosen[number] = to
            wanted[to] -= 1
            for label in np.flatnonzero(left.pop(number)):
                of_label[label][to] -= 1
    return chosen


def test_it_is_the_papers_algorithm() -> None:
    matrix = examples(n=150)
    shares = (0.7, 0.15, 0.15)
    assert stratify(as_counts(matrix), [1] * 150, shares) == by_the_paper(matrix, shares)


@pytest.mark.parametrize("seed", range(3))
def test_labels_keep_their_shares(seed: int) -> None:
    """Ten folds, as in the paper, whose figures for random and iterative folds differ by factors on such data."""
    matrix = examples(seed)
    ours = np.array(stratify(as_counts(matrix), [1] * len(matrix), (0.1,) * 10))
    lots = np.random.default_rng(seed).permutation(len(matrix)) % 10
    assert label_distribution(matrix, ours, 10) < 0.35 * label_distribution(matrix, lots, 10)
    per_fold = np.stack([matrix[ours == fold].sum(0) for fold in range(10)])
    rare = matrix.sum(0) <= 20
    assert (np.ptp(per_fold[:, rare], axis=0) <= 2).all()


def test_units_join_over_other_rows() -> None:
    assert units(6, [["a", "b", "b", "c", None, None], [1, 1, None, 2, None, 2]]) == [0, 0, 0, 3, 4, 3]


def grouped(root: Path, n: int = 120) -> Path:
    draw = np.random.default_rng(1)
    rows = [f"img/{k}.png,{'abc'[draw.integers(3)]},{'xy'[draw.integers(2)]},{k // 4}" for k in range(n)]
    return labelled(root, "\n".join(["file_name,kind,side,patient", *rows]), n)


def shown(dataset: Dataset) -> str:
    return "\n".join(f"{name}: {' '.join(split.images)}" for name, split in dataset.splits.items())


CHOSEN = ("kind", "side")


def test_groups_and_twins_stay_on_one_side(tmp_path: Path) -> None:
    path = grouped(tmp_path)
    for number in (0, 40, 80):  # three groups become one
        (tmp_path / f"img/{number}.png").write_bytes((tmp_path / "img/1.png").read_bytes())
    rule = SplitRule(group="patient")
    dataset = read_dataset(path, reading=LabelReading(split=rule, attributes=CHOSEN))
    sides: dict[int, set[str]] = {}
    for name, split in dataset.splits.items():
        for image in split.images:
            sides.setdefault(int(image[4:-4]) // 4, set()).add(name)
    assert all(len(each) == 1 for each in sides.values())
    assert sides[0] == sides[10] == sides[20]
    assert 12 <= len(dataset.splits["val"]) <= 24
    assert dataset.rule == rule


def test_a_division_is_the_same_for_ever(tmp_path: Path) -> None:
    """Neither the order of the lines decides, nor anything but the names, the labels and the seed."""
    path = grouped(tmp_path)
    reading = LabelReading(split=SplitRule(seed=3), attributes=CHOSEN)
    first = read_dataset(path, reading=reading)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]))
    again = read_dataset(path, reading=reading)
    assert {n: set(s.images) for n, s in again.splits.items()} == {n: set(s.images) for n, s in first.splits.items()}
    told = "\n".join(f"{name} {image}" for name, split in first.splits.items() for image in sorted(split.images))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "ef143c0319b4878b", (
        "data that were divided would be divided anew"
    )
    other = read_dataset(path, reading=reading._replace(split=SplitRule(seed=4)))
    assert len({each.fingerprint() for each in (first, other)}) == 2


def test_a_damaged_note_of_a_division_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fashion.data.splits import divide

    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    path = grouped(tmp_path / "d", 40)
    reading = LabelReading(attributes=CHOSEN)
    first = shown(read_dataset(path, reading=reading))
    (kept,) = (tmp_path / "cache/splits").iterdir()
    kept.write_bytes(b"\x09" * 40)
    monkeypatch.setattr(divide, "_known", {})
    assert shown(read_dataset(path, reading=reading)) == first


def test_data_with_splits_are_not_divided(tmp_path: Path) -> None:
    path = labelled(tmp_path, "file_name,kind,split\nimg/0.png,a,train\nimg/1.png,b,val\n", 2)
    with pytest.raises(DataError, match=r"data\.split: is for data without splits"):
        read_dataset(path, reading=LabelReading(split=SplitRule()))


def test_too_few_images_are_told(tmp_path: Path) -> None:
    pictures(tmp_path, ["a/0.png", "b/0.png"])
    with pytest.raises(DataError, match="some images must be in val"):
        read_dataset(tmp_path)
