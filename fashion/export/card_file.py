"""The promoted model's card, as a file wherever it is wanted; `best/` has it from the promotion on."""

from __future__ import annotations

from pathlib import Path

from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, RunError
from fashion.export.targets import Exported, Progress
from fashion.files import parse, write_atomic
from fashion.record.cards.model_card import model_card


def write_card(run: RecordedRun, path: Path, progress: Progress) -> Exported:
    """Write the card of the model in the run's `best/`; without one the winner is promoted first.

    Raises RunError where there is nothing to promote, or where `best/model.json` can't be understood.
    """
    if run.promoted is None:
        run.promote()
    place = run.record.best_dir / "model.json"
    try:
        text = model_card(run.record.manifest, parse(place.read_bytes()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fix = "Promote again: fashion-sweep best"
        raise RunError(Problem(str(place), "must describe a promoted model", repr(error), fix)) from error
    write_atomic(path, text.encode(errors="backslashreplace"))
    trial, epoch = run.promoted or (0, 0)
    return Exported((path,), f"the card of trial {trial}, epoch {epoch}")
