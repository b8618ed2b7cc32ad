"""Training on labels that are missing in part, and on multi-label attributes: everything recomputed from the record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import fashion
from fashion.api.validation import AttributePredictions
from fashion.data.layout import Dataset
from fashion.data.lists import MISSING
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.prediction.pictures import PredictionInput
from fashion.prediction.predict import accuracy, predict
from fashion.prediction.promoted import load_promoted
from fashion.prediction.write import predict_into
from fashion.record import ranking
from fashion.record.run import Run
from fashion.training.loop import TrialInputs, fit
from tests.support.labelled import DIGIT, SIZE, TRAITS, configured, digits, labelled_run, opened

NO_WEIGHTS = ResolvedWeights("none")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return labelled_run(tmp_path_factory.mktemp("runs"), dataset, configured(dataset.root))


def known_of(each: AttributePredictions) -> tuple[Any, Any, Any]:
    """Labels, decisions and probabilities of one attribute where the label is known."""
    assert each.labels is not None
    known = each.labels != MISSING
    return each.labels[known], each.predicted[known], each.probabilities[known]


def test_every_metric_is_that_of_the_recorded_files(dataset: Dataset, run: Run) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    best = fashion.open_run(run.path).best()
    found = fashion.open_run(run.path).predictions()
    hits, labels, losses = 0, 0, []
    for each in found.attributes:
        truth, decided, probabilities = known_of(each)
        assert 0.5 < len(truth) / each.labels.size < 0.85  # type: ignore[union-attr]
        hits, labels = hits + int((truth == decided).sum()), labels + len(truth)
        assert best.metrics[f"val_accuracy/{each.name}"] == metrics.accuracy_score(truth, decided)
        classes = [0, 1] if each.multi_label else range(len(each.classes))
        wide = probabilities.astype(np.float64)
        wide = wide if each.multi_label else wide / wide.sum(1, keepdims=True)
        losses.append(metrics.log_loss(truth, wide, labels=classes))
    assert best.metrics["val_accuracy"] == hits / labels
    assert best.metrics["val_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    right = [each.predicted == each.labels for each in found.attributes]
    whole = (dataset.labels("val") != MISSING).all(1)
    exact = np.concatenate([each.reshape(len(whole), -1) for each in right], axis=1).all(1)
    assert best.metrics["val_exact_match"] == exact.sum() / whole.sum()
    assert hits / labels > ranking.majority_accuracy(run.manifest) > 0.4  # it learns, with labels missing


def test_average_precision_and_f1_are_scikit_learns(run: Run) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for each in fashion.open_run(run.path).predictions().attributes:
        assert each.labels is not None
        for index in range(len(each.classes)):
            labels = each.labels[:, index] if each.multi_label else each.labels
            decided = each.predicted[:, index] == 1 if each.multi_label else each.predicted == index
            known = labels != MISSING
            holds = labels[known] == (1 if each.multi_label else index)
            expected = metrics.average_precision_score(holds, each.probabilities[known, index])
            assert each.average_precision()[index] == pytest.approx(expected, rel=1e-12)
            assert each.f1()[index] == pytest.approx(metrics.f1_score(holds, decided[known]), rel=1e-12)


def test_the_majority_baseline_is_that_of_the_labels(dataset: Dataset, run: Run) -> None:
    train, val = (dataset.labels(split) for split in ("train", "val"))
    hits, labels = [], []
    for column in range(5):
        there, of_train = val[:, column] != MISSING, train[:, column]
        majority = np.bincount(of_train[of_train != MISSING]).argmax()
        hits.append(int((val[there, column] == majority).sum()))
        labels.append(int(there.sum()))
    digit, size, traits = ranking.attribute_table(run.manifest, {"val_accuracy/traits": 0.5})
    assert (digit.majority_accuracy, digit.images) == (hits[0] / labels[0], labels[0])
    assert (size.majority_accuracy, size.images) == (hits[1] / labels[1], labels[1])
    assert (traits.majority_accuracy, traits.images) == (sum(hits[2:]) / sum(labels[2:]), sum(labels[2:]))
    assert traits.correct == round(0.5 * sum(labels[2:]))
    assert traits.val_counts == tuple((val[:, 2:] == 1).sum(0))
    assert ranking.majority_accuracy(run.manifest) == pytest.approx(sum(hits) / sum(labels), rel=1e-12)
    from fashion.data.layout import majority_baseline

    found = majority_baseline(dataset)
    assert found.overall == sum(hits) / sum(labels)
    assert found.accuracies == (digit.majority_accuracy, size.majority_accuracy, traits.majority_accuracy)


def test_the_record_and_its_tables_speak_names_and_nulls(dataset: Dataset, run: Run) -> None:
    val = dataset.labels("val")
    entries = [(entry["name"], entry.get("multi_label")) for entry in run.manifest["attributes"]]
    assert entries == [("digit", None), ("size", None), ("traits", True)]
    table = pq.read_table(run.val_labels_path)
    assert table.column("digit").to_pylist() == [None if label == MISSING else label for label in val[:, 0].tolist()]
    traits = [[None if label == MISSING else label for label in row] for row in val[:, 2:].tolist()]
    assert table.column("traits").to_pylist() == traits
    named = fashion.open_run(run.path).predictions().to_table()
    digit = [None if label == MISSING else DIGIT.classes[label] for label in val[:, 0]]
    assert named.column("digit").to_pylist() == digit
    held = [
        None if row == [None] * 3 else [TRAITS.classes[i] for i, label in enumerate(row) if label == 1]
        for row in traits
    ]
    assert named.column("traits").to_pylist() == held
    assert named.schema.field("traits/probabilities").metadata[b"multi_label"] == b"true"
    (stored,) = run.trial_dir(0).glob("val-*.parquet")
    schema = pq.read_schema(stored)
    assert schema.field("traits").metadata[b"multi_label"] == b"true"
    assert schema.field("digit").metadata is None


def test_the_promoted_model_knows_its_attributes_and_predicts_as_it_was_validated(
    dataset: Dataset, run: Run, tmp_path: Path
) -> None:
    found = fashion.open_run(run.path).predictions()
    model = fashion.load_model(run.path, "cpu")
    assert model.attributes == (DIGIT, SIZE, TRAITS)
    paths = [dataset.root / image for image in found.images]
    one = model.predict(paths)[5]
    assert sum(one["digit"].values()) == pytest.approx(1)
    stored = dict(zip(TRAITS.classes, found.attributes[2].probabilities[5].tolist(), strict=True))
    assert one["traits"] == pytest.approx(stored, abs=1e-6)
    table = model.predict_table(paths)
    decided = found.attributes[2].predicted
    assert table.column("traits/predicted").to_pylist() == [
        [TRAITS.classes[index] for index in np.flatnonzero(row)] for row in decided
    ]
    network, meta = load_promoted(run.best_dir)
    pixels = opened(dataset, model.config).val
    again = predict(network, meta, pixels)
    assert again.classes.shape == (90, 5)
    assert accuracy(again, dataset.labels("val")) == model.metrics["val_accuracy"]
    written = predict_into(run.best_dir, PredictionInput(folder=dataset.root / "img"), tmp_path / "answer")
    assert [path.name for path in written.files] == ["predictions.csv", "probabilities.parquet"]
    assert "traits can have several" in " ".join(written.warnings)
    header, first = (tmp_path / "answer" / "predictions.csv").read_text().splitlines()[:2]
    assert header.split(",") == [
        "file", "digit", "digit probability", "size", "size probability", "traits", "traits even probability",
        "traits prime probability", "traits round probability",
    ]  # fmt: skip
    assert first.split(",")[1] in DIGIT.classes
    probabilities = pq.read_schema(tmp_path / "answer" / "probabilities.parquet").field("traits").metadata
    assert (probabilities[b"multi_label"], json.loads(probabilities[b"classes"])) == (b"true", list(TRAITS.classes))


@pytest.mark.parametrize(
    "train", [{"loss": "focal", "ema": 0.9}, {"class_weighting": "inverse", "label_smoothing": 0.1}], ids=str
)
def test_what_can_be_asked_for_trains(dataset: Dataset, tmp_path: Path, train: dict[str, Any]) -> None:
    config = configured(dataset.root, {"eval_flip": True}, epochs=1, **train)
    (report,) = fit(TrialInputs(config, opened(dataset, config), NO_WEIGHTS, tmp_path))
    assert all(math.isfinite(value) for value in report.metrics.values())


def test_one_attribute_is_plain_classification(dataset: Dataset, tmp_path: Path) -> None:
    one = digits(tmp_path / "data", missing=0.0, attributes=(TRAITS,))
    run = labelled_run(tmp_path, one, configured(one.root, epochs=1))
    (traits,) = fashion.open_run(run.path).predictions().attributes
    metrics = fashion.open_run(run.path).best().metrics
    assert metrics["val_accuracy"] == metrics["val_accuracy/traits"] == (traits.predicted == traits.labels).mean()
    assert metrics["val_exact_match"] == (traits.predicted == traits.labels).all(1).mean()
