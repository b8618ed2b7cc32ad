"""`fashion-sweep ls` and `best`: what the record says. Without --predict, neither loads Ray or torch."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import click

from fashion.cli.completion.words import complete_run, complete_split
from fashion.cli.reading.location import json_option, open_named, read_location, storage_option


@click.command()
@storage_option
@json_option
def ls(storage: str, as_json: bool) -> None:
    """List the runs, the latest first.

    \b
    Example: fashion-sweep ls
    """
    from rich.table import Table
    from rich.text import Text

    from fashion.api.locate import locations
    from fashion.bucket.address import is_address
    from fashion.display import rows as words
    from fashion.display.pages import final, overview, page
    from fashion.errors import RunError
    from fashion.storage.working_copy import NoRunError

    found: list[dict[str, Any]] = []
    for location in locations(storage):
        try:
            found.append(overview(read_location(location).record))
        except NoRunError:
            pass  # something else that is kept beside the runs
        except RunError as error:  # one damaged run must not hide the others
            found.append({"run": location.name, "path": str(location), "state": "damaged", "problem": str(error)})
    if is_address(storage):
        found.sort(key=lambda entry: entry.get("active", 0.0), reverse=True)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    if not found:
        from fashion.spec.shipped import first_command

        click.echo(f"No runs in {storage}. Start one: {first_command()}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for head in ("trials", "val_loss", "val_acc", "active"):
        table.add_column(head, justify="right", no_wrap=True)
    for entry in found:
        if entry["state"] == "damaged":
            table.add_row(entry["run"], Text("damaged", "red"))
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
    page().print(table, markup=False)


@click.command()
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@storage_option
@click.option("--trial", type=int, metavar="N", help="Promote trial N instead of the best one.")
@click.option(
    "--epoch", type=int, metavar="E", help="With --trial: promote its epoch E, whose weights must have been kept."
)
@click.option(
    "--ensemble", type=click.IntRange(1, 1_000), metavar="N",
    help="Promote N picks of trials that predict best together to RUN/ensemble instead, and say what that is worth.",
)  # fmt: skip
@click.option(
    "--with", "others", multiple=True, metavar="RUN", shell_complete=complete_run,
    help="With --ensemble: choose from this run's trials, too. May be given several times.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Print every field of the configuration, and class counts.")
@click.option("--predict", is_flag=True, help="Then predict the test split with it, and write predictions.csv.")
@click.option("--split", metavar="NAME", help="Predict this split instead of test.", shell_complete=complete_split)
@click.option("--images", metavar="PATH", help="Predict every picture below the folder PATH, or the picture PATH.")
@click.option("--follow-links", is_flag=True, help="With --images: read through symbolic links, too.")
@click.option(
    "--on-error",
    type=click.Choice(["refuse", "skip"]),
    help="What to do about an image that can't be decoded; skip gives it a row that says why.  [default: the spec's]",
)
@click.option("--address", metavar="ADDRESS", help="Predict on the Ray cluster there, not on this machine.")
@json_option
def best(
    run: str | None,
    storage: str,
    trial: int | None,
    epoch: int | None,
    ensemble: int | None,
    others: tuple[str, ...],
    everything: bool,
    predict: bool,
    split: str | None,
    images: str | None,
    follow_links: bool,
    on_error: Literal["refuse", "skip"] | None,
    address: str | None,
    as_json: bool,
) -> None:
    """Promote the checkpoint with the lowest val_loss over all epochs of all trials to RUN/best.

    Prints its metrics, overall and per attribute, the runner-up, how sure one can be of both, and what was sampled for
    it. RUN is a name, a folder or an address; without it the latest run is taken. --predict writes predictions.csv, the
    class probabilities and, for data in the challenge's layout, prediction.txt and prediction.txt.zip to
    RUN/predictions; what was promoted before is then told in one line. A prediction that was interrupted goes on where
    it stopped. --trial promotes another trial, until `best` is typed without it.

    --ensemble N averages trials that predict better together: N picks, greedily, of which several may be the same
    trial, with a score from images that had no say in the choice. RUN/best stays what it is.

    \b
    Example: fashion-sweep best
    Example: fashion-sweep best backbones --json
    Example: fashion-sweep best backbones --trial 7
    Example: fashion-sweep best --predict
    Example: fashion-sweep best --predict --images photos
    Example: fashion-sweep best backbones --ensemble 5 --with finetune --predict
    """
    from fashion.display.pages import page
    from fashion.display.progress import Bars
    from fashion.display.winner import print_winner, print_winner_again, winner_json

    if (split or images or address or follow_links or on_error) and not predict:
        raise click.UsageError("--split, --images, --follow-links, --on-error and --address go with --predict.")
    if split and images:
        raise click.UsageError("--split and --images exclude each other.")
    if epoch is not None and trial is None:
        raise click.UsageError("--epoch goes with --trial.")
    if others and ensemble is None:
        raise click.UsageError("--with goes with --ensemble.")
    if ensemble is not None and (trial is not None or everything):
        raise click.UsageError("--ensemble excludes --trial, --epoch and --all.")
    opened = open_named(storage, run)
    if ensemble is not None:
        from fashion.cli.reading.ensemble import best_ensemble

        asked = (split, images, address, follow_links, on_error) if predict else None
        best_ensemble(opened, [open_named(storage, each) for each in others], ensemble, asked, as_json)
        return
    winner = opened.best() if trial is None else opened.at(trial, epoch)
    before = opened.promoted
    folder: str | None = f"{opened.record.location}/best"
    refused: OSError | None = None
    try:
        opened.promote(winner)
    except OSError as error:  # the answer can be given all the same, where it can't be promoted
        if before != (winner.trial, winner.epoch):
            refused, folder = error, None
    record = opened.record
    with Bars() as bars:
        certainty = opened.certainty(bars)
    found = winner_json(record, winner, folder, certainty)
    if not as_json and predict and not everything and before == (winner.trial, winner.epoch):
        print_winner_again(record, winner, page())
    elif not as_json:
        print_winner(record, winner, folder, page(), certainty, everything)
    if refused is not None:
        if as_json:
            click.echo(json.dumps(found, indent=2, allow_nan=False))
        click.echo("It could not be promoted.", err=True)
        raise refused
    if predict:
        from fashion.cli.predict import predict_winner

        found["predictions"] = predict_winner(record, winner, split, images, address, as_json, follow_links, on_error)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
