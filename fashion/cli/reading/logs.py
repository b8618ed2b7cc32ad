"""`fashion-sweep logs`: what became of a run's trials, and what the failed ones said. Loads neither Ray nor torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_run
from fashion.cli.reading.location import json_option, open_named, storage_option

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun
    from fashion.reading.trial_log import LogLine
    from fashion.record.run import Run

PAUSE = 0.5  # seconds between two looks at a growing journal


@click.command()
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@click.argument("trial", required=False, type=int, metavar="[TRIAL]")
@storage_option
@click.option("--follow", is_flag=True, help="Go on with what is recorded from now on, until the sweep ends or Ctrl-C.")
@json_option
def logs(run: str | None, trial: int | None, storage: str, follow: bool, as_json: bool) -> None:
    """Print what happened to a run's trials, in order, and the traceback of each that failed.

    With TRIAL it is that trial alone, with every epoch. --json prints one object a line; a traceback is one with the
    event "error".

    \b
    Example: fashion-sweep logs backbones
    Example: fashion-sweep logs backbones 7 --follow
    """
    opened = open_named(storage, run)
    if trial is not None:
        opened.trial(trial)  # refuses one that is not recorded
    if follow and opened.address is not None:
        raise click.UsageError("--follow reads a run in a folder; `watch` follows a sweep whose run is in a bucket.")
    told: set[int] = set()
    for line in _lines(opened.record, trial, follow):
        _print(line, as_json, one=trial is not None)
        if line.failed and line.trial not in told:
            told.add(line.trial)
            _print_error(opened, line.trial, as_json)
    if trial is not None and trial not in told and opened.trial(trial).status == "failed":
        _print_error(opened, trial, as_json)  # the driver was killed before it could record the end


def _lines(run: Run, trial: int | None, follow: bool) -> Iterator[LogLine]:
    from fashion.reading.trial_log import log_lines

    end = 0
    while True:
        driven = run.driven  # looked at before the journal: what a driver wrote last is then read
        for line, behind in log_lines(run, trial, end):
            end = behind
            yield line
        if not follow or not driven or (trial is not None and _ended(run, trial)):
            return
        time.sleep(PAUSE)


def _ended(run: Run, trial: int) -> bool:
    run.refresh()
    return run.trials[trial].ended is not None


def _print(line: LogLine, as_json: bool, one: bool) -> None:
    from fashion.errors import printable
    from fashion.reading.trial_log import local_time, to_json

    if as_json:
        click.echo(to_json(line))
        return
    whose = "" if one else f"trial {line.trial}: "
    click.echo(printable(f"{local_time(line.time)}  {whose}{line.text}"))


def _print_error(opened: RecordedRun, number: int, as_json: bool) -> None:
    """The traceback that the trial left, where it left one."""
    from fashion.errors import printable
    from fashion.reading.trial_log import LogLine, kept_error, to_json

    kept = kept_error(opened.record, number, opened.address)
    if kept.text is None:
        return
    if as_json:
        click.echo(to_json(LogLine(number, "", "error", kept.text)))
        return
    click.echo(printable(f"    {kept.path}:"))
    for text in printable(kept.text).splitlines():
        click.echo(f"    {text}")
