"""How the commands that read runs find and open them."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_folder
from fashion.cli.options import HomePath

if TYPE_CHECKING:
    from fashion.api.locate import Location
    from fashion.api.recorded_run import RecordedRun

storage_option = click.option(
    "--storage",
    type=HomePath(),
    default="runs",
    show_default=True,
    metavar="DIR",
    help="Look for runs in this folder, or at this s3:// or gs:// address (`storage` in their specs).",
    shell_complete=complete_folder,
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


def open_named(storage: str, name: str | None, every_report: bool = False) -> RecordedRun:
    """The run of that name, or without one the run with the latest activity."""
    from fashion.api.locate import find_location

    return read_location(find_location(storage, name), every_report)


def read_location(location: Location, every_report: bool = False) -> RecordedRun:
    """The run at that location, with progress on stderr while it is read."""
    from fashion.api.recorded_run import read_run
    from fashion.display.progress import Bars

    # A command keeps what it reads until it ends, so the garbage collector need never look at it.
    gc.disable()
    try:
        with Bars() as bars:
            run = read_run(location, every_report, bars)
    finally:
        gc.freeze()
        gc.enable()
    for note in run.notes:
        click.echo(note, err=True)
    return run
