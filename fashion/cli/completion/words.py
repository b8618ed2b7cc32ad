"""Completion in the shell: what may stand where the cursor is (docs/completion.md).

click calls these functions with what is typed so far. They must be quick, so they load neither torch nor Ray, and ask
no bucket and no cluster. They must be silent, since anything that they print lands in the line that the user is typing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def quiet(completer: Completer) -> Completer:
    """No completion where one fails: a traceback would be printed into the user's command line."""

    @functools.wraps(completer)
    def completed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return completer(context, parameter, incomplete)
        except Exception:
            return []

    return completed


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A file, which the shell completes itself."""
    return [CompletionItem(incomplete, type="file")]


def complete_folder(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A folder, which the shell completes itself."""
    return [CompletionItem(incomplete, type="dir")]


@quiet
def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The runs of `--storage`, the latest first. A bucket is not asked; what looks like a path is completed as one."""
    from fashion.record.find import run_paths

    if os.sep in incomplete:
        return complete_folder(context, parameter, incomplete)
    return _beginning(
        (path.name for path in run_paths(os.path.expanduser(context.params.get("storage") or "runs"))), incomplete
    )


@quiet
def complete_backbone(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The backbones by name, each with the side in pixels of its native input."""
    from fashion.model.backbones import BACKBONES

    return [
        CompletionItem(name, help=f"{row.native_size} px, {row.parameters:,} parameters")
        for name, row in BACKBONES.items()
        if name.startswith(incomplete)
    ]


@quiet
def complete_split(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The splits of a data set."""
    from fashion.data.lists import SPLITS

    return _beginning(SPLITS, incomplete)


@quiet
def complete_shipped(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The shipped sweeps, each with the question that it answers."""
    from fashion.spec.shipped import shipped_sweeps

    return [
        CompletionItem(sweep.name, help=sweep.question)
        for sweep in shipped_sweeps()
        if sweep.name.startswith(incomplete)
    ]


@quiet
def complete_override(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`section.field=` of a spec's fields, and behind `=` the words that the field takes."""
    from fashion.model.backbones import BACKBONES
    from fashion.spec.fields import SAMPLED, SETTINGS, section_rules

    rules = {rule.name: rule for section in (*SAMPLED, *SETTINGS) for rule in section_rules(section).values()}
    name, sign, _ = incomplete.partition("=")
    if not sign:
        keys = [CompletionItem(f"{each}=", help=rules[each].info.description) for each in rules]
        keys += [CompletionItem("name="), CompletionItem("storage=")]
        return [key for key in keys if key.value.startswith(incomplete)]
    if name == "model.backbone":
        words = list(BACKBONES)
    else:
        boolean = rules[name].schema.get("type") == "boolean"
        words = ["true", "false"] if boolean else rules[name].words
    return _beginning((f"{name}={word}" for word in words), incomplete)


@quiet
def complete_target(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The forms of `export`, each with what it is."""
    from fashion.export.targets import TARGETS

    return [CompletionItem(name, help=row.about) for name, row in TARGETS.items() if name.startswith(incomplete)]
