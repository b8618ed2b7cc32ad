"""`fashion-sweep ls`, `show` and `best`: what the record says. None of them loads Ray or torch."""

from __future__ import annotations

import gc
import json
import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from fashion.bucket.address import Address
    from fashion.record.run import Run

storage_option = click.option(
    "--storage",
    default="runs",
    show_default=True,
    metavar="DIR",
    help="Folder of the runs, or s3://, gs:// (`storage` in their specs).",
)
SHOWN = 50  # trials that `show` prints unless asked for all

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


@click.command()
@storage_option
@json_option
def ls(storage: str, as_json: bool) -> None:
    """List the runs, the latest first.

    \b
    Example: fashion-sweep ls
    """
    from rich.table import Table

    from fashion.bucket.address import is_address
    from fashion.display import rows as words
    from fashion.display.pages import final, overview, page
    from fashion.errors import RunError
    from fashion.record.find import run_paths
    from fashion.storage.working_copy import NoRunError, addresses

    places: list[Path] | list[Address] = addresses(storage) if is_address(storage) else run_paths(storage)
    found: list[dict[str, Any]] = []
    for place in places:
        try:
            found.append(overview(_read(place)))
        except NoRunError:
            pass  # something else that is kept beside the runs
        except RunError as error:  # one damaged run must not hide the others
            found.append({"run": place.name, "path": str(place), "state": "damaged", "problem": str(error)})
    if is_address(storage):
        found.sort(key=lambda entry: entry.get("active", 0.0), reverse=True)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    if not found:
        click.echo(f"No runs in {storage}. Start one: fashion-sweep run sweeps/quickstart.yaml")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for head in ("trials", "val_loss", "val_acc", "active"):
        table.add_column(head, justify="right", no_wrap=True)
    for entry in found:
        if entry["state"] == "damaged":
            table.add_row(entry["run"], "[red]damaged[/]")
            click.echo(f"Warning: {entry['problem']}", err=True)
            continue
        best = entry["best"] or {}
        accuracy = best.get("val_accuracy")
        table.add_row(
            entry["run"],
            entry["state"],
            f"{final(entry['counts'])}/{entry['trials']}",
            words.number(best.get("val_loss", math.nan)),
            words.percent(math.nan if accuracy is None else accuracy),
            words.ago(entry["active"]),
        )
    page().print(table)


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@storage_option
@click.option("--trial", type=int, metavar="N", help="One trial: its configuration and every epoch.")
@click.option("--all", "everything", is_flag=True, help=f"Every trial, not the {SHOWN} best.")
@json_option
def show(run: str | None, storage: str, trial: int | None, everything: bool, as_json: bool) -> None:
    """Show a run: its trials from the best down, the rungs, the failures.

    RUN is a name, a folder or an address; without it the latest run. Works while the sweep runs, from another terminal.

    \b
    Example: fashion-sweep show
    Example: fashion-sweep show backbones --trial 7
    """
    from fashion.display.pages import page, print_run, print_trial, run_json, trial_json
    from fashion.errors import Problem, RunError

    record = _read(_find(storage, run), every_report=trial is not None)
    if trial is not None and trial not in record.trials:
        there = f"Recorded: {min(record.trials)} to {max(record.trials)}" if record.trials else "None is recorded yet"
        raise RunError(Problem(record.location, "holds no such trial", str(trial), there))
    if as_json:
        found = run_json(record) if trial is None else trial_json(record, trial, reports=True)
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    elif trial is None:
        print_run(record, page(), None if everything else SHOWN)
    else:
        print_trial(record, trial, page())


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@storage_option
@click.option("--predict", is_flag=True, help="Then predict the test split with it and write the submission.")
@click.option("--split", metavar="NAME", help="Predict this split instead of test.")
@click.option("--images", metavar="DIR", help="Predict every image below DIR instead of a split.")
@click.option("--address", metavar="ADDRESS", help="Predict on the Ray cluster there. Default: on this machine.")
@json_option
def best(
    run: str | None,
    storage: str,
    predict: bool,
    split: str | None,
    images: str | None,
    address: str | None,
    as_json: bool,
) -> None:
    """Promote the checkpoint with the lowest val_loss over all epochs of all trials to RUN/best.

    Prints its configuration, its metrics per attribute and its distance to the runner-up. RUN is a name, a folder or
    an address; without it the latest run. --predict writes prediction.txt, prediction.txt.zip and the class probabilities to
    RUN/predictions.

    \b
    Example: fashion-sweep best
    Example: fashion-sweep best backbones --json
    Example: fashion-sweep best --predict
    Example: fashion-sweep best --predict --images photos
    """
    from fashion.bucket.address import Address
    from fashion.display.pages import page, print_winner, winner_json
    from fashion.record import promote, ranking

    if (split or images or address) and not predict:
        raise click.UsageError("--split, --images and --address go with --predict.")
    if split and images:
        raise click.UsageError("--split and --images exclude each other.")
    place = _find(storage, run)
    record = _read(place)
    winner = ranking.best(record)
    if isinstance(place, Address):
        from fashion.bucket.store import Store
        from fashion.storage.trial_objects import fetch_best
        from fashion.storage.working_copy import push_folder

        fetch_best(Store(place), record.path, winner.trial, winner.epoch)
        push_folder(place, promote.promote(record, winner), last="model.json")
    else:
        promote.promote(record, winner)
    folder = f"{record.location}/best"
    found = winner_json(record, winner, folder)
    if not as_json:
        print_winner(record, winner, folder, page())
    if predict:
        from fashion.cli.predict import predict_winner

        found["predictions"] = predict_winner(record, winner, split, images, address, quiet=as_json)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))


def _find(storage: str, name: str | None) -> Path | Address:
    """Where the run of that name is; without one the run of the latest activity."""
    from fashion.bucket.address import is_address

    if is_address(storage) or (name is not None and is_address(name)):
        from fashion.storage.working_copy import find

        if (address := find(storage, name)) is not None:
            return address
    from fashion.record.find import find_path

    return find_path(storage, name)


def _read(place: Path | Address, every_report: bool = False) -> Run:
    """The run that is kept there; its excerpt where that is enough."""
    from pathlib import Path

    from fashion.display.progress import Bars
    from fashion.record.excerpt import glance
    from fashion.record.run import Run

    def read(path: Path) -> Run:
        # Much comes in and nothing goes: the collector would look at all of it again and again.
        gc.disable()
        try:
            return Run.open(path, progress=told) if every_report else glance(path, told)
        finally:
            gc.freeze()
            gc.enable()

    with Bars() as bars:
        told = bars.of(f"reading {place.name}, MB")
        if isinstance(place, Path):
            return read(place)
        from fashion.storage.working_copy import brought

        copy = brought(place, bars.of(f"fetching {place.name}, MB"))
        for note in copy.notes:
            click.echo(note, err=True)
        return copy.of(read(copy.path))
