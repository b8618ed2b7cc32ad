"""From a spec to a finished sweep: `load_spec` and `run`."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion.api.confusions import show_confusions
from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, SpecError
from fashion.spec import sweep_spec
from fashion.spec.sweep_spec import SweepSpec

if TYPE_CHECKING:
    from fashion.display.live import Mode
    from fashion.record.run import Run
    from fashion.sweep.outcome import SweepOutcome


class SweptRun(RecordedRun):
    """A run that `fashion.run` has just carried out. outcome: what the sweep came to. refit: its winner trained again
    on training and validation images, where that was asked for and the sweep was completed."""

    def __init__(self, record: Run, outcome: SweepOutcome) -> None:
        super().__init__(record)
        self.outcome = outcome
        self.refit: SweptRun | None = None


def load_spec(path: str | Path, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read a sweep spec. `overrides` maps a field's dotted name to its value: {"train.epochs": 3}.

    A value is a Python value: a number, a string (which stays one, whatever it looks like), True, False, None, a path,
    or a distribution or condition as a dictionary, {"loguniform": [0.001, 0.1]}.

    Raises SpecError with every problem of the file and the overrides, in the words of `run --set`.
    """
    problems: list[Problem] = []
    settings = []
    for name, value in (overrides or {}).items():
        try:
            # JSON is YAML in which a string is quoted, whatever it looks like.
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
        except (TypeError, ValueError, RecursionError):
            rule = "must be a finite number, a string, True, False, None, or a list or dictionary of them"
            problems.append(Problem(f"--set {name}", rule, repr(value)[:60]))
        else:
            settings.append(f"{name}={text}")
    if problems:
        raise SpecError(f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", problems)
    return sweep_spec.load_spec(path, settings)


def run(
    spec: SweepSpec, *, address: str | None = None, fresh: bool = False, mode: Mode = "auto", refit: bool = False
) -> SweptRun:
    """Run a sweep, or go on with it where it stopped, as `fashion-sweep run` does; returns its run when it has ended.

    address: of the Ray cluster to join; by default Ray is started on this machine. fresh: train also what a sweep
    beside this one has trained already. mode: how the progress is shown on standard output; auto is a live picture on a
    terminal and one line per event elsewhere, which includes notebooks. refit: afterwards train the winner again on
    training and validation images together, and promote that to RUN/refit/best (`refit`).

    An interrupted or failed sweep raises nothing: the run's `outcome` tells. Raises UserError for whatever keeps the
    sweep from starting or going on."""
    from fashion.engine.start import run_spec

    swept = SweptRun(*run_spec(spec, address=address, fresh=fresh, mode=mode))
    if swept.outcome.kind == "completed":
        show_confusions(swept)
        if refit:
            swept.refit = refit_winner(swept, spec, address=address, mode=mode)
    return swept


def refit_winner(
    swept: RecordedRun,
    spec: SweepSpec,
    *,
    address: str | None = None,
    mode: Mode = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> SweptRun:
    """Train a run's winner again on training and validation images together, as many epochs as were best, and promote
    it to RUN/refit/best. Returns that run of one trial; one that has been trained already is returned as it is.

    spec: the sweep's, whose resources it has. No validation score of it exists, and so no measured gain: its card and
    `best RUN/refit` say what can be expected.

    Raises RunError where RUN/refit is another winner's, and what `run` raises.
    """
    from fashion.engine.start import run_spec
    from fashion.sweep.refit import note_origin, refit_spec

    winner = swept.best()
    wanted = refit_spec(swept.record, winner, spec)
    done = SweptRun(*run_spec(wanted, address=address, mode=mode, say=say))
    if done.outcome.kind == "completed":
        note_origin(done.record, swept.record, winner)
        done.promote()
    return done


def _plain(value: Any) -> Any:
    """A value that JSON lacks, such as NumPy's numbers and paths, as one that it has."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no value of a spec")
