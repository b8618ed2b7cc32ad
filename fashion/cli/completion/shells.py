"""What bash and zsh need beyond click's own scripts (docs/completion.md)."""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, CompletionItem, ZshComplete, add_completion_class, split_arg_string

VARIABLE = "_FASHION_SWEEP_COMPLETE"


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
