"""Completion of what `show` is asked of a run: its columns and attributes, from the manifest alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from fashion.cli.completion.words import quiet

# What stands behind the last space, parenthesis or comma of a condition.
_LAST_WORD = re.compile(r"[^\s(,]*$")


@quiet
def complete_sort(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The columns of the run, with `-` before them where that is typed."""
    sign = "-" if incomplete.startswith("-") else ""
    return _beginning((f"{sign}{name}" for name in _columns(context)), incomplete)


@quiet
def complete_where(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The columns of the run in place of the condition's last word."""
    word = _LAST_WORD.search(incomplete)
    before = incomplete[: word.start()] if word else incomplete
    return _beginning((f"{before}{name}" for name in _columns(context)), incomplete)


@quiet
def complete_attribute(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The attributes of the run's data set."""
    return _beginning((each["name"] for each in _manifest(context)["attributes"]), incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _columns(context: click.Context) -> list[str]:
    from fashion.reading.trial_columns import column_names, last_name

    names = column_names(_manifest(context))
    return list(dict.fromkeys([*(last_name(name) for name in names), *names]))


def _manifest(context: click.Context) -> dict[str, Any]:
    """The manifest of the run that is typed, else of the latest; a bucket is not asked."""
    from fashion.record.find import find_path
    from fashion.record.manifest import read_manifest

    storage = context.params.get("storage") or "runs"
    # While an option lacks its value, click leaves what was typed before it among the other words.
    run = context.params.get("run") or next(iter(context.args), None)
    return read_manifest(find_path(os.path.expanduser(storage), None if run is None else os.path.expanduser(run)))
