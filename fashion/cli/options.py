"""What several commands share: options, with one wording and one check for each, paths, and the nearest command."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from fashion.cli.completion.words import complete_file, complete_override

if TYPE_CHECKING:
    from fashion.display.live import Mode

Command = Callable[..., Any]

# What other tools call a command.
OTHERWISE = {
    "train": "run", "start": "run", "sweep": "run", "tune": "run", "resume": "run", "continue": "run", "fit": "run",
    "list": "ls", "runs": "ls", "status": "show", "info": "show", "results": "show", "describe": "show",
    "validate": "check", "verify": "check", "lint": "check", "dry-run": "check",
    "predict": "best --predict", "winner": "best", "promote": "best", "convert": "export", "onnx": "export --to onnx",
    "log": "logs", "errors": "logs", "diff": "compare",
    "follow": "watch", "attach": "watch", "cancel": "stop", "kill": "stop", "abort": "stop",
    "examples": "sweeps", "init": "sweeps", "new": "sweeps", "models": "model", "backbones": "model --list",
    "summary": "model", "dataset": "data", "datasets": "data", "help": "--help", "version": "--version",
    "html": "report", "dashboard": "report", "plot": "report", "importance": "report",
    "describe-data": "data stats", "cache": "pack", "upload": "push", "generate": "demo", "figure": "stats",
}  # fmt: skip


class SuggestingGroup(click.Group):
    """A group that names the command that was meant where there is none of that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(ctx)
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            other = OTHERWISE.get(name.lower(), "")
            fits = other.split(" ")[0] in known or (other.startswith("--") and ctx.parent is None)
            near = [other] if fits else difflib.get_close_matches(name.lower(), known, 1, 0.6)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)


class HomePath(click.Path):
    """A path whose leading ~ is the home folder, also where the shell leaves it: `--storage=~/runs`, quotes, scripts.

    An address in a bucket passes as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)


class LocalPath(HomePath):
    """A path on this machine: an address, which would be taken for a folder called `s3:`, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from fashion.bucket.address import is_address

        if is_address(value):
            self.fail(f"must be a path on this machine, not in a bucket; got {value!r}", param, ctx)
        return super().convert(value, param, ctx)


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


def data_option(what: str) -> Callable[[Command], Command]:
    """The option --data in place of a spec, and what the command does with the draft."""
    return click.option(
        "--data",
        "root",
        metavar="PATH",
        type=HomePath(),
        shell_complete=complete_file,
        help=f"Instead of SPEC: draft one for this label file, folder or address, as NAME.yaml, and {what}.",
    )


ONE_OF_TWO = (
    "Name a spec, or with --data a data set for which one is drafted. A spec's own data are changed with "
    "--set data.root=..."
)


def drafted_spec(root: str, overrides: tuple[str, ...]) -> str:
    """The file of the spec for a data set, drafted now or earlier, which is told on stderr."""
    from fashion.display.progress import Bars
    from fashion.sweep.drafts.draft import drafted

    with Bars() as bars:
        draft = drafted(root, overrides, bars)
    click.echo(draft.sentence, err=True)
    return str(draft.path)


def spec_or_draft(spec: str | None, root: str | None, overrides: tuple[str, ...]) -> str:
    """The spec that was named, or the draft for the data set that was. Raises UsageError for both or neither."""
    if spec is not None and root is None:
        return spec
    if root is not None and spec is None:
        return drafted_spec(root, overrides)
    raise click.UsageError(ONE_OF_TWO)


def nearest_word(word: str, known: Sequence[str]) -> str:
    """What to say of a word that is none of the known ones."""
    near = difflib.get_close_matches(word.lower(), known, 1, 0.6)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
    return f"must be one of the forms; got {word!r}. {hint}"


def mode_of(plain: bool, as_json: bool) -> Mode:
    """How a sweep is shown. Raises UsageError for both flags at once."""
    if plain and as_json:
        raise click.UsageError("--plain and --json exclude each other.")
    return "json" if as_json else "plain" if plain else "auto"


def overrides_with(overrides: tuple[str, ...], name: str | None, storage: str | None) -> tuple[str, ...]:
    """The overrides of `--set`, with `--name` and `--storage` as two more, which are text whatever YAML would take them
    for: `--name 20250131`, `--name null`, `--storage 'my runs #2'`."""
    more = {"name": name, "storage": storage}
    # JSON is YAML in which a string is quoted.
    return (
        *overrides,
        *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in more.items() if value is not None),
    )


def _number_of_trials(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\+?[1-9][0-9]{0,6}", text):
        raise click.BadParameter(f"must be a number of trials, or +N for N more; got {text!r}.", param_hint="--trials")
    return text
