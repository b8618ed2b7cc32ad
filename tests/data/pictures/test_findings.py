"""What is told of a data set kind by kind, and what is behind it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fashion.data.check import check
from fashion.data.layout import read_dataset
from fashion.data.pictures.findings import KINDS, Finding, by_kind


@pytest.fixture
def copy(demo_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_root, tmp_path / "copy"))


def test_many_findings_of_a_kind_are_a_number_and_three_examples() -> None:
    many = [Finding("error", "label", f"split/train_attr.txt:{line}", "labels are integers") for line in range(1, 97)]
    few = [Finding("warning", "leak", "a = b", "the same bytes")] * 3
    lines = by_kind([*many, *few], {"label": "The labels look odd."})
    assert lines == [
        "error: 96 labels that are not allowed [label] (--all shows each)",
        "  split/train_attr.txt:1: labels are integers",
        "  split/train_attr.txt:2: labels are integers",
        "  split/train_attr.txt:3: labels are integers",
        "  The labels look odd.",
        *["warning: a = b: the same bytes [leak]"] * 3,
    ]


def test_every_kind_has_its_words(copy: Path) -> None:
    """KINDS is what `by_kind` looks into, so a kind without words would be a KeyError in the midst of a check."""
    source = Path(__file__).parents[3] / "fashion" / "data"
    import re

    used = set()
    for path in source.rglob("*.py"):
        text = path.read_text()
        used |= set(re.findall(r'scan\.add\(\s*"(\w+)"', text))
        used |= set(re.findall(r'Finding\((?:"\w+"|severity), "(\w+)"', text))
    assert {"label", "leak", "rotated", "link"} <= used <= set(KINDS)


def labels(root: Path, change: dict[str, str]) -> None:
    for split in ("train", "val"):
        path = root / "split" / f"{split}_attr.txt"
        text = path.read_text()
        for old, new in change.items():
            text = text.replace(old, new)
        path.write_text(text)


def test_labels_that_count_from_1_are_recognised(copy: Path) -> None:
    for split in ("train", "val", "test"):
        path = copy / "split" / f"{split}_attr.txt"
        if path.exists():
            rows = [line.split() for line in path.read_text().splitlines()]
            path.write_text("".join(" ".join(str(int(word) + 1) for word in row) + "\n" for row in rows))
    result = check(copy)
    assert "the labels look 1-based" in result.diagnoses["label"]
    assert sum("1-based" in line for line in result.lines()) >= 1


@pytest.mark.parametrize("separator", [",", ", "])
def test_commas_between_labels_are_recognised(copy: Path, separator: str) -> None:
    labels(copy, {" ": separator})
    assert "separated by commas" in check(copy).diagnoses["label"]


def test_a_missing_label_is_recognised(copy: Path) -> None:
    path = copy / "split/train_attr.txt"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(" ".join(["-1", *first.split()[1:]]) + "\n" + rest)
    assert "-1 looks like a missing label" in check(copy).diagnoses["label"]


def test_turned_and_deep_images_are_counted(copy: Path) -> None:
    images = read_dataset(copy).splits["train"].images
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in images[:3]:
        Image.new("RGB", (30, 40), "red").save(copy / name, "JPEG", exif=exif)
    Image.new("I;16", (30, 40), 9000).save(copy / images[4], "PNG")
    found = {finding.kind: finding.message for finding in check(copy).findings}
    assert "this and 2 more images have an EXIF orientation" in found["rotated"]
    assert "this image has greys of more than 8 bits" in found["deep"]


def test_of_a_large_group_of_the_same_image_a_few_are_named(copy: Path) -> None:
    images = read_dataset(copy).splits["train"].images
    for name in images[1:40]:
        (copy / name).write_bytes((copy / images[0]).read_bytes())
    result = check(copy)
    (whole,) = (each for each in result.findings if each.kind == "identical")
    assert whole.place.split(" = ") == list(images[:40]), "in JSON, and with --all, it has each"
    (line,) = (line for line in result.lines() if "occur 40 times in train" in line)
    assert " = ".join([*images[:3], "... (40 images): the same"]) in line
    assert all(len(line) < 400 for line in result.lines())
