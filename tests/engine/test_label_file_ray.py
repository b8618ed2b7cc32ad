"""A label file from its first command to its predictions, typed as a user types it, on a real Ray."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fashion.config.trial import read_config
from fashion.data.convert.demo_labels import write_label_demo
from fashion.data.layout import read_dataset
from fashion.data.lists import MISSING
from fashion.record import ranking
from fashion.record.run import Run
from tests.support.machines.shared_ray import SharedRay
from tests.support.running import fashion

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("shared-ray-2")]


def test_from_a_label_file_to_its_predictions(tmp_path: Path, shared_ray: SharedRay) -> None:
    """Some labels are missing, and an attribute is multi-label; the accuracies in the journal are scikit-learn's."""
    metrics = pytest.importorskip("sklearn.metrics")
    write_label_demo(tmp_path / "people", 160, size=48)
    small = ["--set", "model.backbone=tiny", "--set", "data.split={group: group}", "--set", "train.epochs=2"]
    done = fashion(tmp_path, "run", "--data", "people/labels.csv", "--trials", "2", *small, **shared_ray.joining)
    assert done.returncode == 0, done
    assert "people.yaml: written for people/labels.csv" in done.stderr
    again = fashion(tmp_path, "run", "--data", "people/labels.csv", "--trials", "2", *small, **shared_ray.joining)
    assert again.returncode == 0, again
    assert "people.yaml: drafted earlier" in again.stderr
    assert "2 of 2 trials are final, 0 to do" in again.stdout

    done = fashion(tmp_path, "best", "people", "--predict", "--split", "val", "--json", **shared_ray.joining)
    assert done.returncode == 0, done
    said = json.loads(done.stdout)["predictions"]
    run = Run.open(tmp_path / "runs" / "people")
    winner = ranking.best(run)
    reading = read_config(run.trials[0].config).data.label_reading
    dataset = read_dataset(tmp_path / "people" / "labels.csv", reading=reading)
    folder = run.predictions_dir / "val"
    with open(folder / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file_name"] for row in rows] == list(dataset.splits["val"].images)
    assert list(rows[0])[1:7] == [
        "pattern", "pattern probability", "sleeve", "sleeve probability", "neckline", "neckline probability",
    ]  # fmt: skip
    assert not (folder / "prediction.txt").exists()
    table = pq.read_table(folder / "probabilities.parquet")
    for attribute, labels in dataset.by_attribute("val"):
        known = labels != MISSING
        shares = np.array(table[attribute.name].to_pylist())
        chosen = (shares > 0.5).astype(int) if attribute.multi_label else shares.argmax(axis=1)[:, None]
        expected = metrics.accuracy_score(labels[known], chosen[known])
        assert winner.metrics[f"val_accuracy/{attribute.name}"] == pytest.approx(expected, abs=1e-12)
        assert said["accuracies"][attribute.name] == pytest.approx(expected, abs=1e-12)
    assert said["accuracy"] == pytest.approx(winner.metrics["val_accuracy"], abs=1e-12)
