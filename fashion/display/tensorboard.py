"""TensorBoard event files of every trial, written by the driver from the reports: `tensorboard --logdir runs/NAME`.

Each trial has one event file in `tb/0007 lr=0.01 adamw/`: a scalar for each metric by epoch; the sampled fields as
hyper-parameters; and under `best/` the metrics of the best epoch so far, whose last values the table of
hyper-parameters shows. The record stays the truth: when a sweep goes on, a trial's file is written anew from its
recorded reports, so that no epoch stands there twice and none is missing.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from fashion.display import rows as words
from fashion.record.run import Run
from fashion.record.trial import EpochReport, Trial
from fashion.record.trial_files import EVENTS, event_folders

# tensorboardX imports torch, which takes seconds, to name its tensors in annotations, and goes without where it can't.
_TORCH = sys.modules.get("torch")
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # the import system's mark of what can't be imported
try:
    # The synchronous writer: tensorboardX's SummaryWriter takes a process queue and a thread for every trial.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.api_pb2 import Status as SessionStatus
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams
finally:
    if _TORCH is None:
        del sys.modules["torch"]

_SHOWN = (
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_exact_match",
)  # columns of the hyper-parameter table
BEST = "best/"  # what the tags of the best epoch's metrics begin with
LONGEST = 100  # characters of a folder's name; file systems allow 255 bytes, some 143
# Every file system and every shell's quotes take these; Windows' take neither ":" nor "*", and no dot at the end.
UNSAFE = re.compile(r"[^A-Za-z0-9=+,@_~. -]")
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
        best = trial.best()
        self._write(self._writers[report.trial], report, best is not None and best.epoch == report.epoch)

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
        for folder in event_folders(self.run.path, trial.number):
            shutil.rmtree(folder, ignore_errors=True)
        fields = words.by_importance(words.varying(self.run.manifest), ())
        folder = self.run.path / EVENTS / folder_of(trial, fields)
        folder.mkdir(parents=True)
        writer = self._writers[trial.number] = EventsWriter(str(folder / "events"))
        metrics = {f"{BEST}{name}": 0.0 for name in _SHOWN}
        experiment, start, _ = hparams(hyper_parameters(trial.config, fields), metrics)
        began = _time(trial.reports[0]) - trial.reports[0].seconds if trial.reports else 0.0
        for summary in (experiment, start):
            writer.write_event(Event(summary=summary, wall_time=began))
        lowest = math.inf
        for report in trial.reports:
            loss = report.metrics.get("val_loss", math.nan)
            self._write(writer, report, loss < lowest)
            lowest = min(lowest, loss) if math.isfinite(loss) else lowest

    def _write(self, writer: EventsWriter, report: EpochReport, best: bool) -> None:
        shown = {**report.metrics, "seconds": report.seconds}
        if best:
            shown |= {f"{BEST}{name}": report.metrics[name] for name in _SHOWN if name in report.metrics}
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


def hyper_parameters(config: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The sampled fields of a recorded configuration, null ones left out; the seed where nothing is sampled."""
    values = {name: words.field_value(config, name) for name in fields or ["seed"]}
    plain = {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in values.items()
    }
    return {name: value for name, value in plain.items() if values[name] is not None}


def folder_of(trial: Trial, fields: Sequence[str]) -> str:
    """The folder of a trial's events: its number and what was sampled for it, "0007 lr=0.01 adamw"."""
    names = words.short_names(fields)
    name = f"{trial.number:04d}"
    for field in fields:
        value = words.field_value(trial.config, field)
        if value is None:
            continue
        text = words.short(value)
        part = UNSAFE.sub("_", text if isinstance(value, str) else f"{names[field]}={text}")
        if len(name) + 1 + len(part) <= LONGEST:
            name = f"{name} {part}"
    return name.rstrip(" .")


def _time(report: EpochReport) -> float:
    return datetime.fromisoformat(report.time).timestamp() if report.time else 0.0


def _last_time(trial: Trial) -> float:
    return _time(trial.reports[-1]) if trial.reports else 0.0
