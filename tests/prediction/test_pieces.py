"""Prediction a piece at a time: the numbers of all at once, and an interrupted one goes on where it stopped."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion.data.layout import Dataset
from fashion.errors import DataError, RunError
from fashion.files import KernelLock
from fashion.prediction import pieces as module
from fashion.prediction.location import SOURCE_NAME
from fashion.prediction.pieces import rows_of_piece
from fashion.prediction.predict import predict
from fashion.prediction.probabilities import WHY, read_probabilities
from fashion.prediction.promoted import load_promoted
from fashion.prediction.write import PROBABILITIES_NAME, TABLE_NAME, PredictionInput, predict_into
from fashion.record.run import Run
from tests.support.promoted import promoted_run


@pytest.fixture(scope="module")
def trained(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    return promoted_run(tmp_path_factory.mktemp("runs"), demo_root, {}, {})


@pytest.fixture
def run(trained: tuple[Run, Dataset]) -> Run:
    return trained[0]


@pytest.fixture
def photos(trained: tuple[Run, Dataset], tmp_path: Path) -> Path:
    """80 pictures: two pieces of one batch of 32, and a half one, once pieces are small."""
    folder, dataset = tmp_path / "photos", trained[1]
    folder.mkdir()
    for number, name in enumerate(dataset.splits["train"].images[:80]):
        shutil.copy(dataset.root / name, folder / f"{number:02d}.jpg")
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 32)


def answers(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != PROBABILITIES_NAME}


def test_pieces_are_whole_batches_and_bounded(run: Run) -> None:
    _, promoted = load_promoted(run.best_dir)
    assert rows_of_piece(promoted, "cpu") % 32 == 0
    assert rows_of_piece(promoted, "cpu") <= module.MOST
    wide = promoted.config.data.model_copy(update={"resize": 2048})
    promoted = type(promoted)(**{**vars(promoted), "config": promoted.config.model_copy(update={"data": wide})})
    assert rows_of_piece(promoted, "cpu") == 32, "at least one batch"


def test_numbers_are_those_of_all_at_once(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "whole")
    monkeypatch.setattr(module, "MOST", 32)
    seen: list[tuple[int, int]] = []
    predict_into(
        run.best_dir, PredictionInput(folder=photos), tmp_path / "parts",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert answers(tmp_path / "whole") == answers(tmp_path / "parts")
    for one, other in zip(
        read_probabilities(tmp_path / "whole" / PROBABILITIES_NAME)[2],
        read_probabilities(tmp_path / "parts" / PROBABILITIES_NAME)[2],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert seen == sorted(seen)
    assert seen[-1] == (80, 80)
    assert sorted(os.listdir(tmp_path)) == ["parts", "photos", "whole"], "no piece stays"


def test_an_interrupted_prediction_goes_on(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    calls: list[Any] = []

    def interrupted(*arguments: object, **others: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "predict", interrupted)
    source = PredictionInput(folder=photos)
    with pytest.raises(KeyboardInterrupt):
        predict_into(run.best_dir, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / ".out.pieces").iterdir())) == 1
    calls[:] = [()] * 5
    predict_into(run.best_dir, source, tmp_path / "out")
    assert len(calls) == 7, "two of three pieces were still to be predicted"
    predict_into(run.best_dir, source, tmp_path / "again")
    assert answers(tmp_path / "out") == answers(tmp_path / "again")


def test_a_picture_that_changed_meanwhile_is_predicted_again(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    rows: list[str] = []

    def counted(*arguments: object, **others: object) -> object:
        names = arguments[3]
        assert isinstance(names, tuple)
        rows.append(names[0])
        if len(rows) == 3:
            raise KeyboardInterrupt
        return predict(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")
    shutil.copy(photos / "70.jpg", photos / "00.jpg")
    (tmp_path / ".out.pieces").joinpath("junk.npz").write_bytes(b"")
    for kept in (tmp_path / ".out.pieces").glob("*.npz"):
        assert kept.stat().st_size >= 0
    rows.clear()
    rows += ["", "", "", ""]
    predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")
    assert rows[4:] == ["00.jpg", "64.jpg"]


def test_a_damaged_piece_is_predicted_again(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    source = PredictionInput(folder=photos)
    predict_into(run.best_dir, source, tmp_path / "whole")
    calls: list[int] = []

    def interrupted(*arguments: object, **others: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_into(run.best_dir, source, tmp_path / "out")
    for kept, content in zip(sorted((tmp_path / ".out.pieces").glob("*.npz")), (b"", b"PK\3\4junk"), strict=True):
        kept.write_bytes(content)
    predict_into(run.best_dir, source, tmp_path / "out")
    assert len(calls) == 6
    assert answers(tmp_path / "out") == answers(tmp_path / "whole")


def test_unreadable_pictures_are_refused_together_and_leave_what_is_done(
    run: Run, photos: Path, tmp_path: Path, small_pieces: None
) -> None:
    (photos / "40.jpg").write_bytes(b"no picture")
    (photos / "79.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="With --on-error skip such images are left out") as caught:
        predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")
    assert [Path(problem.place).name for problem in caught.value.problems] == ["40.jpg", "79.jpg"]
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / ".out.pieces").iterdir())) == 1, "the first piece needs not be predicted again"


def test_skipped_pictures_have_a_row_that_says_why(run: Run, photos: Path, tmp_path: Path, small_pieces: None) -> None:
    predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")
    sound = read_probabilities(tmp_path / "out" / PROBABILITIES_NAME)
    (photos / "40.jpg").write_bytes(b"")
    written = predict_into(run.best_dir, PredictionInput(folder=photos, on_error="skip"), tmp_path / "out")
    assert (written.images, written.without) == (80, 1)
    assert any("1 of 80 images can't be decoded" in warning for warning in written.warnings)
    with open(tmp_path / "out" / TABLE_NAME, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 80
    assert rows[40]["file"] == "40.jpg"
    assert rows[40][WHY] == "an empty file"
    assert rows[40]["sleeve"] == rows[40]["sleeve probability"] == ""
    assert all(row["sleeve"] and not row[WHY] for row in rows if row["file"] != "40.jpg")
    names, _, heads = read_probabilities(tmp_path / "out" / PROBABILITIES_NAME)
    assert names == sound[0]
    for found, before in zip(heads, sound[2], strict=True):
        assert np.isnan(found[40]).all()
        np.testing.assert_array_equal(np.delete(found, 40, axis=0), np.delete(before, 40, axis=0))
    assert not (tmp_path / "out" / "prediction.txt").exists(), "one of the earlier prediction would not belong to it"
    # The same pieces, now that such pictures are refused.
    with pytest.raises(DataError, match=r"40\.jpg"):
        predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")


def test_the_table_is_for_people(run: Run, photos: Path, tmp_path: Path) -> None:
    predict_into(run.best_dir, PredictionInput(folder=photos / "07.jpg"), tmp_path / "out")
    with open(tmp_path / "out" / TABLE_NAME, newline="") as stream:
        (row,) = csv.DictReader(stream)
    names, attributes, heads = read_probabilities(tmp_path / "out" / PROBABILITIES_NAME)
    assert names == [row["file"]] == ["07.jpg"]
    for (name, classes), values in zip(attributes.items(), heads, strict=True):
        assert row[name] == classes[int(values[0].argmax())]
        assert float(row[f"{name} probability"]) == pytest.approx(values.max(), rel=1e-5)
    said = json.loads((tmp_path / "out" / SOURCE_NAME).read_text())
    assert said["source"] == {"folder": str(photos / "07.jpg")}
    assert said["images"] == 1


def test_two_processes_never_predict_into_one_folder(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.pieces").mkdir()
    with (
        KernelLock(tmp_path / ".out.pieces" / "lock"),
        pytest.raises(RunError, match="another process is predicting into this folder"),
    ):
        predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")


def test_a_file_system_without_locks_or_fsync_holds_predictions(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*arguments: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", lacking)
    monkeypatch.setattr(os, "fsync", lacking)
    written = predict_into(run.best_dir, PredictionInput(folder=photos / "07.jpg"), tmp_path / "out")
    assert written.images == 1
    assert not [*tmp_path.glob(".out*")]
