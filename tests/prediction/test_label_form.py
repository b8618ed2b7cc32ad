"""Predictions for data in a label file: its own columns and names, no submission, accuracy over what is labelled."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fashion.data.layout import Dataset, read_dataset
from fashion.data.lists import MISSING
from fashion.prediction.probabilities import read_probabilities
from fashion.prediction.write import PROBABILITIES_NAME, TABLE_NAME, PredictionInput, Written, predict_into
from fashion.record.run import Run
from tests.support.labelled import configured, digits, labelled_run

metrics = pytest.importorskip("sklearn.metrics")


def cell(label: str, known: bool) -> str:
    return (label or "|") if known else ""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The digits as a label file, whose images are named in `img_path`. Its test split has labels for half."""
    root = tmp_path_factory.mktemp("digits")
    drawn = digits(root)
    with open(root / "labels.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["size", "img_path", "split", "traits", "digit"])
        for name, split in drawn.splits.items():
            parts = dict(zip(drawn.attribute_names, (each for _, each in drawn.by_attribute(name)), strict=True))
            for row, image in enumerate(split.images):
                found = {a.name: a.classes for a in drawn.attributes}
                traits = parts["traits"][row]
                held = "|".join(each for each, label in zip(found["traits"], traits, strict=True) if label == 1)
                one = {each: int(parts[each][row, 0]) for each in ("size", "digit")}
                shown = {each: cell(found[each][label], label != MISSING) for each, label in one.items()}
                put = "test" if name == "val" and row % 2 else name
                rows.writerow([shown["size"], image, put, cell(held, traits.min() >= 0), shown["digit"]])
    return read_dataset(root)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return labelled_run(tmp_path_factory.mktemp("runs"), dataset, configured(dataset.root / dataset.source, epochs=2))


@pytest.fixture(scope="module")
def written(run: Run, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Written:
    source = PredictionInput(root=dataset.root / dataset.source)
    return predict_into(run.best_dir, source, tmp_path_factory.mktemp("predictions") / "test")


def test_the_files_speak_the_label_files_words(written: Written, dataset: Dataset) -> None:
    assert written.names == (TABLE_NAME, PROBABILITIES_NAME)
    assert written.warnings == ()
    assert not (written.folder / "prediction.txt").exists()
    with open(written.folder / TABLE_NAME, newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = {each.name: each.classes for each in dataset.attributes}
    assert list(rows[0]) == [
        "img_path", "size", "size probability", "traits",
        *(f"traits {name} probability" for name in classes["traits"]), "digit", "digit probability",
    ]  # fmt: skip
    assert [row["img_path"] for row in rows] == list(dataset.splits["test"].images)
    assert {row["digit"] for row in rows} <= set(classes["digit"])
    table = pq.read_table(written.folder / PROBABILITIES_NAME)
    assert table.column_names == ["img_path", "size", "traits", "digit"]
    images, found, _ = read_probabilities(written.folder / PROBABILITIES_NAME)
    assert (images, found) == (list(dataset.splits["test"].images), classes)


def test_accuracies_are_over_what_is_labelled(written: Written, dataset: Dataset) -> None:
    _, _, values = read_probabilities(written.folder / PROBABILITIES_NAME)
    right, known, expected = [], [], {}
    for (attribute, labels), shares in zip(dataset.by_attribute("test"), values, strict=True):
        there = labels != MISSING
        chosen = (shares > 0.5).astype(int) if attribute.multi_label else shares.argmax(1)[:, None]
        assert 0 < there.sum() < there.size
        expected[attribute.name] = metrics.accuracy_score(labels[there], chosen[there])
        right.append(int((labels == chosen)[there].sum()))
        known.append(int(there.sum()))
    assert written.accuracies == pytest.approx(expected, abs=1e-12)
    assert written.accuracy == pytest.approx(sum(right) / sum(known), abs=1e-12)


def test_without_labels_there_is_no_accuracy(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    """A folder of the same images is predicted as before, but for the labels."""
    done = predict_into(run.best_dir, PredictionInput(folder=dataset.root / "img"), tmp_path / "images")
    assert (done.accuracy, dict(done.accuracies)) == (None, {})
    assert (done.folder / TABLE_NAME).read_text().startswith("file,size,")
    assert pq.read_table(done.folder / PROBABILITIES_NAME).column_names[0] == "image"
    assert "there is no prediction.txt" in done.warnings[0]
    values = [np.array(each) for each in read_probabilities(done.folder / PROBABILITIES_NAME)[2]]
    assert all(np.isfinite(each).all() for each in values)
