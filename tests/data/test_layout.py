from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fashion.data import contents, lists
from fashion.data.layout import majority_baseline, read_dataset
from fashion.errors import DataError
from tests.support.layouts import small

# The report's Figures 1 and 2, a column each.
FIGURE_1 = [
    [768, 853, 334, 422, 109, 2408, 106],
    [1523, 862, 2615],
    [488, 951, 3561],
    [2086, 826, 19, 2069],
    [310, 702, 3399, 105, 48, 436],
    [749, 279, 3972],
]
FIGURE_2 = [
    [192, 175, 65, 77, 13, 458, 20],
    [301, 168, 531],
    [100, 173, 727],
    [387, 173, 2, 438],
    [56, 146, 680, 16, 10, 92],
    [129, 70, 801],
]


@pytest.mark.parametrize("form", ["challenge", "label file", "folders"])
def test_looking_for_many_images_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(lists, "LOOKS", 2)
    root = small(tmp_path / "d")
    images = [*read_dataset(root).splits["train"].images, *read_dataset(root).splits["val"].images]
    if form == "label file":
        shutil.rmtree(root / "split")
        splits = ["train"] * 4 + ["val"] * (len(images) - 4)
        rows = [f"{image},{split},{n % 2}" for n, (image, split) in enumerate(zip(images, splits, strict=True))]
        (root / "labels.csv").write_text("\n".join(["image,split,kind", *rows]))
    elif form == "folders":
        root = tmp_path / "folders"
        for number, image in enumerate(images):
            place = root / ("train" if number < 4 else "val") / f"class{number % 2}" / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "d" / image, place)
    told: list[int] = []
    found = read_dataset(root, looking=told.append)
    count = sum(len(split) for split in found.splits.values())
    assert told == list(range(2, count + 1, 2))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["\n", "", "\n\n"])
def test_headers_line_ends_and_last_line_make_no_difference(
    tmp_path: Path, header: bool, newline: str, end: str
) -> None:
    dataset = read_dataset(small(tmp_path / "d", header, newline, end))
    assert dataset.class_counts == (2, 3)
    assert dataset.attribute_names == (("colour", "heat") if header else ("attribute1", "attribute2"))
    assert dataset.attributes[1].classes == ("hot", "warm", "cold")
    assert dataset.splits["train"].images == ("img/0.png", "img/1.png", "img/2.png", "img/3.png")
    assert dataset.labels("train").tolist() == [[0, 0], [1, 1], [0, 2], [1, 0]]
    assert "test" not in dataset.splits


def test_names_file_count_line_and_header_of_class_names(tmp_path: Path) -> None:
    root = small(
        tmp_path / "d", names="5 \nattribute_name   attribute_type\ndark red  1\ngreen 1\nhot 2\nwarm 2\ncold 2\n"
    )
    (root / "split/attribute_names.txt").write_text("hue\ntemperature\n")
    dataset = read_dataset(root)
    assert dataset.attribute_names == ("hue", "temperature")
    assert dataset.attributes[0].classes == ("dark red", "green")


def test_classes_come_from_the_labels_without_class_names(tmp_path: Path) -> None:
    root = small(tmp_path / "d", names=None)
    (root / "split/val_attr.txt").write_text("0 8\n1 2\n")
    assert read_dataset(root).class_counts == (2, 9)


def test_unlabelled_and_labelled_test_split(tmp_path: Path) -> None:
    root = small(tmp_path / "d")
    (root / "split/test.txt").write_text("img/5.png\n")
    dataset = read_dataset(root)
    assert dataset.splits["test"].labels is None
    with pytest.raises(DataError, match="test_attr"):
        dataset.labels("test")
    (root / "split/test_attr.txt").write_text("1 1\n")
    assert read_dataset(root).labels("test").tolist() == [[1, 1]]


def test_all_problems_at_once_with_file_and_line(tmp_path: Path) -> None:
    root = small(tmp_path / "d")
    (root / "split/train.txt").write_text("img/0.png\n/etc/passwd\n../x.png\nimg/missing.png\nimg/1.png\n")
    (root / "split/train_attr.txt").write_text("0 0\n1 one\n0 3\n-1 0\n1.0 1\n1\n")
    (root / "split/val.txt").unlink()
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    text = str(caught.value)
    for expected in (
        "split/train.txt:2: ", "'/etc/passwd'", "split/train.txt:3: ",
        "split/train.txt:4: the image file must exist; got img/missing.png",
        "split/train_attr.txt:2: labels are integers; got 'one'",
        "split/train_attr.txt:3: labels of attribute2 are 0 to 2; got 3",
        "split/train_attr.txt:4: labels of attribute1 are 0 to 1; got -1",
        "split/train_attr.txt:5: labels are integers; got '1.0'",
        "split/train_attr.txt:6: has 2 labels", "one line of labels per image (5 in split/train.txt); got 6 lines",
        "split/val.txt: the file must exist",
    ):  # fmt: skip
        assert expected in text


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("train.txt", b"\xff\xfe\x00", "UTF-8"),
        ("train.txt", b"a\0b", "NUL"),
        ("train.txt", b"", "must not be empty"),
        ("train.txt", b"picture_filename\n", "at least one image"),
        ("train.txt", b"img/0.png\n\nimg/1.png\nimg/2.png\nimg/3.png\n", "train.txt:2: no blank lines"),
        ("train.txt", b"img\\0.png\nimg/1.png\nimg/2.png\nC:/x.png\n", "relative to the data set"),
        ("val_attr.txt", b"0 1 1\n0 1 1\n", "as split/train_attr.txt (2)"),
        ("list_attr_cloth.txt", b"red 1\ngreen 1\nhot 3\n", "without gaps"),
        ("list_attr_cloth.txt", b"red 1\nred 1\nhot 2\n", "once in its group"),
        ("list_attr_cloth.txt", b"red 1\ngreen 1\n", "as many groups"),
        ("attribute_names.txt", b"a\na\n", "differ from one another"),
        ("attribute_names.txt", b"a b\nc\n", "no blanks"),
        ("attribute_names.txt", b"a\n", "one name for each"),
    ],
)
def test_each_structural_problem(tmp_path: Path, file: str, content: bytes, expected: str) -> None:
    root = small(tmp_path / "d")
    (root / "split" / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert expected in str(caught.value)


def test_a_wrong_root_is_one_clear_problem(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data demo"):
        read_dataset(tmp_path / "nowhere")


def test_many_equal_problems_are_counted(tmp_path: Path) -> None:
    root = small(tmp_path / "d")
    (root / "split/train.txt").write_text("\n".join(f"img/no{n}.png" for n in range(300)))
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert len(caught.value.problems) < 30
    assert "and 280 more" in str(caught.value)


def test_fingerprint_follows_labels_and_the_bytes_of_images(tmp_path: Path) -> None:
    root = small(tmp_path / "d")
    first = read_dataset(root).fingerprint()
    assert len(first) == 16
    image = root / "img/3.png"
    os.utime(image, (1, 1))
    assert first == read_dataset(root).fingerprint()
    assert first == read_dataset(shutil.copytree(root, tmp_path / "copy")).fingerprint()
    content = image.read_bytes()
    status = image.stat()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careless copying program leaves it
    changed = read_dataset(root).fingerprint()
    image.write_bytes(content)
    assert first == read_dataset(root).fingerprint()
    (root / "split/val_attr.txt").write_text("0 1\n1 1\n")
    assert len({first, changed, read_dataset(root).fingerprint()}) == 3


def test_images_are_read_once_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    dataset = read_dataset(small(tmp_path / "d"))
    read: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        read.append((done, total))

    first = dataset.fingerprint(progress)
    images = sum(len(split) for split in dataset.splits.values())
    assert read == [(done, images) for done in range(1, images + 1)]
    assert dataset.fingerprint(progress) == first
    monkeypatch.setattr(contents, "_known", {})  # as in another process
    assert dataset.fingerprint(progress) == first
    assert len(read) == images
    (kept,) = (tmp_path / "cache/contents").iterdir()
    kept.write_text("half a dig")
    monkeypatch.setattr(contents, "_known", {})
    assert dataset.fingerprint(progress) == first
    assert len(read) == 2 * images


def test_fingerprint_without_a_place_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    dataset = read_dataset(small(tmp_path / "d"))
    first = dataset.fingerprint()
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "file/cache"))
    monkeypatch.setattr(contents, "_known", {})
    assert dataset.fingerprint() == first
    (dataset.root / "img/3.png").unlink()
    with pytest.raises(DataError, match=r"img/3\.png.*No such file"):
        dataset.fingerprint()


def test_majority_baseline_by_hand(tmp_path: Path) -> None:
    root = small(tmp_path / "d")
    (root / "split/train_attr.txt").write_text("1 2\n1 2\n0 2\n1 0\n")
    baseline = majority_baseline(read_dataset(root))
    assert (baseline.classes, baseline.accuracies, baseline.overall) == ((1, 2), (0.5, 0.5), 0.5)


@pytest.mark.real
def test_real_counts_equal_the_reports_figures(real_root: Path) -> None:
    dataset = read_dataset(real_root)
    assert [counts.tolist() for counts in dataset.label_counts("train")] == FIGURE_1
    assert [counts.tolist() for counts in dataset.label_counts("val")] == FIGURE_2
    assert dataset.attributes[3].classes == ("crew_neckline", "v_neckline", "square_neckline", "no_neckline")
    assert [len(dataset.splits[name]) for name in ("train", "val", "test")] == [5000, 1000, 1000]
    assert round(100 * majority_baseline(dataset).overall, 2) == 59.73
    assert round(100 * majority_baseline(dataset, "train").overall, 2) == 60.14
    assert np.array_equal(
        np.round(np.array(majority_baseline(dataset).accuracies) * 100, 1), [45.8, 53.1, 72.7, 38.7, 68.0, 80.1]
    )
