"""Completion in the shell: what may stand where the cursor is (docs/completion.md).

click calls these functions with what is typed so far. They must be quick, so they load neither torch nor Ray, and ask
no bucket and no cluster. They must be silent, since anything that they print lands in the line that the user is typing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete, add_completion_class, split_arg_string

VARIABLE = "_FASHION_SWEEP_COMPLETE"

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _quiet(completer: Completer) -> Completer:
    """No completion where one fails: a traceback would be printed into the user's command line."""

    @functools.wraps(completer)
    def quiet(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return completer(context, parameter, incomplete)
        except Exception:
            return []

    return quiet


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A file, which the shell completes itself."""
    return [CompletionItem(incomplete, type="file")]


def complete_folder(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A folder, which the shell completes itself."""
    return [CompletionItem(incomplete, type="dir")]


@_quiet
def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The runs of `--storage`, the latest first. A bucket is not asked; what looks like a path is completed as one."""
    from fashion.record.find import run_paths

    if os.sep in incomplete:
        return complete_folder(context, parameter, incomplete)
    return _beginning((path.name for path in run_paths(context.params.get("storage") or "runs")), incomplete)


@_quiet
def complete_backbone(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The backbones by name, each with the side in pixels of its native input."""
    from fashion.model.backbones import BACKBONES

    return [
        CompletionItem(name, help=f"{row.native_size} px, {row.parameters:,} parameters")
        for name, row in BACKBONES.items()
        if name.startswith(incomplete)
    ]


@_quiet
def complete_split(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The splits of a data set."""
    from fashion.data.lists import SPLITS

    return _beginning(SPLITS, incomplete)


@_quiet
def complete_shipped(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The shipped sweeps, each with the question that it answers."""
    from fashion.spec.shipped import shipped_sweeps

    return [
        CompletionItem(sweep.name, help=sweep.question)
        for sweep in shipped_sweeps()
        if sweep.name.startswith(incomplete)
    ]


@_quiet
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


class Bash(BashComplete):
    """As click's own, but for words with `=`, at which bash splits what is typed and replaces only what follows it.

    So the line is read as it was typed, the part up to the last `=` is left out of the answer, and no space is put
    behind a key that still needs its value.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete $1 2> /dev/null)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("$value")
            if [[ $value == *= ]]; then compopt -o nospace; fi
        fi
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        new = not words or line[-1:].isspace()
        return (words[1:], "") if new else (words[1:-1], words[-1])

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        kept = incomplete.rpartition("=")[0] if "=" in os.environ.get("COMP_BREAKS", "=") else ""
        if not kept:
            return found
        return [
            CompletionItem(item.value.removeprefix(f"{kept}="), item.type, item.help) if item.type == "plain" else item
            for item in found
        ]


class Zsh(ZshComplete):
    """As click's own, but with no space behind a key that still needs its value."""

    source_template = ZshComplete.source_template.replace(
        '"$type" == "plain" ]]; then',
        '"$type" == "plain" && "$key" == *= ]]; then\n            compadd -U -S "" -- "$key"\n'
        '        elif [[ "$type" == "plain" ]]; then',
        1,
    )


def prepare_completion() -> None:
    """Register the two shells' own forms in click. Needed only where VARIABLE is set."""
    add_completion_class(Bash)
    add_completion_class(Zsh)
