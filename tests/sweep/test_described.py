"""What a run records of its data and models lets a reader recompute the journal's own numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fashion.data.layout import Dataset
from fashion.record.run import Run
from fashion.record.trial_files import predictions_path
from fashion.sweep.described import moved_images, record_findings, record_val_labels
from tests.support.promoted import promoted_run


@pytest.fixture(scope="module")
def recorded(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    run, dataset = promoted_run(tmp_path_factory.mktemp("run"), demo_root, {}, {})
    record_val_labels(run, dataset)
    return run, dataset


def test_accuracies_and_loss_follow_from_the_files(recorded: tuple[Run, Dataset]) -> None:
    run, _ = recorded
    best = run.trials[0].best()
    assert best is not None
    labels = pq.read_table(run.val_labels_path)
    predictions = pq.read_table(predictions_path(run.trial_dir(0), best.epoch))
    assert labels["image"].to_pylist() == predictions["image"].to_pylist()
    names = [entry["name"] for entry in run.manifest["attributes"]]
    assert labels.column_names == predictions.column_names == ["image", *names]
    truth = np.stack([labels[name].to_numpy() for name in names], axis=1)
    heads = [np.array(predictions[name].to_pylist(), np.float64) for name in names]
    right = np.stack([head.argmax(1) for head in heads], axis=1) == truth
    for column, name in enumerate(names):
        assert right[:, column].mean() == best.metrics[f"val_accuracy/{name}"]
    assert right.sum() / right.size == best.metrics["val_accuracy"]
    assert right.all(1).mean() == best.metrics["val_exact_match"]
    rows = np.arange(len(truth))
    losses = [-np.log(head[rows, truth[:, column]]) for column, head in enumerate(heads)]
    assert np.mean(losses) == pytest.approx(best.metrics["val_loss"], abs=1e-5)


def test_labels_are_written_once(recorded: tuple[Run, Dataset]) -> None:
    run, dataset = recorded
    before = run.val_labels_path.stat()
    record_val_labels(run, dataset)
    after = run.val_labels_path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_where_its_validation_images_have_gone_is_told(recorded: tuple[Run, Dataset]) -> None:
    run, dataset = recorded
    assert moved_images(run, dataset) == ""
    train, val = (dataset.splits[name] for name in ("train", "val"))
    splits = {
        "train": replace(train, images=(*train.images[2:], *val.images[:3])),
        "val": replace(val, images=(*val.images[4:], *train.images[:2])),
    }
    told = moved_images(run, replace(dataset, splits=splits))
    assert told == "Of its 32 validation images, 1 are in no split now, 3 are in train now, 2 images have come to val."
    run.update_manifest(splits={"train": 40, "val": 32, "test": 5})
    grown = {**dataset.splits, "train": replace(train, images=(*train.images, "img/new.png"))}
    sizes = f"train has {len(train) + 1} images now, and had 40"
    assert sizes in moved_images(run, replace(dataset, splits=grown))


def test_what_is_odd_about_the_data_is_recorded(recorded: tuple[Run, Dataset]) -> None:
    run, dataset = recorded
    record_findings(run, dataset)
    assert [each["kind"] for each in run.manifest["findings"]] == ["few"]
    assert Run.open(run.path).manifest["findings"] == run.manifest["findings"]
