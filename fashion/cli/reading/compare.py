"""`fashion-sweep compare`: runs side by side, or trials of one run. Loads neither Ray nor torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_run
from fashion.cli.reading.location import json_option, open_named, storage_option

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun
    from fashion.reading.compare import Side
    from fashion.record.ranking import Ranked


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_run)
@storage_option
@click.option("--trials", metavar="N,N", help="Compare these trials of one run instead of runs' winners.")
@json_option
def compare(runs: tuple[str, ...], storage: str, trials: str | None, as_json: bool) -> None:
    """Compare the winners of runs on the same validation images, their specs and what they cost.

    Each run is compared with the first. Where they were validated on the same images with the same labels, every metric
    has the difference and its 95 % interval (a bootstrap over the images); otherwise it says why not. With --trials it
    is trials of one run.

    \b
    Example: fashion-sweep compare backbones finetune
    Example: fashion-sweep compare backbones --trials 3,7
    """
    from fashion.display.pages import page
    from fashion.display.reading.comparison import comparison_json, print_comparison
    from fashion.reading.compare import config_differences, pairings, spec_differences

    if trials is None and len(runs) < 2:
        raise click.UsageError("Name two runs or more, or with --trials trials of one.")
    if trials is not None and len(runs) > 1:
        raise click.UsageError("--trials compares trials of one run.")
    sides = _winners(runs, storage) if trials is None else _trials(runs[0], storage, trials)
    pairs = pairings(sides)
    specs = spec_differences([side.run for side in sides]) if trials is None else []
    configs = config_differences(sides)
    if as_json:
        click.echo(json.dumps(comparison_json(sides, pairs, specs, configs), indent=2, allow_nan=False))
    else:
        print_comparison(sides, pairs, None if trials else specs, configs, page())


def _winners(runs: tuple[str, ...], storage: str) -> list[Side]:
    from fashion.errors import Problem, RunError
    from fashion.reading.compare import distinct_labels

    opened = [open_named(storage, run) for run in runs]
    if len({each.location for each in opened}) < len(opened):
        raise RunError(Problem("RUN", "must be another run each", ", ".join(runs), "--trials compares trials of one"))
    sides = [_side(each, each.name, each.best(), whole=True) for each in opened]
    return distinct_labels(sides)


def _trials(run: str, storage: str, trials: str) -> list[Side]:
    from fashion.reading.compare import trial_numbers

    numbers = trial_numbers(trials, "--trials")
    opened = open_named(storage, run)
    return [_side(opened, f"trial {number}", opened.at(number), whole=False) for number in numbers]


def _side(opened: RecordedRun, label: str, chosen: Ranked, whole: bool) -> Side:
    """One side. whole: it stands for its run, whose cost is then told."""
    from fashion.errors import UserError
    from fashion.reading.compare import Side
    from fashion.reading.cost import cost_of
    from fashion.reading.predicted import Predicted

    record = opened.record
    predictions: Predicted | None = None
    unread = ""
    try:
        predictions = opened.predictions(chosen.trial)
    except UserError as error:  # the rest can still be compared
        unread = str(error)
    cost = cost_of(record, chosen, record.trials.values() if whole else [record.trials[chosen.trial]])
    return Side(label, record, chosen, cost, predictions, unread)
