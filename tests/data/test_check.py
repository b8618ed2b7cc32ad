from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fashion.data.check import CheckResult, check, findings_by_kind
from fashion.data.layout import Attribute, Dataset, Split, read_dataset
from fashion.errors import DataError


@pytest.fixture
def copy(demo_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(demo_root, tmp_path / "copy")
    return tmp_path / "copy"


def kinds(report: CheckResult, *severities: str) -> list[str]:
    return [finding.kind for finding in report.findings if finding.severity in severities]


def rewrite(path: Path, number: int, line: str) -> None:
    """Replace a line, counted from 0."""
    lines = path.read_text().splitlines()
    lines[number] = line
    path.write_text("\n".join(lines) + "\n")


def test_the_demo_data_is_sound(demo_root: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = check(demo_root, lambda done, total: calls.append((done, total)))
    assert report.ok
    assert not kinds(report, "error", "warning")
    assert report.images == {"train": 96, "val": 32, "test": 24}
    assert calls[-1] == (152, 152)


def test_every_finding_in_one_pass(copy: Path) -> None:
    train, val = (read_dataset(copy).splits[name].images for name in ("train", "val"))
    labels = (copy / "split/train_attr.txt").read_text().splitlines()
    (copy / train[0]).write_bytes((copy / train[0]).read_bytes()[:400])  # truncated
    (copy / train[1]).write_bytes(b"no image")
    (copy / train[2]).unlink()
    shutil.copy(copy / train[3], copy / train[4])  # identical, labelled differently
    rewrite(copy / "split/train_attr.txt", 3, "0 0 0 0 0 0")
    rewrite(copy / "split/train_attr.txt", 4, "0 0 0 0 0 1")
    shutil.copy(copy / train[5], copy / val[0])  # leak
    rewrite(copy / "split/train.txt", 7, train[6])  # duplicate line
    rewrite(copy / "split/train_attr.txt", 7, labels[6])
    rewrite(copy / "split/train_attr.txt", 8, "0 0 zero 0 0 0")
    rewrite(copy / "split/train_attr.txt", 9, "0 0 7 0 0 0")
    shutil.copy(copy / train[10], copy / "img/extra.jpg")
    with open(copy / "split/val_attr.txt", "a") as file:
        file.write("0 0 0 0 0 0\n")  # count mismatch
    report = check(copy)
    assert not report.ok
    assert sorted(kinds(report, "error")) == ["count", "label", "label", "missing", "unreadable", "unreadable"]
    found = {(finding.kind, finding.place) for finding in report.findings}
    assert {
        ("duplicate", "split/train.txt:8"),
        ("identical", f"{train[3]} = {train[4]}"),
        ("conflict", f"{train[3]} = {train[4]}"),
        ("leak", f"{train[5]} = {val[0]}"),
        ("label", "split/train_attr.txt:9"),
        ("label", "split/train_attr.txt:10"),
        ("missing", "split/train.txt:3"),
        ("unreadable", train[0]),
        ("unreadable", train[1]),
        ("count", "split/val_attr.txt"),
    } <= found
    assert "unlisted" in kinds(report, "info")
    assert [finding.severity for finding in report.findings] == sorted(
        (finding.severity for finding in report.findings), key=["error", "warning", "info"].index
    )


def test_a_class_absent_from_val_is_a_warning(copy: Path) -> None:
    path = copy / "split/val_attr.txt"
    path.write_text("\n".join("0 " + line.split(" ", 1)[1] for line in path.read_text().splitlines()))
    report = check(copy)
    assert report.ok
    assert [f.message for f in report.findings if f.kind == "absent"] == [
        f"pattern {name} ({label}) never occurs"
        for label, name in enumerate(["solid", "striped", "checked", "dotted", "floral"])
        if label
    ]


def test_conflicting_duplicate_lines_within_a_split(copy: Path) -> None:
    train = read_dataset(copy).splits["train"].images
    rewrite(copy / "split/train.txt", 1, train[0])
    rewrite(copy / "split/train_attr.txt", 0, "0 0 0 0 0 0")
    rewrite(copy / "split/train_attr.txt", 1, "1 0 0 0 0 0")
    assert sorted(kinds(check(copy), "warning")) == ["conflict", "duplicate"]


@pytest.mark.parametrize(
    "broken", ["split/train.txt", "split/train_attr.txt", "split/val.txt", "split/list_attr_cloth.txt"]
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a b c\n1\n", b"../../x.jpg\n/y.jpg\n"])
def test_a_broken_structure_never_stops_the_check(copy: Path, broken: str, content: bytes) -> None:
    (copy / broken).write_bytes(content)
    assert not check(copy).ok
    with pytest.raises(DataError):
        read_dataset(copy)


def test_nowhere(tmp_path: Path) -> None:
    report = check(tmp_path / "nowhere")
    assert not report.ok
    assert len(report.findings) == 1


@pytest.mark.real
def test_real_data_has_exactly_the_known_pairs(real_root: Path) -> None:
    report = check(real_root)
    assert report.ok
    found = {(f.kind, f.place.replace("img/", "").replace(".jpg", "")) for f in report.findings if f.severity != "info"}
    assert found == {
        ("identical", "00004 = 03006"),
        ("identical", "00343 = 02502"),
        ("identical", "00848 = 04493"),
        ("conflict", "00848 = 04493"),
        ("identical", "03536 = 03756"),
        ("identical", "03588 = 04375"),
        ("conflict", "03588 = 04375"),
        ("leak", "04953 = 06995"),
    }


def dataset(root: Path, attributes: dict[str, int], **splits: tuple[list[str], list[list[int]] | None]) -> Dataset:
    """A data set of labels; where `root` holds files of its images' names, their bytes count."""
    made = {
        name: Split(name, tuple(images), None if rows is None else np.array(rows, np.int64).reshape(len(images), -1))
        for name, (images, rows) in splits.items()
    }
    heads = tuple(Attribute(name, tuple(f"c{k}" for k in range(count))) for name, count in attributes.items())
    for split in made.values():
        for image in split.images:
            if not (root / image).exists():
                (root / image).write_bytes(image.encode() * 3000)
    return Dataset(root, heads, made)


def test_kinds_of_findings_in_sentences(tmp_path: Path) -> None:
    (tmp_path / "twin").write_bytes(b"t0" * 3000)  # the bytes of t0
    (tmp_path / "near").write_bytes(b"t0" * 2999 + b"t1")  # the same size, and the same middle
    rows = [[0, 0], [1, 0], [2, 0], [0, 0]]
    found = findings_by_kind(
        dataset(
            tmp_path, {"digit": 4, "fit": 1}, train=(["t0", "t1", "t2", "t1"], rows),
            val=(["twin", "t2", "near"], [[0, 0], [1, 0], [1, 0]]), test=(["u0"], None),
        )
    )  # fmt: skip
    assert [(each.kind, each.count) for each in found] == [
        ("leak", 2), ("duplicate", 1), ("absent", 1), ("unmeasured", 1), ("single", 1), ("few", 3),
    ]  # fmt: skip
    assert [each.sentence for each in found] == [
        "2 of the 3 val images are in train as well, so that accuracies there are too good",
        "images are listed more than once: train 1",
        "class 3 (c3) of digit never occurs in train and can't be learnt",
        "class 2 (c2) of digit never occurs in val",
        "attribute fit has one class, which is always predicted",
        "val has 3 images: an accuracy's standard error is 27 points",
    ]


def test_a_sound_data_set_has_no_findings(tmp_path: Path) -> None:
    train, val = [f"t{n}" for n in range(4)], [f"v{n}" for n in range(100)]
    sound = dataset(
        tmp_path, {"digit": 2}, train=(train, [[0], [1], [0], [1]]), val=(val, [[n % 2] for n in range(100)])
    )
    assert findings_by_kind(sound) == []


def test_the_standard_error_is_that_of_the_majority_baseline(tmp_path: Path) -> None:
    found = findings_by_kind(
        dataset(
            tmp_path, {"digit": 2}, train=(["a", "b", "c"], [[0], [0], [1]]), val=(["d", "e", "f"], [[0], [1], [1]])
        )
    )
    assert found[0].sentence == "val has 3 images: an accuracy's standard error is 27 points"
