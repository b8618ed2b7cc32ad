"""`fashion-sweep show`: a run, some of its trials, one trial, or one attribute of it. Loads neither Ray nor torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.reading import complete_attribute, complete_sort, complete_where
from fashion.cli.completion.words import complete_run
from fashion.cli.reading.location import json_option, open_named, storage_option

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun
    from fashion.display.reading.attribute import AttributePage
    from fashion.display.reading.chosen import ChosenTrials
    from fashion.reading.trial_columns import TrialColumns

SHOWN = 50  # trials that `show` prints unless asked for all


@click.command()
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@storage_option
@click.option("--trial", type=int, metavar="N", help="Show one trial: why it ended, its curve and every epoch.")
@click.option(
    "--attribute", metavar="NAME", shell_complete=complete_attribute,
    help="Show one attribute of the best trial, or of --trial N: confusion of its classes, and calibration.",
)  # fmt: skip
@click.option(
    "--where", metavar="CONDITION", shell_complete=complete_where,
    help="Show the trials of which this is true, e.g. 'backbone=resnet50 and val_loss<1'.",
)  # fmt: skip
@click.option(
    "--sort", metavar="COLUMN", shell_complete=complete_sort,
    help="Sort by a metric from the best down, or by a field from the least up; -COLUMN: the other way round.",
)  # fmt: skip
@click.option("--csv", "as_csv", is_flag=True, help="Print one line a trial, with every column, as CSV.")
@click.option("--all", "everything", is_flag=True, help=f"Show every trial, not the {SHOWN} best.")
@json_option
def show(
    run: str | None,
    storage: str,
    trial: int | None,
    attribute: str | None,
    where: str | None,
    sort: str | None,
    as_csv: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Show a run: its trials from the best down, the rungs, the failures.

    RUN is a name, a folder or an address; without it the latest run. Works while the sweep runs, from another terminal.
    A condition compares columns with = != < <= > >= and in (A, B), joined by and, or, not and parentheses. A column is
    a field of the configuration, a metric of the trial's best epoch, or what the first line of --csv names.

    \b
    Example: fashion-sweep show
    Example: fashion-sweep show backbones --where 'backbone=resnet50 and val_loss<1' --sort val_accuracy
    Example: fashion-sweep show backbones --trial 7
    Example: fashion-sweep show backbones --attribute neckline
    """
    chosen_by = [name for name, value in (("--where", where), ("--sort", sort), ("--csv", as_csv)) if value]
    if chosen_by and (trial is not None or attribute is not None):
        raise click.UsageError(f"{chosen_by[0]} is for a run's trials; --trial and --attribute show one.")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    opened = open_named(storage, run, every_report=trial is not None and attribute is None)
    if trial is not None:
        opened.trial(trial)  # refuses one that is not recorded
    if attribute is not None:
        _show_attribute(opened, trial, attribute, as_json)
    elif trial is not None:
        _show_trial(opened, trial, as_json)
    elif chosen_by:
        _show_chosen(opened, where, sort, as_csv, as_json, everything)
    else:
        _show_run(opened, as_json, everything)


def _show_run(opened: RecordedRun, as_json: bool, everything: bool) -> None:
    from fashion.display.pages import page, print_run, run_json

    if as_json:
        click.echo(json.dumps(run_json(opened.record), indent=2, allow_nan=False))
    else:
        print_run(opened.record, page(), None if everything else SHOWN)


def _show_trial(opened: RecordedRun, trial: int, as_json: bool) -> None:
    from fashion.display.pages import page, trial_json
    from fashion.display.reading.trial import print_trial

    if as_json:
        click.echo(json.dumps(trial_json(opened.record, trial, reports=True), indent=2, allow_nan=False))
    else:
        print_trial(opened.record, trial, page())


def _show_chosen(
    opened: RecordedRun, where: str | None, sort: str | None, as_csv: bool, as_json: bool, everything: bool
) -> None:
    from fashion.display.pages import page, run_json
    from fashion.display.reading.chosen import print_chosen
    from fashion.reading.trial_columns import trial_columns

    columns = trial_columns(opened.record)
    chosen = _chosen(columns, where, sort)
    if as_csv:
        click.echo(columns.to_csv(chosen.numbers), nl=False)
    elif as_json:
        click.echo(json.dumps(run_json(opened.record, chosen.numbers), indent=2, allow_nan=False))
    else:
        print_chosen(opened.record, columns, chosen, page(), None if everything else SHOWN)


def _chosen(columns: TrialColumns, where: str | None, sort: str | None) -> ChosenTrials:
    """The trials of which the condition is true; without an order from the best down, as `show` has them."""
    from fashion.display.reading.chosen import ChosenTrials
    from fashion.reading.where import parse_condition

    numbers, named = list(columns.rows), []
    if where is not None:
        condition = parse_condition(where, columns)
        numbers = [number for number in numbers if condition.holds(columns.rows[number])]
        named = list(condition.columns())
    if sort is not None:
        named.insert(0, columns.resolve(sort.removeprefix("-"), "--sort"))
    numbers = columns.ordered(numbers, sort or "val_loss", "--sort")
    return ChosenTrials(tuple(numbers), tuple(dict.fromkeys(named)), where or "")


def _show_attribute(opened: RecordedRun, trial: int | None, attribute: str, as_json: bool) -> None:
    from fashion.display.pages import page
    from fashion.display.reading.attribute import attribute_json, print_attribute

    found = _attribute_page(opened, trial, attribute)
    if as_json:
        click.echo(json.dumps(attribute_json(found), indent=2, allow_nan=False))
    else:
        print_attribute(found, page())


def _attribute_page(opened: RecordedRun, trial: int | None, attribute: str) -> AttributePage:
    from fashion.display.reading.attribute import AttributePage
    from fashion.errors import Problem, RunError
    from fashion.reading.confusion import confusion, named_attribute
    from fashion.reading.predicted import head_labels
    from fashion.record.ranking import attribute_table
    from fashion.statistics.calibration import calibration
    from fashion.statistics.label_scores import label_scores

    record = opened.record
    names = [each["name"] for each in record.manifest["attributes"]]
    index = named_attribute(names, attribute, "--attribute")
    chosen = opened.best() if trial is None else opened.at(trial)
    predictions = opened.predictions(chosen.trial)
    head = predictions.attributes[index]
    if head.labels is None:
        raise RunError(Problem(opened.location, "its validation labels are not known", predictions.labels_missing))
    majority = attribute_table(record.manifest, chosen.metrics)[index] if head.labels.ndim == 1 else None
    labels = head_labels(head)
    found = calibration(labels, head.probabilities)
    scores = label_scores(labels, head.probabilities) if head.multi_label else ()
    return AttributePage(chosen.trial, chosen.epoch, opened.location, confusion(head), majority, found, scores)
