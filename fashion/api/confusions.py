"""The winner's confusion matrices for TensorBoard, written when a sweep has ended."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fashion.api.recorded_run import RecordedRun
from fashion.errors import UserError
from fashion.record.trial_files import EVENTS


def show_confusions(run: RecordedRun) -> Path | str:
    """Write the confusion matrices of the winner's validation predictions among the run's event files.

    Returns their folder; or, in words, why there are none: a sweep that has ended must not fail over a picture.
    """
    from fashion.display.confusion import write_confusions
    from fashion.reading.confusion import confusion

    try:
        winner = run.best()
        found = run.predictions(winner.trial)
    except UserError as error:
        return str(error)
    if found.labels_missing:
        return found.labels_missing
    confusions = [confusion(each) for each in found.attributes if each.labels is not None and each.labels.ndim == 1]
    report = next(each for each in run.trial(winner.trial).reports if each.epoch == winner.epoch)
    time = datetime.fromisoformat(report.time).timestamp() if report.time else 0.0
    title = f"{run.name}, trial {winner.trial}, epoch {winner.epoch}"
    try:
        return write_confusions(run.record.path / EVENTS, title, winner.epoch, time, confusions)
    except OSError as error:
        return str(error)
