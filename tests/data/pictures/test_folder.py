"""A folder of the user's: every picture in it is found, and what is left out is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fashion.data.pictures.folder import find_pictures
from fashion.errors import DataError


def picture(path: Path, form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), "teal").save(path, form)
    return path


def test_every_picture_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPG", "c.jfif", "d.jpe", "no-ending", "odd.dat", "deep/er/e.png"):
        picture(tmp_path / name, "JPEG")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")  # meant as one: whoever decodes it says so
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "more.txt").write_text("no picture")
    found = find_pictures(tmp_path)
    assert found.names == (
        "a.jpg", "b.JPG", "broken.jpg", "c.jfif", "d.jpe", "deep/er/e.png", "no-ending", "odd.dat",
    )  # fmt: skip
    assert found.left_out.sentences() == ["left out, since they are no pictures: 2 files (2 .txt)"]


def test_hidden_files_and_twins_of_macos_are_not_meant(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / ".hidden.jpg")
    picture(tmp_path / ".ipynb_checkpoints/a-checkpoint.jpg")
    (tmp_path / "__MACOSX").mkdir()
    for twin in ("._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/b.jpg"):
        (tmp_path / twin).write_bytes(b"\0\5\26\7")
    found = find_pictures(tmp_path)
    assert found.names == ("a.jpg",)
    assert found.left_out.sentences() == []


def test_links_are_told_and_followed_when_the_user_says_so(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    picture(photos / "a.png")
    picture(tmp_path / "elsewhere/g.png")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "b.png").symlink_to(tmp_path / "elsewhere/g.png")
    (photos / "elsewhere").symlink_to(photos)  # round in a circle
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    found = find_pictures(photos)
    assert found.names == ("a.png",)
    (said,) = found.left_out.sentences()
    assert said == "left out: 4 links (b.png, elsewhere, gone.png, linked); --follow-links reads what links lead to"
    found = find_pictures(photos, follow_links=True)
    assert found.names == ("a.png", "b.png", "linked/g.png")
    assert found.left_out.links == ["gone.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cant_be_read_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "mine/b.png")
    (tmp_path / "mine").chmod(0)
    try:
        found = find_pictures(tmp_path)
    finally:
        (tmp_path / "mine").chmod(0o755)
    assert found.left_out.sentences() == ["left out, since they can't be read: 1 file or folder (mine)"]


def test_a_folder_that_vanishes_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "mine/b.png")
    real = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "mine":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = find_pictures(tmp_path)
    assert (found.names, found.left_out.unreadable) == (("a.png",), ["mine"])


def test_one_picture(tmp_path: Path) -> None:
    picture(tmp_path / "photos/a.png")
    found = find_pictures(tmp_path / "photos/a.png")
    assert (found.root, found.names) == (tmp_path / "photos", ("a.png",))


def test_nothing_to_predict_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be or hold pictures; got no files, or only hidden ones"):
        find_pictures(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"1 file \(1 \.txt\)"):
        find_pictures(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(DataError, match="must be a picture, or a folder that holds pictures; got No such file"):
        find_pictures(tmp_path)
