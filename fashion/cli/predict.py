"""What `fashion-sweep best --predict` does after the promotion: predict, and print the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fashion.bucket.address import is_address, parse_address
from fashion.cluster.interrupts import deferred
from fashion.errors import Problem, RunError
from fashion.files import require_own
from fashion.record.ranking import Ranked
from fashion.record.run import Run

if TYPE_CHECKING:
    from fashion.data.remote.local_copy import DataRoot


def predict_winner(
    record: Run,
    winner: Ranked,
    split: str | None,
    images: str | None,
    address: str | None,
    quiet: bool,
    follow_links: bool = False,
    on_error: Literal["refuse", "skip"] | None = None,
    model: str = "best",
) -> dict[str, Any]:
    """Predict with what is promoted in the run's folder `model`, print the result, and return it for --json. winner:
    the trial of which it is; of an ensemble any one, whose spec names the data set. What an ensemble predicts is kept
    apart from what the winner does.

    Raises DataError, CheckpointError, RunError, StorageError or SubmissionError where nothing can be predicted.
    """
    from fashion.display.progress import Bars

    with deferred():  # an interrupt within their imports can become any other exception
        from fashion.prediction.location import answer_name, picture_place
        from fashion.prediction.write import BEST, PredictionInput, predict_here

    if images is not None:
        place = picture_place(images)
        name = answer_name(place, record.predictions_dir, record.location, "" if model == BEST else f"{model}-")
        source = PredictionInput(folder=place, follow_links=follow_links, on_error=on_error)
    else:
        wanted = split or "test"
        name = wanted if model == BEST else f"{model}-{wanted}"
        source = PredictionInput(data_root(record, winner), wanted, follow_links=follow_links, on_error=on_error)
    target = record.predictions_dir / name
    require_own(record.predictions_dir, deep=True)
    promoted = parse_address(record.location) if is_address(record.location) else (record.path / model).absolute()
    # In a submitted job Ray's variable names the cluster that the job runs on.
    address = address or os.environ.get("RAY_ADDRESS")
    with Bars() as bars:

        def progress(done: int, total: int) -> None:
            bars(f"predicting {name}", done, total)

        if address:
            with deferred():
                from fashion.engine.predict_job import predict_on_cluster

            def note(text: str) -> None:
                if not quiet:
                    click.echo(text, err=True)

            written = predict_on_cluster(promoted, source, target.absolute(), note, progress, address, model)
        else:
            written = predict_here(promoted, source, target.absolute(), progress, model)
    shown = [f"{record.location}/predictions/{name}/{path.name}" for path in written.files]
    for warning in written.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if not quiet:
        click.echo()
        if written.accuracy is not None:
            click.echo(f"accuracy on {name}: {written.accuracy:.2%}")
            if len(written.accuracies) > 1:
                click.echo("  " + ", ".join(f"{each} {share:.2%}" for each, share in written.accuracies.items()))
        without = f" ({written.without:,} of them can't be decoded)" if written.without else ""
        images = f"{written.images:,} image{'' if written.images == 1 else 's'}"
        click.echo(f"predicted {images}{without}, read back and validated:")
        for path in shown:
            click.echo(f"  {path}")
    return {
        "source": name,
        "images": written.images,
        "without_prediction": written.without,
        "accuracy": written.accuracy,
        "accuracies": dict(written.accuracies),
        "files": shown,
        "warnings": list(written.warnings),
    }


def data_root(record: Run, winner: Ranked) -> DataRoot:
    """The data set that the spec names, relative to the current folder; where it is not there, the one that the sweep
    found.

    Raises RunError when the record names none, DataError for a malformed address.
    """
    from fashion.data.remote.local_copy import parse_root

    written, recorded = winner.config.get("data", {}).get("root"), record.manifest.get("data_root")
    if not isinstance(written, str):
        raise RunError(Problem(str(record.journal_path), f"trial {winner.trial} has no data.root", repr(written)))
    named = parse_root(written)
    there = not isinstance(named, Path) or os.path.exists(named)
    return named if there or recorded is None else parse_root(recorded)
