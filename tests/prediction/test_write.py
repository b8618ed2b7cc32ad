"""The predict step: it reproduces the validation accuracy and writes validated files, all of them or none."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fashion.bucket.address import parse_address
from fashion.config.data import Form
from fashion.config.trial import TrialConfig
from fashion.data import lists
from fashion.data.layout import Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.data.remote.push import push
from fashion.errors import CheckpointError, DataError
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.prediction.location import SOURCE_NAME
from fashion.prediction.probabilities import read_probabilities
from fashion.prediction.write import (
    PROBABILITIES_NAME,
    TABLE_NAME,
    PredictionInput,
    fetch_predictions,
    predict_in_bucket,
    predict_into,
)
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.storage.working_copy import working_copy
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit
from tests.support.servers.s3_server import Server

FILES = ["prediction.txt", "prediction.txt.zip", TABLE_NAME, PROBABILITIES_NAME]
ALL = sorted([*FILES, SOURCE_NAME])


@pytest.fixture(scope="module")
def dataset(demo_root: Path) -> Dataset:
    return read_dataset(demo_root)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real trial, recorded and promoted, whose training batch size of 5 differs from the evaluation batch size."""
    sections: dict[str, Any] = {
        "data": {"root": str(dataset.root), "resize": 40, "crop": 32, "eval_flip": True},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": 2, "batch_size": 5, "lr": 0.02, "ema": 0.8},
    }
    config = TrialConfig.model_validate(sections)
    manifest = {
        "spec": {"data": {}, "model": {}, "train": {}, "search": {"trials": 1}},
        "data_fingerprint": dataset.fingerprint(),
        "attributes": [{"name": each.name, "classes": list(each.classes)} for each in dataset.attributes],
        "label_counts": {
            split: [count.tolist() for count in dataset.label_counts(split)] for split in ("train", "val")
        },
    }
    run = Run.create(tmp_path_factory.mktemp("runs"), "sweep", manifest)
    run.record_trial(0, config.model_dump(mode="json"))
    train, val = (Pack.open_or_build(dataset, split, 40) for split in ("train", "val"))
    data = TrainingData(train, val, dataset.attributes, dataset.fingerprint())
    for report in fit(TrialInputs(config, data, ResolvedWeights("none"), run.trial_dir(0))):
        run.record_report(report, "continue")
    promote(run)
    return run


def test_predicting_val_gives_the_recorded_accuracy_and_probabilities(
    run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    best = run.trials[0].best()
    assert best is not None
    seen: list[tuple[int, int]] = []
    written = predict_into(
        run.best_dir, PredictionInput(root=dataset.root, split="val"), tmp_path / "val",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert written.accuracy == best.metrics["val_accuracy"]
    assert written.images == 32
    assert seen[-1] == (32, 32)
    # To the last bit what the trial itself stored in that epoch.
    stored = pq.read_table(run.trial_dir(0) / f"val-{best.epoch:04d}.parquet")
    images, attributes, values = read_probabilities(tmp_path / "val" / PROBABILITIES_NAME)
    assert images == stored.column("image").to_pylist()
    for name, found in zip(attributes, values, strict=True):
        np.testing.assert_array_equal(found, np.array(stored.column(name).to_pylist(), np.float32))


def test_progress_begins_while_a_splits_images_are_looked_for(
    run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LOOKS", 20)
    seen: list[tuple[int, int]] = []
    source = PredictionInput(root=dataset.root, split="val")
    predict_into(run.best_dir, source, tmp_path / "val", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (20, 0)
    assert seen[-1] == (32, 32)


def test_the_submission_has_one_line_an_image_in_the_lists_order(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    target = tmp_path / "predictions" / "test"  # neither folder is there yet
    written = predict_into(run.best_dir, PredictionInput(root=dataset.root), target)
    assert sorted(os.listdir(target)) == ALL
    assert written.files == [target / name for name in FILES]
    assert os.listdir(target.parent) == ["test"]
    lines = (target / FILES[0]).read_text().splitlines()
    images, attributes, values = read_probabilities(target / PROBABILITIES_NAME)
    assert images == list(dataset.splits["test"].images)
    assert attributes == {each.name: each.classes for each in dataset.attributes}
    chosen = np.stack([head.argmax(1) for head in values], axis=1)
    assert lines == [" ".join(map(str, row)) for row in chosen.tolist()]
    with zipfile.ZipFile(target / FILES[1]) as archive:
        assert archive.namelist() == ["prediction.txt"]
        assert archive.read("prediction.txt") == (target / FILES[0]).read_bytes()


def test_predicting_again_replaces_the_files(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    target = tmp_path / "test"
    target.mkdir()
    (target / FILES[0]).write_text("old\n")
    (target / "notes.txt").write_text("mine\n")
    first = predict_into(run.best_dir, PredictionInput(root=dataset.root), target)
    before = [path.read_bytes() for path in first.files]
    predict_into(run.best_dir, PredictionInput(root=dataset.root), target)
    assert [path.read_bytes() for path in first.files] == before
    assert (target / "notes.txt").read_text() == "mine\n"
    assert os.listdir(tmp_path) == ["test"]


def test_any_folder_of_images(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    images = dataset.splits["val"].images
    shutil.copy(dataset.root / images[3], photos / "deeper" / "b.png")
    shutil.copy(dataset.root / images[7], photos / "a.png")
    (photos / "list.txt").write_text("no image")
    written = predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")
    assert (written.images, written.accuracy) == (2, None)
    names, _, values = read_probabilities(tmp_path / "out" / PROBABILITIES_NAME)
    assert names == ["a.png", "deeper/b.png"]
    predict_into(run.best_dir, PredictionInput(root=dataset.root, split="val"), tmp_path / "val")
    _, _, whole = read_probabilities(tmp_path / "val" / PROBABILITIES_NAME)
    for few, all_of_them in zip(values, whole, strict=True):
        np.testing.assert_allclose(few, all_of_them[[7, 3]], rtol=1e-5)  # another batch size: other last bits


def test_labels_that_are_not_the_models_are_refused(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    root = Path(shutil.copytree(dataset.root, tmp_path / "other"))
    names = root / "split" / "attribute_names.txt"
    names.write_text(names.read_text().replace("sleeve", "arm"))
    with pytest.raises(CheckpointError, match="must have the model's attributes"):
        predict_into(run.best_dir, PredictionInput(root=root), tmp_path / "out" / "test")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [False, True])
def test_a_mistake_leaves_nothing_behind(run: Run, dataset: Dataset, tmp_path: Path, kept: bool) -> None:
    promoted = Path(shutil.copytree(run.best_dir, tmp_path / "best"))
    target, empty, spoilt = tmp_path / "out" / "test", tmp_path / "empty", tmp_path / "spoilt"
    before: dict[str, bytes] = {}
    if kept:  # what an earlier prediction wrote stays whole
        before = {
            path.name: path.read_bytes()
            for path in predict_into(promoted, PredictionInput(root=dataset.root), target).files
        }
    empty.mkdir()
    spoilt.mkdir()
    (spoilt / "a.png").write_bytes((dataset.root / dataset.splits["val"].images[0]).read_bytes()[:60])
    with pytest.raises(DataError, match=r"no such split(.|\n)*It has train, val, test"):
        predict_into(promoted, PredictionInput(root=dataset.root, split="tset"), target)
    with pytest.raises(DataError, match="nothing to predict"):
        predict_into(promoted, PredictionInput(folder=empty), target)
    with pytest.raises(DataError, match=r"a\.png"):
        predict_into(promoted, PredictionInput(folder=spoilt), target)
    weights = promoted / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="sha256"):
        predict_into(promoted, PredictionInput(root=dataset.root), target)
    there = [path for path in target.iterdir() if path.name != SOURCE_NAME] if target.exists() else []
    assert {path.name: path.read_bytes() for path in there} == before
    assert not target.exists() or os.listdir(target.parent) == ["test"]


def test_a_target_that_is_a_file_costs_nothing(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "test").write_text("mine\n")
    with pytest.raises(FileExistsError):
        predict_into(run.best_dir, PredictionInput(root=dataset.root), tmp_path / "test")
    assert os.listdir(tmp_path) == ["test"]
    assert (tmp_path / "test").read_text() == "mine\n"


def test_a_run_in_a_bucket_is_predicted_on_a_machine_that_has_nothing_of_it(
    s3: Server, run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    address = parse_address("s3://sweeps/lr")
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    source = PredictionInput(root=dataset.root, split="val")
    with pytest.raises(
        CheckpointError, match=r"s3://sweeps/lr/best/model.json: is missing. Promote a run's winner first"
    ):
        predict_in_bucket(address, source, "val")
    for path in run.best_dir.iterdir():
        s3.write("sweeps", f"lr/best/{path.name}", path.read_bytes())
    written = predict_in_bucket(address, source, "val")
    best = run.trials[0].best()
    assert best is not None
    assert written.accuracy == best.metrics["val_accuracy"]
    assert s3.names("sweeps", "lr/predictions") == sorted(f"lr/predictions/val/{name}" for name in ALL)
    puts = [path for method, path in s3.requests if method == "PUT"]
    assert puts[-1] == f"/sweeps/lr/predictions/val/{SOURCE_NAME}"
    # A second time nothing of the model is fetched; and the driver's machine gets what was written elsewhere.
    before = len(s3.requests)
    predict_in_bucket(address, source, "val")
    assert not [path for method, path in s3.requests[before:] if method == "GET" and "safetensors" in path]
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "driver"))
    here = fetch_predictions(address, "val", written)
    assert here.folder == working_copy(address) / "predictions" / "val"
    for path in here.files:
        assert path.read_bytes() == (written.folder / path.name).read_bytes()
    # Another model was promoted meanwhile, and half of it has arrived.
    s3.write("sweeps", "lr/best/model.safetensors", b"half")
    with pytest.raises(CheckpointError, match="its sha256 must be"):
        predict_in_bucket(address, source, "val")


@pytest.mark.parametrize("forms", [[], [Form(40)]])
def test_a_split_of_a_data_set_in_a_bucket_is_predicted_alike(
    s3: Server,
    run: Run,
    dataset: Dataset,
    tmp_path: Path,
    forms: list[Form],
) -> None:
    place = parse_address("s3://sweeps/data")
    push(dataset, place, forms, False, lambda label, done, total: None)
    seen: list[tuple[int, int]] = []
    for name, root in (("here", dataset.root), ("there", place)):
        written = predict_into(
            run.best_dir, PredictionInput(root=root), tmp_path / name, tmp_path / "cache",
            progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
        assert written.images == 24
    assert (tmp_path / "here" / FILES[0]).read_bytes() == (tmp_path / "there" / FILES[0]).read_bytes()
    mine, theirs = (pq.read_table(tmp_path / name / PROBABILITIES_NAME) for name in ("here", "there"))
    assert mine.equals(theirs)
    (copy,) = [each for each in (tmp_path / "cache" / "data").iterdir() if each.is_dir()]
    assert len(list(copy.rglob("*.arrow"))) == len(forms), "the split that is predicted, and no other"


def test_a_size_that_was_not_pushed_is_told(
    s3: Server,
    run: Run,
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    place = parse_address("s3://sweeps/data")
    push(dataset, place, [Form(32)], False, lambda label, done, total: None)
    with pytest.raises(DataError, match="--resize 40 --fit stretch"):
        predict_into(run.best_dir, PredictionInput(root=place), tmp_path / "there", tmp_path / "cache")
    assert not (tmp_path / "there").exists()
