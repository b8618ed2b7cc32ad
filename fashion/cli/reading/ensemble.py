"""What `fashion-sweep best --ensemble` does: choose, promote, say what it is worth, and predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun

# --split, --images, --address, --follow-links and --on-error.
Asked = tuple[str | None, str | None, str | None, bool, Literal["refuse", "skip"] | None]


def best_ensemble(
    opened: RecordedRun, others: Sequence[RecordedRun], picks: int, asked: Asked | None, as_json: bool
) -> None:
    """Promote the ensemble of up to so many picks, and print it. asked: what to predict with it; None for nothing.

    Raises UserError where there is none, or nothing can be predicted.
    """
    from fashion.display.pages import page
    from fashion.display.reading.ensemble import print_ensemble
    from fashion.errors import Problem, RunError
    from fashion.reading.ensembles.as_json import ensemble_json, members_json

    if len({each.location for each in (opened, *others)}) < 1 + len(others):
        named = ", ".join(each.location for each in (opened, *others))
        raise RunError(Problem("--with", "must be another run each", named))
    found = opened.ensemble(picks, others)
    opened.promote_ensemble(found)
    folder = f"{opened.location}/ensemble"
    if not as_json:
        print_ensemble(found, picks, folder, page())
    predictions = None
    if asked is not None:
        from fashion.cli.predict import predict_winner

        split, images, address, follow_links, on_error = asked
        predictions = predict_winner(
            opened.record, opened.best(), split, images, address, as_json, follow_links, on_error, "ensemble"
        )
    if as_json:
        told = {
            "run": opened.name,
            "picks": {"asked": picks, "count": found.picks},
            "members": members_json(found),
            **ensemble_json(found),
            "promoted": folder,
            **({} if predictions is None else {"predictions": predictions}),
        }
        click.echo(json.dumps(told, indent=2, allow_nan=False))
