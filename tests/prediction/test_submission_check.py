"""Every way in which an upload fails or scores low is found, each with its remedy; and a good one has no finding."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from fashion.data.layout import Dataset, Split
from fashion.data.lists import Attribute
from fashion.errors import UserError
from fashion.prediction.submission import TEXT_NAME, write_submission
from fashion.prediction.submission_check import Expectation, SubmissionCheck, _chance, check_submission

ROWS = 300
ATTRIBUTES = (Attribute("sleeve", ("long", "short", "none")), Attribute("fit", ("tight", "loose")))
RANDOM = np.random.default_rng(0)
GOOD = np.stack([RANDOM.choice(3, ROWS, p=[0.5, 0.3, 0.2]), RANDOM.choice(2, ROWS, p=[0.8, 0.2])], axis=1)
TEXT = "".join(f"{a} {b}\n" for a, b in GOOD.tolist()).encode()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    splits = {
        "train": Split("train", ("a.jpg",), GOOD[:1]),
        "val": Split("val", tuple(f"{n}.jpg" for n in range(200)), GOOD[:200]),
        "test": Split("test", tuple(f"{n}.jpg" for n in range(ROWS)), None),
    }
    return Dataset(tmp_path, ATTRIBUTES, splits, None)


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def checked(dataset: Dataset, content: bytes, name: str = "prediction.txt.zip") -> SubmissionCheck:
    path = archive(dataset.root / name, (TEXT_NAME, content))
    return check_submission(path, dataset, "test", Expectation("in val", GOOD[:200]))


def said(result: SubmissionCheck) -> str:
    return "\n".join(map(str, result.findings))


def test_what_the_package_writes_has_no_finding(dataset: Dataset) -> None:
    written = write_submission(GOOD, dataset.root)
    result = check_submission(written.archive, dataset, "test", Expectation("in val", GOOD[:200]))
    assert (result.findings, result.ok) == ((), True)
    assert result.classes is not None
    np.testing.assert_array_equal(result.classes, GOOD)


@pytest.mark.parametrize(
    ("members", "finding"),
    [
        ([("predictions.txt", TEXT)], "must hold prediction.txt at its root; got predictions.txt. Rename the file"),
        ([("out/prediction.txt", TEXT)], "zip -j prediction.txt.zip out/prediction.txt"),
        ([], "an empty archive"),
        ([(TEXT_NAME, TEXT), ("notes.md", b"x")], "must hold prediction.txt alone; got besides notes.md"),
        ([(TEXT_NAME, TEXT), ("__MACOSX/._prediction.txt", b"x")], "must hold no files that a system has added"),
        ([(TEXT_NAME, TEXT), (".DS_Store", b"x")], "must hold no files that a system has added"),
    ],
)
def test_members(dataset: Dataset, members: list[tuple[str, bytes]], finding: str) -> None:
    result = check_submission(archive(dataset.root / "prediction.txt.zip", *members), dataset, "test")
    assert not result.ok
    assert finding in said(result)


def test_the_content_of_a_misplaced_text_is_examined_too(dataset: Dataset) -> None:
    path = archive(dataset.root / "predictions.txt.zip", ("p/predictions.txt", TEXT[:-4]))
    found = said(check_submission(path, dataset, "test"))
    assert "called prediction.txt.zip" in found
    assert "must have one line per image: 300; got 299" in found


def _damaged(path: Path) -> None:
    whole = archive(path, (TEXT_NAME, TEXT)).read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])


def _encrypted(path: Path) -> None:
    content = bytearray(archive(path, (TEXT_NAME, TEXT)).read_bytes())
    central = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (_damaged, "must be a whole zip archive"),
        (_encrypted, "must not be encrypted"),
        (lambda path: path.write_bytes(TEXT), "must be a zip archive; got something else"),
        (lambda path: path.mkdir(), "must be a file; got a folder"),
        (lambda path: None, "the file must exist"),
    ],
)
def test_archives_that_are_none(dataset: Dataset, make: Callable[[Path], None], finding: str) -> None:
    path = dataset.root / "prediction.txt.zip"
    make(path)
    result = check_submission(path, dataset, "test")
    assert not result.ok
    assert finding in said(result)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"\xef\xbb\xbf" + TEXT, "must be plain ASCII; got UTF-8 with a byte order mark"),
        (TEXT.decode().encode("utf-16"), "must be plain ASCII; got UTF-16"),
        (b"", "must have one line per image; got no lines"),
        (TEXT.replace(b"\n", b"\r\n"), "lines must end with LF alone; got Windows'"),
        (TEXT.replace(b" ", b","), "separated by one space; got a comma or semicolon, and on 299 more lines"),
        (TEXT.replace(b" ", b"\t"), "got a tab"),
        (b"\n" + TEXT, "there must be no blank line"),
        (b"sleeve fit\n" + TEXT, "no line of headings; got 'sleeve fit'. Remove the first line"),
        (b"".join(b"i/%d.jpg %s\n" % x for x in enumerate(TEXT.splitlines())), "no column of image names"),
        (TEXT.replace(b"1", b"1.0"), "must be whole numbers: class indices"),
        (TEXT.replace(b" ", b" 0 ", 1), "prediction.txt:1: must have 2 columns, one per attribute; got 3"),
        (b"7 0\n" + TEXT[4:], "prediction.txt:1, column 1: must be 0 to 2; got 7"),
        ("".join(f"{a + 1} {b + 1}\n" for a, b in GOOD.tolist()).encode(), "indices must be counted from 0"),
        (TEXT[: 200 * 4], "must have one line per image: 300; got 200. These are as many as val has"),
    ],
)
def test_texts_that_fail(dataset: Dataset, content: bytes, finding: str) -> None:
    result = checked(dataset, content)
    assert not result.ok
    assert finding in said(result)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (TEXT[:-1], "the last line should end with LF"),
        (TEXT.replace(b" ", b"  "), "should be separated by one space; got several spaces"),
        (TEXT.replace(b"\n", b" \n"), "should neither begin nor end with a space"),
        (TEXT.replace(b"0 ", b"00 "), "without leading zeros"),
        ("".join(f"{a} 1\n" for a, _ in GOOD.tolist()).encode(), "fit: every one of the 300 images is predicted as"),
        ("".join(f"{min(a, 1)} {b}\n" for a, b in GOOD.tolist()).encode(), "never predicted: sleeve none"),
        ("".join(f"{a} {1 - b}\n" for a, b in GOOD.tolist()).encode(), "fit: classes should be predicted about as"),
    ],
)
def test_texts_that_may_score_low(dataset: Dataset, content: bytes, finding: str) -> None:
    result = checked(dataset, content)
    assert result.ok
    assert finding in said(result)


def test_agreement_with_an_earlier_submission(dataset: Dataset) -> None:
    earlier = write_submission(GOOD, dataset.root / "earlier").archive

    def beside(classes: np.ndarray) -> SubmissionCheck:
        return check_submission(write_submission(classes, dataset.root).archive, dataset, "test", earlier=earlier)

    assert "says the same as" in said(beside(GOOD))
    changed = GOOD.copy()
    changed[:30, 0] = (changed[:30, 0] + 1) % 3
    result = beside(changed)
    assert result.agreement == pytest.approx(0.95)
    assert "agrees with" in said(result)
    assert "95.0% of the labels (sleeve 90.0%, fit 100.0%)" in said(result)
    shuffled = beside(RANDOM.permutation(GOOD))
    assert not shuffled.ok
    assert "the same lines in another order" in said(shuffled)
    moved = changed[RANDOM.permutation(ROWS)]
    assert "more than lines in an unrelated order would" in said(beside(moved))
    (dataset.root / "bad.txt").write_text("1\n")
    with pytest.raises(UserError, match="must itself be a valid submission to compare with"):
        check_submission(earlier, dataset, "test", earlier=dataset.root / "bad.txt")


def test_the_text_alone_is_read_and_told(dataset: Dataset) -> None:
    result = check_submission(write_submission(GOOD, dataset.root).text, dataset, "test")
    assert result.ok
    assert "Upload the archive" in said(result)


def test_an_unknown_split_and_attributes_of_several_labels_are_refused(dataset: Dataset) -> None:
    path = write_submission(GOOD, dataset.root).archive
    with pytest.raises(UserError, match="There are: train, val, test"):
        check_submission(path, dataset, "tests")
    several = Dataset(dataset.root, (ATTRIBUTES[0], Attribute("f", ("a", "b"), True)), dataset.splits, None)
    with pytest.raises(UserError, match="attributes with several: f"):
        check_submission(path, several, "test")


def test_shares_are_compared_by_chi_square(dataset: Dataset) -> None:
    mine, theirs = np.array([400, 300, 300]), np.array([5000, 2500, 2500])
    pooled = (mine + theirs) / (mine + theirs).sum()
    observed = np.concatenate([mine, theirs])
    expected = np.concatenate([pooled * mine.sum(), pooled * theirs.sum()])
    by_hand = chisquare(observed, expected, ddof=3).pvalue  # 6 cells, 2 degrees of freedom
    assert _chance(mine, theirs) == pytest.approx(by_hand)
    assert _chance(np.array([10, 0, 0]), np.array([10, 0, 0])) == 1.0
