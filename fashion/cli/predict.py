"""The predict half of `fashion-sweep best --predict`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fashion.bucket.address import is_address, parse_address
from fashion.errors import DataError, Problem, RunError
from fashion.files import require_own
from fashion.record.ranking import Ranked
from fashion.record.run import Run

if TYPE_CHECKING:
    from fashion.data.remote.local_copy import Where


def predict_winner(
    record: Run, winner: Ranked, split: str | None, images: str | None, address: str | None, quiet: bool
) -> dict[str, Any]:
    """Predict with the promoted model, print what came of it, and return it for --json."""
    from fashion.display.progress import Bars
    from fashion.engine.predict_job import predict_on_cluster
    from fashion.prediction.write import Source

    if images is not None:
        place = Path(os.path.expanduser(images)).absolute()  # pathlib's raises for a user that there is not
        if not os.path.isdir(place):
            raise DataError("There is nothing to predict:", [Problem("--images", "must be a folder", images)])
        source, name = Source(folder=place), f"images-{place.name}"
    else:
        source, name = Source(root=data_root(record, winner), split=split or "test"), split or "test"
    target = record.predictions_dir / name
    require_own(record.predictions_dir, deep=True)
    with Bars() as bars:
        written = predict_on_cluster(
            parse_address(record.location) if is_address(record.location) else record.best_dir.absolute(),
            source,
            target.absolute(),
            note=lambda text: None if quiet else click.echo(text, err=True),
            progress=lambda done, total: bars(f"predicting {name}", done, total),
            address=address,
        )
    shown = [f"{record.location}/predictions/{name}/{path.name}" for path in written.files]
    for warning in written.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if not quiet:
        click.echo()
        if written.accuracy is not None:
            click.echo(f"accuracy on {name}: {written.accuracy:.2%}")
        click.echo(f"predicted {written.images} images, read back and validated:")
        for path in shown:
            click.echo(f"  {path}")
    return {
        "source": name,
        "images": written.images,
        "accuracy": written.accuracy,
        "files": shown,
        "warnings": list(written.warnings),
    }


def data_root(record: Run, winner: Ranked) -> Where:
    """The data set as the spec names it, from where the command is typed; else where the sweep found it."""
    from fashion.data.remote.local_copy import place_of

    written, recorded = winner.config.get("data", {}).get("root"), record.manifest.get("data_root")
    if not isinstance(written, str):
        raise RunError(Problem(str(record.journal_path), f"trial {winner.trial} has no data.root", repr(written)))
    named = place_of(written)
    there = not isinstance(named, Path) or os.path.isdir(named)
    return named if there or recorded is None else place_of(recorded)
