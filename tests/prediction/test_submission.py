"""The submission's form, byte for byte, and every way in which a file can break it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fashion.errors import SubmissionError
from fashion.prediction.probabilities import read_probabilities, validate_probabilities, write_probabilities
from fashion.prediction.submission import collapsed_heads, validate_submission, write_submission

COUNTS = (7, 3, 3, 4, 6, 3)


@pytest.fixture
def classes() -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([generator.integers(0, count, 1000) for count in COUNTS], axis=1)


def test_the_challenge_form_to_the_byte(tmp_path: Path, classes: np.ndarray) -> None:
    written = write_submission(classes, tmp_path)
    content = written.text.read_bytes()
    assert len(content) == 12_000
    np.testing.assert_array_equal(np.loadtxt(written.text, dtype=np.int64), classes)
    with zipfile.ZipFile(written.archive) as archive:
        assert archive.namelist() == ["prediction.txt"]
        assert archive.read("prediction.txt") == content
        assert archive.testzip() is None
    for path in (written.text, written.archive):
        assert validate_submission(path, 1000, COUNTS, expected=classes) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prediction.txt", "prediction.txt.zip"]


def test_same_predictions_same_bytes(tmp_path: Path, classes: np.ndarray) -> None:
    first = write_submission(classes, tmp_path / "a").archive.read_bytes()
    assert write_submission(classes.astype(np.int32), tmp_path / "b").archive.read_bytes() == first


def test_indices_of_two_digits(tmp_path: Path) -> None:
    classes = np.array([[11, 0], [3, 1]])
    written = write_submission(classes, tmp_path)
    assert written.text.read_bytes() == b"11 0\n3 1\n"
    validate_submission(written.archive, 2, (12, 2), expected=classes)


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"0 0\n0 1", ["last line must end with a newline"]),
        (b"0 0\n", ["one line per image: 2; got 1 lines"]),
        (b"", ["one line per image: 2; got 0 lines"]),
        (b"0 0\n0 1\n\n", ["prediction.txt:3: must be class indices", "got 3 lines"]),
        (b"0,0\n0 1\n", ["prediction.txt:1: must be class indices separated by single spaces; got '0,0'"]),
        (b"0  0\n0 1\n", ["prediction.txt:1: must be class indices separated by single spaces"]),
        (b"0 0 \n0\t1\n", ["prediction.txt:1: must be", "prediction.txt:2: must be"]),
        (b"0 0\r\n0 1\r\n", ["prediction.txt:1: must be", "prediction.txt:2: must be"]),
        (b"\xef\xbb\xbf0 0\n0 1\n", ["prediction.txt:1: must be class indices"]),
        (b"0 0 0\n0 1\n", ["prediction.txt:1: must have 2 columns; got 3"]),
        (b"0 00\n0 1\n", ["prediction.txt:1: indices must be written without leading zeros"]),
        (b"3 0\n-1 2\n", ["prediction.txt:1, column 1: must be 0 to 2; got 3", "prediction.txt:2: must be class"]),
        (b"0 1\n0 0\n", ["prediction.txt:1: must state the prediction of its own image (0 0); got 0 1"]),
    ],
)
def test_every_problem_is_named(tmp_path: Path, content: bytes, messages: list[str]) -> None:
    path = tmp_path / "prediction.txt"
    path.write_bytes(content)
    with pytest.raises(SubmissionError) as caught:
        validate_submission(path, 2, (3, 2), expected=np.array([[0, 0], [0, 1]]))
    for message in messages:
        assert message in str(caught.value)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prediction.txt"
    path.write_text("9\n" * 500)
    with pytest.raises(SubmissionError) as caught:
        validate_submission(path, 500, (3,))
    assert len(caught.value.problems) == 21
    assert "480 more problems" in str(caught.value)


@pytest.mark.parametrize("members", [[], ["folder/prediction.txt"], ["predictions.txt"], ["prediction.txt", "x.txt"]])
def test_zip_must_hold_the_file_at_its_root(tmp_path: Path, members: list[str]) -> None:
    path = tmp_path / "prediction.txt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "0\n")
    with pytest.raises(SubmissionError, match=r"single file prediction\.txt at its root"):
        validate_submission(path, 1, (3,))


def test_broken_and_missing_archives(tmp_path: Path, classes: np.ndarray) -> None:
    archive = write_submission(classes, tmp_path).archive
    whole = archive.read_bytes()
    for damaged in (whole[:-30], b"not a zip", whole[:200] + b"\xff" * 60 + whole[260:]):
        archive.write_bytes(damaged)
        with pytest.raises(SubmissionError):
            validate_submission(archive, 1000, COUNTS)
    with pytest.raises(SubmissionError, match="must exist"):
        validate_submission(tmp_path / "none.zip", 1000, COUNTS)


def test_collapsed_heads_are_warned_about(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 0], [1, 1, 1], [2, 1, 0]])
    warnings = validate_submission(write_submission(classes, tmp_path).text, 3, (3, 3, 4), ["sleeve", "fit", "fabric"])
    assert warnings == [
        "fit: every one of the 3 images is predicted as class 1",
        "classes that are never predicted: fabric 2, 3",
    ]
    named = collapsed_heads(classes, (3, 3, 4), ["sleeve", "fit", "fabric"], [["a", "b", "c"], ["x", "y", "z"], "pqrs"])
    assert named == [
        "fit: every one of the 3 images is predicted as class y",
        "classes that are never predicted: fabric r, s",
    ]
    assert collapsed_heads(classes[:1], (3, 3, 4)) == []  # one image says nothing about collapse


def test_write_refuses_what_is_no_class_index(tmp_path: Path) -> None:
    for wrong in (np.zeros((2, 2)), np.zeros(3, dtype=int), np.array([[-1]])):
        with pytest.raises(ValueError, match="non-negative integers"):
            write_submission(wrong, tmp_path)


def test_probabilities_round_trip_with_names(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    values = [generator.dirichlet(np.ones(k), 5).astype(np.float32) for k in (3, 2)]
    images = [f"img/{i:05d}.jpg" for i in range(5)]
    attributes = [("sleeve", ("long", "short", "none")), ("fit", ("tight", "loose"))]
    path = write_probabilities(tmp_path / "deep" / "p.parquet", images, attributes, values)
    names, read, back = read_probabilities(path)
    assert names == images
    assert read == dict(attributes)
    for before, after in zip(values, back, strict=True):
        np.testing.assert_array_equal(before, after)
    classes = np.stack([value.argmax(axis=1) for value in values], axis=1)
    validate_probabilities(path, images, classes)
    with pytest.raises(SubmissionError, match=r"must list the 5 images in their order; got 'img/00000.jpg' in row 1"):
        validate_probabilities(path, images[::-1], classes)
    classes[2, 1] = 1 - classes[2, 1]
    with pytest.raises(SubmissionError, match="fit, row 3: the predicted class"):
        validate_probabilities(path, images, classes)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SubmissionError, match="can't be read"):
        read_probabilities(path)
