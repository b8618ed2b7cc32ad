"""The event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from fashion.display.tensorboard import EventFiles
from fashion.record.run import Run
from fashion.record.trial import EpochReport

CONFIG = {
    "data": {"root": "d", "train_crop": None},
    "model": {"backbone": "tiny"},
    "train": {"lr": 0.01, "ema": 0.0},
    "seed": 5,
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    spec = {"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": {"lr": {"loguniform": [0.001, 0.1]}}}
    manifest = {"spec": spec, "data_fingerprint": "f", "attributes": [], "label_counts": {"train": [], "val": []}}
    run = Run.create(tmp_path, "sweep", manifest)
    run.record_trial(0, CONFIG)
    return run


def report(epoch: int, loss: float, attempt: int = 1) -> EpochReport:
    metrics = {"val_loss": loss, "val_accuracy": 0.5 + epoch / 100, "val_accuracy/sleeve": 0.4}
    return EpochReport(0, attempt, epoch, 4, metrics, 2.0, f"2026-01-01T00:00:{epoch:02d}.000+00:00")


def feed(run: Run, files: EventFiles, *reports: EpochReport) -> None:
    for each in reports:
        run.record_report(each, "continue")
        files.add(each)


def read(run: Run) -> EventAccumulator:
    events = EventAccumulator(str(run.trial_dir(0) / "tb"))
    events.Reload()
    return events


def hparams(events: EventAccumulator, tag: str) -> Any:
    content = events.summary_metadata[f"_hparams_/{tag}"].plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_scalars_by_epoch_and_hyper_parameters(run: Run) -> None:
    with EventFiles(run) as files:
        feed(run, files, report(1, 1.5), report(2, math.nan), report(3, 1.25), report(4, 1.0))
        run.record_end(0, "completed")
        files.close(0)
    events = read(run)
    assert set(events.Tags()["scalars"]) == {"val_loss", "val_accuracy", "val_accuracy/sleeve", "seconds"}
    losses = events.Scalars("val_loss")
    assert [point.step for point in losses] == [1, 2, 3, 4]
    assert [losses[i].value for i in (0, 2, 3)] == [1.5, 1.25, 1.0]
    assert math.isnan(losses[1].value)
    assert losses[1].wall_time - losses[0].wall_time == pytest.approx(1.0)
    values = hparams(events, "session_start_info").session_start_info.hparams
    assert values["train.lr"].number_value == 0.01
    assert values["model.backbone"].string_value == "tiny"
    assert values["seed"].number_value == 5
    experiment = hparams(events, "experiment").experiment
    assert experiment.hparam_infos[0].name == "train.lr", "what the spec samples comes first"
    assert "val_loss" in {info.name.tag for info in experiment.metric_infos}
    assert hparams(events, "session_end_info").session_end_info.status == 1  # STATUS_SUCCESS


def test_readable_while_the_trial_runs(run: Run) -> None:
    with EventFiles(run) as files:
        feed(run, files, report(1, 1.5))
        assert [point.step for point in read(run).Scalars("val_loss")] == [1]
        feed(run, files, report(2, 1.4))
        assert [point.step for point in read(run).Scalars("val_loss")] == [1, 2]


def test_a_resumed_sweep_has_every_step_once(run: Run) -> None:
    killed = EventFiles(run)
    feed(run, killed, report(1, 1.5), report(2, 1.4))
    run.record_report(report(3, 1.3), "continue")  # on disk, but the driver died before the event file had it
    run.close()
    again = Run.open(run.path)
    with EventFiles(again) as files:
        feed(again, files, report(4, 1.2, attempt=2))
        again.record_end(0, "failed", "it raised")
        files.close(0)
    killed.close_all()
    events = read(run)
    assert [(point.step, round(point.value, 6)) for point in events.Scalars("val_loss")] == [
        (1, 1.5),
        (2, 1.4),
        (3, 1.3),
        (4, 1.2),
    ]
    assert hparams(events, "session_end_info").session_end_info.status == 2  # STATUS_FAILURE


def test_a_trial_that_never_reported_still_shows_its_configuration(run: Run) -> None:
    run.record_end(0, "failed", "no weights")
    with EventFiles(run) as files:
        files.close(0)
    assert hparams(read(run), "session_start_info").session_start_info.hparams["train.lr"].number_value == 0.01
