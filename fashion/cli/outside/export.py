"""`fashion-sweep export`: a run, or its model, in the form of another tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_file, complete_folder, complete_run, complete_target
from fashion.cli.options import HomePath, LocalPath

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun


@click.command(name="export")
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@click.option(
    "--to", "target", required=True, metavar="FORM", shell_complete=complete_target,
    help="The form: csv, parquet, optuna, mlflow or wandb for the sweep, onnx, torch or card for its model.",
)  # fmt: skip
@click.option(
    "--out", type=LocalPath(), metavar="PATH", shell_complete=complete_file,
    help="Write to this file, or this folder for csv, parquet and wandb.  [default: in RUN/exports]",
)  # fmt: skip
@click.option(
    "--storage", type=HomePath(), default="runs", show_default=True, metavar="DIR", shell_complete=complete_folder,
    help="Look for runs in this folder, or at this s3:// or gs:// address.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")
def export_run(run: str | None, target: str, out: str | None, storage: str, as_json: bool) -> None:
    """Write a run in the form of another tool, complete and as one sweep, or its promoted model as one file.

    RUN is a name, a folder or an address; without it the latest run. An export may be typed again: what is there
    stays, and what was recorded since is added. onnx, torch and card are of the model in RUN/best; without one the
    winner is promoted first. onnx, mlflow and wandb need packages of their own, which the message names.

    \b
    Example: fashion-sweep export --to csv
    Example: fashion-sweep export backbones --to optuna --out studies.db
    Example: fashion-sweep export backbones --to onnx --out model.onnx
    """
    from fashion.cli.options import nearest_word
    from fashion.display.progress import Bars
    from fashion.export.targets import TARGETS, export

    if target not in TARGETS:
        raise click.BadParameter(nearest_word(target, list(TARGETS)), param_hint="--to")
    opened = opened_run(run, storage)
    with Bars() as bars:
        done = export(opened, target, out, bars)
    for path in done.paths:
        if not as_json:
            click.echo(f"{path}")
    if as_json:
        said = {"to": target, "paths": [str(path) for path in done.paths], "summary": done.summary}
        click.echo(json.dumps({**said, "open_with": done.opened_with}, indent=2))
        return
    click.echo(done.summary)
    if done.opened_with:
        click.echo(f"open it: {done.opened_with}")


def opened_run(run: str | None, storage: str) -> RecordedRun:
    """The run with every report, with progress on stderr while it is read."""
    from fashion.api.locate import find_location
    from fashion.api.recorded_run import read_run
    from fashion.display.progress import Bars

    with Bars() as bars:
        opened = read_run(find_location(storage, run), every_report=True, progress=bars)
    for note in opened.notes:
        click.echo(note, err=True)
    return opened
