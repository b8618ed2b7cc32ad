"""An ensemble of members with different preprocessing predicts as one, and damaged ones are refused in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fashion
from fashion.data.layout import Dataset
from fashion.errors import CheckpointError
from fashion.prediction import pieces
from fashion.prediction.ensembles import predict_members
from fashion.prediction.ensembles.predict_members import resliced
from fashion.prediction.ensembles.promoted_ensemble import read_ensemble
from fashion.prediction.pieces import Piece
from fashion.prediction.probabilities import read_probabilities
from fashion.prediction.write import PROBABILITIES_NAME, PredictionInput, predict_into
from fashion.record.run import Run
from fashion.statistics.calibration import scaled
from fashion.statistics.outcomes import HeadLabels
from tests.support.ensembles import trained_run
from tests.support.labelled import DIGIT, SIZE, TRAITS, configured, digits


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits") / "data")


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two trials whose images have different sizes, filters and mirrors, promoted as an ensemble."""
    other = {"resize": 24, "crop": 20, "interpolation": "bilinear", "eval_flip": True}
    configs = [configured(dataset.root), configured(dataset.root, other, batch_size=20, lr=0.02)]
    made = trained_run(tmp_path_factory.mktemp("runs"), dataset, configs)
    opened = fashion.open_run(made.path)
    found = opened.ensemble(3)
    # Whatever is best here: both, with weights and temperatures of which none is neutral.
    members = tuple(
        fashion.EnsembleMember(opened.record, opened.at(number), count, None, None)
        for number, count in ((1, 2), (0, 1))
    )
    opened.promote_ensemble(replace(found, members=members, temperatures={"digit": 1.3, "size": 0.8, "traits": 1.1}))
    return made


def test_it_predicts_the_scaled_mean_of_its_members(run: Run, dataset: Dataset) -> None:
    model = fashion.load_model(run.path / "ensemble", "cpu")
    assert isinstance(model, fashion.EnsembleModel)
    ensemble = model.ensemble
    assert [member.config.data.crop for member in model.members] == [20, 16]
    assert ensemble.counts == (2, 1)
    assert model.attributes == (DIGIT, SIZE, TRAITS)
    recorded = {number: fashion.open_run(run.path).predictions(number) for number in (0, 1)}
    images = [dataset.root / image for image in recorded[0].images]
    table = model.predict_table(images)
    for head, attribute in enumerate(model.attributes):
        weighed = zip(ensemble.members, ensemble.counts, strict=True)
        each = [count * recorded[one.trial].attributes[head].probabilities.astype(float) for one, count in weighed]
        mean = np.sum(each, axis=0) / sum(ensemble.counts)
        labels = recorded[0].attributes[head].labels
        assert labels is not None
        wanted = scaled(HeadLabels("h", len(attribute.classes), labels), mean, ensemble.temperatures[head])
        found = np.array(table.column(f"{attribute.name}/probabilities").to_pylist())
        np.testing.assert_allclose(found, wanted, atol=2e-6)
        decided = table.column(f"{attribute.name}/predicted").to_pylist()
        if attribute.multi_label:
            assert decided == [[attribute.classes[i] for i in np.flatnonzero(row > 0.5)] for row in found]
        else:
            assert decided == [attribute.classes[row.argmax()] for row in found]


def test_files_are_those_of_a_single_model_and_say_the_same(
    run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.move(shutil.copytree(run.path / "ensemble", tmp_path / "copy"), tmp_path / "elsewhere"))
    source = PredictionInput(folder=dataset.root / "img")
    seen: list[tuple[int, int]] = []
    written = predict_into(folder, source, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    names, attributes, values = read_probabilities(tmp_path / "out" / PROBABILITIES_NAME)
    assert list(attributes) == ["digit", "size", "traits"]
    assert written.images == len(names) == 330
    assert seen[-1] == (660, 660)
    assert seen == sorted(seen)
    model = fashion.load_model(folder, "cpu")
    found = model.predict([dataset.root / "img" / name for name in names])
    for head, name in enumerate(attributes):
        np.testing.assert_array_equal(values[head], np.array([list(each[name].values()) for each in found], np.float32))
    said = json.loads((tmp_path / "out" / "source.json").read_text())["model"]
    assert {each["trial"] for each in said["ensemble"]} == {0, 1}
    # An image that can't be decoded has a row that says why.
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (30, 20), "red").save(photos / "a.png")
    (photos / "b.png").write_bytes((photos / "a.png").read_bytes()[:40])
    Image.new("RGB", (30, 20), "blue").save(photos / "c.png")
    with pytest.raises(fashion.DataError, match=r"b\.png"):
        predict_into(folder, PredictionInput(folder=photos), tmp_path / "photos-out")
    written = predict_into(folder, PredictionInput(folder=photos, on_error="skip"), tmp_path / "photos-out")
    assert written.without == 1


def test_an_interrupted_prediction_goes_on(
    run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PredictionInput(folder=dataset.root / "img")
    real, calls = pieces.predict_pieces, []

    def stopping(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(predict_members, "predict_pieces", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict_into(run.path / "ensemble", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".out.pieces").glob("*.npz"))
    predict_into(run.path / "ensemble", source, tmp_path / "out")
    predict_into(run.path / "ensemble", source, tmp_path / "whole")
    for name in ("predictions.csv", PROBABILITIES_NAME):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("rows", [1, 4, 7, 100])
def test_pieces_of_other_sizes_hold_the_same(rows: int) -> None:
    def piece(start: int, stop: int) -> Piece:
        values = np.arange(start, stop)
        problems = {row - start: str(row) for row in (2, 9) if start <= row < stop}
        return Piece(tuple(map(str, values)), values[:, None], (values[:, None].astype(np.float32),), problems)

    found = list(resliced([piece(0, 5), piece(5, 10), piece(10, 12)], rows))
    assert [len(each.names) for each in found] == [min(rows, 12 - start) for start in range(0, 12, rows)]
    assert [name for each in found for name in each.names] == [str(row) for row in range(12)]
    assert [int(row) for each in found for row in each.classes[:, 0]] == list(range(12))
    told = [each.names[row] for each in found for row in each.problems]
    assert told == ["2", "9"]
    assert [why for each in found for why in each.problems.values()] == ["2", "9"]


def test_damaged_ensembles_are_refused_in_words(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(run.path / "ensemble", tmp_path / name))

    def edited(name: str, file: str = "model.json", **changes: object) -> Path:
        folder = copy(name)
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **changes}))
        return folder

    members = json.loads((run.path / "ensemble" / "model.json").read_text())["members"]
    outside = [{**members[0], "description": "../best/model.json"}]
    for folder, rule in (
        (edited("newer", format=3), "this version reads format 2"),
        (edited("none", members=[]), "must describe an ensemble"),
        (edited("outside", members=outside), "must describe an ensemble"),
        (edited("weightless", members=[{**members[0], "count": 0}]), "must describe an ensemble"),
        (edited("cold", temperatures={"digit": 0, "size": 1, "traits": 1}), "must describe an ensemble"),
        (edited("few", temperatures={}), "must describe an ensemble"),
    ):
        with pytest.raises(CheckpointError, match=rule):
            fashion.load_model(folder, "cpu")
    other = json.loads((run.path / "ensemble" / "member-2.json").read_text())["attributes"][:2]
    with pytest.raises(CheckpointError, match=r"member-2\.json: predicts other attributes"):
        read_ensemble(edited("attributes", "member-2.json", attributes=other))
    lacking = copy("lacking")
    (lacking / "member-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"member-2\.safetensors: is missing"):
        predict_into(lacking, PredictionInput(folder=dataset.root / "img"), tmp_path / "out")
    (lacking / "member-2.json").unlink()
    with pytest.raises(CheckpointError, match=r"member-2\.json: is missing"):
        fashion.load_model(lacking, "cpu")
    assert read_ensemble(tmp_path) is None


def test_classes_are_those_of_the_written_probabilities(run: Run) -> None:
    """Two classes that a float32 can't tell apart: the first of them, as a reader of the file would say."""
    ensemble = read_ensemble(run.path / "ensemble")
    assert ensemble is not None
    close = np.full((1, 10), 0.05, np.float32)
    close[0, 3:5] = 0.3
    close[0, 4] = np.nextafter(np.float32(0.3), np.float32(1))
    size, traits = np.array([[0.5, 0.5]], np.float32), np.array([[0.5, 0.7, 0.2]], np.float32)
    classes, probabilities = ensemble.together([[close, size, traits]] * len(ensemble.members))
    assert [classes[0, 0], classes[0, 1]] == [values[0].argmax() for values in probabilities[:2]]
    np.testing.assert_array_equal(classes[0, 2:], probabilities[2][0] > 0.5)
    assert probabilities[0].sum() == pytest.approx(1)
