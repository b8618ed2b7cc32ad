"""`fashion-sweep data check`, `stats` and `explain`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from collections import Counter

import click

from fashion.cli.data.options import (
    dataset_at,
    folder_of,
    follow_links_option,
    reading_of,
    reading_options,
    tell_rule,
    unread_folder,
)
from fashion.cli.options import HomePath, LocalPath


@click.command()
@click.argument("root", type=HomePath())
@follow_links_option
@reading_options
@click.option("--all", "everything", is_flag=True, help="Every finding, not three of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def check(
    root: str,
    follow_links: bool,
    attributes: str | None,
    missing: str | None,
    rule: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Find everything that is wrong with the data set at ROOT, a folder, a label file, s3://... or gs://...,
    in one pass.

    Prints each kind of finding with its number and examples. Exits with 0 if training may go on (warnings are
    allowed), with 2 if it may not.

    \b
    Example:
      fashion-sweep data check data/FashionDataset
    """
    from fashion.data.check import check as check_data
    from fashion.data.lists import looking_with
    from fashion.display.progress import Bars

    folder = unread_folder(root)
    with Bars() as bars:
        reading = reading_of(attributes, missing, rule)
        result = check_data(folder, bars.of("reading images"), follow_links, reading, looking_with(bars))
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        for line in map(str, result.findings) if everything else result.lines():
            click.echo(line)
        count: Counter[str] = Counter(finding.severity for finding in result.findings)
        listed = ", ".join(f"{split} {images:,}" for split, images in result.images.items()) or "no images"
        verdict = "training may go on" if result.ok else "training may not go on"
        words = {"error": "error", "warning": "warning", "info": "note"}
        told = (f"{count[kind]:,} {word}{'' if count[kind] == 1 else 's'}" for kind, word in words.items())
        click.echo(f"{listed}: {', '.join(told)}; {verdict}")
    sys.exit(0 if result.ok else 2)


@click.command()
@click.argument("root", type=HomePath())
@follow_links_option
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--figure", "path", type=LocalPath(), help="Also draw a figure into this file (.png, .svg or .pdf).")
def stats(
    root: str,
    follow_links: bool,
    attributes: str | None,
    missing: str | None,
    rule: str | None,
    as_json: bool,
    path: str | None,
) -> None:
    """Print how often each class occurs in each split of ROOT, a folder, a label file, s3://... or gs://..., and
    draw it if asked.

    \b
    Example:
      fashion-sweep data stats data/FashionDataset --figure classes.svg
    """
    from fashion.data.stats import distribution, figure

    reading = reading_of(attributes, missing, rule)
    dataset = dataset_at(folder_of(root, reading=reading), follow_links, reading)
    tell_rule(dataset.rule)
    shown = distribution(dataset)
    click.echo(json.dumps(shown.to_json(), indent=2) if as_json else shown.table())
    if path is not None:
        click.echo(f"figure: {figure(dataset, path)}", err=True)


@click.command()
@click.argument("path", type=HomePath())
@follow_links_option
@reading_options
def explain(path: str, follow_links: bool, attributes: str | None, missing: str | None, rule: str | None) -> None:
    """Say what PATH, a folder, a file, s3://... or gs://..., is taken for, and how it is read; or what would make it a
    data set.

    Exits with 2 where it is no data set, or one that can't be used.

    \b
    Example:
      fashion-sweep data explain labels.csv
    """
    from fashion.data.forms.explain import explain as explained
    from fashion.data.lists import looking_with
    from fashion.display.progress import Bars

    folder, reading = unread_folder(path), reading_of(attributes, missing, rule)
    with Bars() as bars:
        lines, ok = explained(folder, follow_links, reading, path, looking_with(bars))
    for line in lines:
        click.echo(line)
    sys.exit(0 if ok else 2)
