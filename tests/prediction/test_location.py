"""Two folders of one name have two answers; the same folder has its own one again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fashion.errors import DataError
from fashion.prediction.location import SOURCE_NAME, answer_name, picture_place
from tests.support.servers.s3_server import Server


def answered(folder: Path, place: Path) -> None:
    folder.mkdir(parents=True)
    (folder / SOURCE_NAME).write_text(json.dumps({"source": {"folder": str(place)}}))


def test_each_folder_keeps_its_answer(tmp_path: Path) -> None:
    answers, first, second = tmp_path / "predictions", Path("/a/photos"), Path("/b/photos")
    assert answer_name(first, answers, "runs/s") == "images-photos"
    answered(answers / "images-photos", first)
    assert answer_name(first, answers, "runs/s") == "images-photos"
    assert answer_name(second, answers, "runs/s") == "images-photos-2"
    answered(answers / "images-photos-2", second)
    assert answer_name(second, answers, "runs/s") == "images-photos-2"
    assert answer_name(Path("/c/photos"), answers, "runs/s") == "images-photos-3"
    assert answer_name(Path("/"), answers, "runs/s") == "images-root"


def test_a_long_name_is_cut_for_the_file_system(tmp_path: Path) -> None:
    for name in ("x" * 250 + ".jpg", "袖" * 80 + ".jpg"):
        answer = answer_name(Path("/a") / name, tmp_path, "runs/s")
        (tmp_path / f".{answer}-99.pieces").mkdir()
        assert len(answer) > 50
        assert "袖" * 45 in answer or "x" * 100 in answer
        answered(tmp_path / answer, Path("/a") / name)
        assert answer_name(Path("/a") / name, tmp_path, "runs/s") == answer
        assert answer_name(Path("/a") / name.replace(".", "y."), tmp_path, "runs/s") == f"{answer}-2"


@pytest.mark.parametrize("said", [None, b"", b"[]", b'{"source": {"split": "test"}}'])
def test_an_answer_that_does_not_say_whose_it_is_is_left_alone(tmp_path: Path, said: bytes | None) -> None:
    (tmp_path / "images-photos").mkdir()
    if said is not None:
        (tmp_path / "images-photos" / SOURCE_NAME).write_bytes(said)
    assert answer_name(Path("/a/photos"), tmp_path, "runs/s") == "images-photos-2"


def test_answers_in_a_bucket_are_looked_at(s3: Server, tmp_path: Path) -> None:
    said = json.dumps({"source": {"folder": "/a/photos"}}).encode()
    s3.write("sweeps", f"s/predictions/images-photos/{SOURCE_NAME}", said)
    s3.write("sweeps", "s/predictions/images-old/prediction.txt", b"0\n")
    assert answer_name(Path("/a/photos"), tmp_path, "s3://sweeps/s") == "images-photos"
    assert answer_name(Path("/b/photos"), tmp_path, "s3://sweeps/s") == "images-photos-2"
    assert answer_name(Path("/b/old"), tmp_path, "s3://sweeps/s") == "images-old-2"


def test_a_place_is_a_folder_or_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert picture_place("photos/") == tmp_path / "photos"
    assert picture_place("photos/../a.jpg") == tmp_path / "a.jpg"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert picture_place("~/photos") == tmp_path / "photos"
    with pytest.raises(DataError, match="--images: must be a folder of pictures, or a picture; got nowhere"):
        picture_place("nowhere")
    with pytest.raises(DataError, match=r"got s3://shop/photos\. Copy pictures from a bucket into a folder first"):
        picture_place("s3://shop/photos")
