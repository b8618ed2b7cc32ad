"""A tail is promoted as a whole model, which gives validation's numbers from pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fashion.data.layout import read_dataset
from fashion.model.classifier import build_model
from fashion.prediction.predict import accuracy, predict
from fashion.prediction.promoted import load_promoted
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.training.feed import with_cached
from fashion.training.loop import TrialInputs, fit
from tests.support.trained import NONE, config, packs


@pytest.mark.parametrize("eval_flip", [False, True])
def test_the_whole_model_gives_the_recorded_probabilities(demo_root: Path, tmp_path: Path, eval_flip: bool) -> None:
    wanted = config(
        demo_root, mode="tail", freeze_stages=2, optimizer="adamw", lr=0.005, ema=0.9, mixup=0.2, freeze_bn_stats=True
    )
    pixels = {"crop_mode": "center", "crop_cells": 2, "eval_flip": eval_flip}
    wanted = wanted.model_copy(update={"data": wanted.data.model_copy(update=pixels)})
    dataset, data = read_dataset(demo_root), packs(demo_root, wanted)
    run = Run.create(
        tmp_path,
        "sweep",
        {
            "spec": {"data": {}, "model": {}, "train": {}, "search": {"trials": 1}},
            "data_fingerprint": dataset.fingerprint(),
            "attributes": [{"name": each.name, "classes": list(each.classes)} for each in dataset.attributes],
            "label_counts": {
                split: [count.tolist() for count in dataset.label_counts(split)] for split in ("train", "val")
            },
        },
    )
    run.record_trial(0, wanted.model_dump(mode="json"))
    for report in fit(TrialInputs(wanted, with_cached(data, wanted, NONE), NONE, run.trial_dir(0))):
        run.record_report(report, "continue")
    promote(run)
    best = run.trials[0].best()
    assert best is not None
    # The promoted folder alone is enough.
    model, promoted = load_promoted(shutil.move(run.best_dir, tmp_path / "moved"))
    assert set(model.state_dict()) == set(build_model(wanted.model, data.class_counts).state_dict())
    predictions = predict(model, promoted, data.val)
    recorded = pq.read_table(run.trial_dir(0) / f"val-{best.epoch:04d}.parquet")
    for head, attribute in enumerate(dataset.attributes):
        told = np.array(recorded.column(attribute.name).to_pylist(), np.float32)
        np.testing.assert_allclose(predictions.probabilities[head], told, atol=2e-3)
    assert data.val.labels is not None
    assert accuracy(predictions, data.val.labels) == pytest.approx(best.metrics["val_accuracy"], abs=0.02)
