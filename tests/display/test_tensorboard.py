"""The event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import plugin_data_pb2

from fashion.display.tensorboard import EventFiles, folder_of
from fashion.record.run import Run
from fashion.record.trial import EpochReport, Trial
from fashion.record.trial_files import event_files, events_by_trial

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
    (folder,) = (run.path / "tb").iterdir()
    events = EventAccumulator(str(folder))
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
    shown = {"best/val_loss", "best/val_accuracy"}
    assert set(events.Tags()["scalars"]) == {"val_loss", "val_accuracy", "val_accuracy/sleeve", "seconds", *shown}
    losses = events.Scalars("val_loss")
    assert [point.step for point in losses] == [1, 2, 3, 4]
    assert [losses[i].value for i in (0, 2, 3)] == [1.5, 1.25, 1.0]
    assert math.isnan(losses[1].value)
    assert losses[1].wall_time - losses[0].wall_time == pytest.approx(1.0)
    values = hparams(events, "session_start_info").session_start_info.hparams
    assert {name: value.number_value for name, value in values.items()} == {"train.lr": 0.01}, "what is sampled, alone"
    experiment = hparams(events, "experiment").experiment
    assert [info.name for info in experiment.hparam_infos] == ["train.lr"]
    assert "best/val_loss" in {info.name.tag for info in experiment.metric_infos}
    assert hparams(events, "session_end_info").session_end_info.status == 1  # STATUS_SUCCESS


def test_the_table_shows_the_best_epoch_not_the_last(run: Run) -> None:
    with EventFiles(run) as files:
        feed(run, files, report(1, 1.5), report(2, math.nan), report(3, 1.25), report(4, 1.4))
    assert [(each.step, each.value) for each in read(run).Scalars("best/val_loss")] == [(1, 1.5), (3, 1.25)]
    assert read(run).Scalars("best/val_accuracy")[-1].step == 3
    run.close()
    again = Run.open(run.path)
    again.record_end(0, "completed")
    with EventFiles(again) as files:
        files.close(0)  # written anew from the record
    assert [each.step for each in read(again).Scalars("best/val_loss")] == [1, 3]


@pytest.mark.parametrize(
    ("config", "fields", "name"),
    [
        ({"train": {"lr": 0.01, "optimizer": "adamw"}}, ["train.lr", "train.optimizer"], "0007 lr=0.01 adamw"),
        ({"train": {"lr": None}, "model": {"weights": "w/../a:b*?"}}, ["train.lr", "model.weights"], "0007 w_.._a_b__"),
        ({"model": {"weights": "für.pth."}}, ["model.weights"], "0007 f_r.pth"),
        (
            {"train": {f"x{n}": "y" * 18 for n in range(9)}},
            [f"train.x{n}" for n in range(9)],
            "0007" + f" {'y' * 18}" * 5,
        ),
        ({}, [], "0007"),
    ],
)
def test_folders_are_named_after_what_was_sampled_on_every_file_system(
    config: dict[str, Any], fields: list[str], name: str
) -> None:
    assert folder_of(Trial(7, config), fields) == name


def test_a_folder_of_an_earlier_version_gives_way(run: Run) -> None:
    for old in (run.trial_dir(0) / "tb", run.path / "tb" / "0000 lr=0.5"):
        old.mkdir(parents=True)
        (old / "events").write_bytes(b"")
    assert len(event_files(run.path, 0)) == len(events_by_trial(run.path)[0]) == 2
    with EventFiles(run) as files:
        feed(run, files, report(1, 1.5))
    assert [path.parent.name for path in event_files(run.path, 0)] == ["0000 lr=0.01"]
    assert events_by_trial(run.path) == {0: event_files(run.path, 0)}


def test_tensorboard_lists_the_runs_by_these_names(run: Run) -> None:
    with EventFiles(run) as files:
        feed(run, files, report(1, 1.5))
    found = EventMultiplexer().AddRunsFromDirectory(str(run.path))
    assert list(found.Runs()) == ["tb/0000 lr=0.01"]


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
