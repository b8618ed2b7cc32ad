"""Images behind links that lead out of the data set's folder: one message with the remedy, or read when told to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fashion.data.check import check
from fashion.data.layout import read_dataset
from fashion.errors import DataError


@pytest.fixture
def linked(demo_root: Path, tmp_path: Path) -> Path:
    """img/ is a link to another disk."""
    copy = Path(shutil.copytree(demo_root, tmp_path / "copy"))
    (copy / "img").rename(tmp_path / "big-disk")
    (copy / "img").symlink_to(tmp_path / "big-disk")
    return copy


def test_one_message_names_the_remedy(linked: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(linked)
    (problem,) = caught.value.problems
    assert "(and 151 more images)" in problem.value
    assert "data.follow_links: true in the spec, --follow-links for `data`" in problem.fix
    errors = [finding for finding in check(linked).findings if finding.severity == "error"]
    assert [finding.kind for finding in errors] == ["link"]


def test_they_are_read_when_the_user_says_so(linked: Path, demo_root: Path) -> None:
    assert read_dataset(linked, follow_links=True).fingerprint() == read_dataset(demo_root).fingerprint()
    assert check(linked, follow_links=True).ok


def test_links_to_single_files_are_alike(demo_root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo_root, tmp_path / "copy"))
    for number, image in enumerate(read_dataset(copy).splits["train"].images[:4]):
        (copy / image).rename(tmp_path / f"{number}.jpg")
        (copy / image).symlink_to(tmp_path / f"{number}.jpg")
    with pytest.raises(DataError, match=r"\(and 3 more images\)"):
        read_dataset(copy)
    assert read_dataset(copy, follow_links=True).fingerprint() == read_dataset(demo_root).fingerprint()
