"""Options that several commands share: one wording and one check for each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_override

if TYPE_CHECKING:
    from fashion.display.live import Mode

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field, e.g. --set train.lr=0.01.",
    shell_complete=complete_override,
)  # fmt: skip
name_option = click.option(
    "--name", metavar="NAME", help="Give the sweep and its run directory this name instead of the spec's."
)
trials_option = click.option(
    "--trials",
    metavar="N",
    callback=lambda context, parameter, value: _number_of_trials(value),
    help="Run N trials instead of the spec's; +N: N more than the finished run has.",
)
fresh_option = click.option(
    "--fresh", is_flag=True, help="Also train what a sweep beside this one has already trained."
)
plain_option = click.option("--plain", is_flag=True, help="Print one line an event, also on a terminal.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object an event to stdout.")


def mode_of(plain: bool, as_json: bool) -> Mode:
    """How a sweep is shown. Raises UsageError for both flags at once."""
    if plain and as_json:
        raise click.UsageError("--plain and --json exclude each other.")
    return "json" if as_json else "plain" if plain else "auto"


def overrides_with(overrides: tuple[str, ...], name: str | None, storage: str | None) -> tuple[str, ...]:
    """The overrides of `--set`, with `--name` and `--storage` as two more."""
    more = {"name": name, "storage": storage}
    return (*overrides, *(f"{key}={value}" for key, value in more.items() if value is not None))


def _number_of_trials(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\+?[1-9][0-9]{0,6}", text):
        raise click.BadParameter(f"must be a number of trials, or +N for N more; got {text!r}.", param_hint="--trials")
    return text
