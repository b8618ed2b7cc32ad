"""Runs whose trials can be members of an ensemble: trained on digits, or recorded with weights that say nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fashion.config.trial import TrialConfig
from fashion.data.layout import Dataset
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.run import Run
from fashion.sweep.described import labels_of, record_val_labels
from fashion.training.loop import TrialInputs, fit
from tests.support.labelled import opened


def trained_run(folder: Path, dataset: Dataset, configs: Sequence[TrialConfig], name: str = "sweep") -> Run:
    """A real trial of each configuration, recorded as a sweep records it."""
    manifest = {
        "spec": {"data": {}, "model": {}, "train": {}, "search": {"trials": len(configs)}},
        "data_root": str(dataset.root),
        "data_fingerprint": dataset.fingerprint(),
        **labels_of(dataset),
    }
    run = Run.create(folder, name, manifest)
    record_val_labels(run, dataset)
    for number, config in enumerate(configs):
        run.record_trial(number, config.model_dump(mode="json"))
        run.record_attempt(number)
        inputs = TrialInputs(config, opened(dataset, config), ResolvedWeights("none"), run.trial_dir(number), number)
        for report in fit(inputs):
            run.record_report(report, "continue")
        run.record_end(number, "completed")
    run.close()
    return run


def with_weights(run: Run) -> Run:
    """The same run, with a checkpoint of each trial's best epoch as far as a promotion looks at it."""
    for number, trial in run.trials.items():
        best = trial.best()
        assert best is not None
        header = {
            "config": trial.config,
            "data_fingerprint": run.manifest["data_fingerprint"],
            "report": best.to_json(),
            "format": 1,
        }
        weights = {"w": np.full((2, 2), number, np.float32)}
        save_file(weights, run.checkpoint_path(number, best.epoch), {"fashion": json.dumps(header)})
    return run
