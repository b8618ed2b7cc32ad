"""TensorBoard event files of every trial, written by the driver from the reports: `tensorboard --logdir runs/NAME`.

Each trial has one event file in `trials/NNNN/tb/`: a scalar for each metric by epoch, and the trial's configuration
as hyper-parameters. The record stays the truth: when a sweep goes on, a trial's file is written anew from its
recorded reports, so that no epoch stands there twice and none is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

# The synchronous writer: tensorboardX's SummaryWriter takes a process queue and a thread for every trial.
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.api_pb2 import Status as SessionStatus
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

from fashion.record.run import Run
from fashion.record.trial import EpochReport, Trial

_SHOWN = (
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_exact_match",
)  # columns of the hyper-parameter table
_OUTCOMES = {"completed": "STATUS_SUCCESS", "stopped": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}


class EventFiles:
    """The event files of one run. Call `add` with each report, and `close` with each trial, after it is recorded."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._writers: dict[int, EventsWriter] = {}

    def add(self, report: EpochReport) -> None:
        """Write one recorded epoch; the first of a trial in this process also writes what was recorded before it."""
        trial = self.run.trials[report.trial]
        if report.trial not in self._writers:
            self._open(trial)  # `report` itself is recorded already, hence written
            return
        self._write(self._writers[report.trial], report)

    def close(self, number: int) -> None:
        """Write how a recorded trial ended and close its file."""
        trial = self.run.trials[number]
        if number not in self._writers:
            self._open(trial)
        writer = self._writers.pop(number)
        outcome = HParamsPluginData(version=0)
        outcome.session_end_info.status = SessionStatus.Value(_OUTCOMES.get(trial.status, "STATUS_UNKNOWN"))
        value = Summary.Value(tag="_hparams_/session_end_info")
        value.metadata.plugin_data.plugin_name = "hparams"
        value.metadata.plugin_data.content = outcome.SerializeToString()
        writer.write_event(Event(summary=Summary(value=[value]), wall_time=_last_time(trial)))
        writer.close()

    def close_all(self) -> None:
        """Close every file, including those of trials that have not ended; what is written stays.

        What a full disk cuts off is written again from the record when the sweep goes on."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()
        self._writers.clear()

    def _open(self, trial: Trial) -> None:
        folder = self.run.trial_dir(trial.number) / "tb"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        writer = self._writers[trial.number] = EventsWriter(str(folder / "events"))
        values = dict(hyper_parameters(trial.config, varying_first=self.run.manifest["spec"]))
        experiment, start, _ = hparams(values, dict.fromkeys(_SHOWN, 0.0))
        began = _time(trial.reports[0]) - trial.reports[0].seconds if trial.reports else 0.0
        for summary in (experiment, start):
            writer.write_event(Event(summary=summary, wall_time=began))
        for report in trial.reports:
            self._write(writer, report)

    def _write(self, writer: EventsWriter, report: EpochReport) -> None:
        shown = {**report.metrics, "seconds": report.seconds}
        # One event holds all values: an event for each would add a third to what a report costs the driver.
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in shown.items()])
        writer.write_event(Event(summary=summary, step=report.epoch, wall_time=_time(report)))
        writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_all()


def hyper_parameters(config: Mapping[str, Any], varying_first: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A recorded configuration as (dotted name, value), what the spec samples first; null fields left out."""
    flat = {"seed": config.get("seed")}
    for section in ("data", "model", "train"):
        flat.update({f"{section}.{name}": value for name, value in config.get(section, {}).items()})

    def fixed(name: str) -> bool:
        section, _, field = name.partition(".")
        return name == "seed" or not isinstance(varying_first.get(section, {}).get(field), Mapping)

    for name in sorted(flat, key=fixed):
        if flat[name] is not None:
            yield name, flat[name]


def _time(report: EpochReport) -> float:
    return datetime.fromisoformat(report.time).timestamp() if report.time else 0.0


def _last_time(trial: Trial) -> float:
    return _time(trial.reports[-1]) if trial.reports else 0.0
