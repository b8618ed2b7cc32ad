"""The `fashion-sweep` command. A command imports what it needs when it runs: `--help` loads neither torch nor Ray."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence

import click

from fashion.cli.completion.shells import VARIABLE, prepare_completion
from fashion.errors import UserError, refusal

# Name -> module and attribute. A module is imported when its command is named; for help all are, and load little but
# click.
COMMANDS: Mapping[str, str] = {
    "run": "fashion.cli.run:run",
    "submit": "fashion.cli.submit:submit",
    "watch": "fashion.cli.watch:watch",
    "stop": "fashion.cli.watch:stop",
    "best": "fashion.cli.results:best",
    "ls": "fashion.cli.results:ls",
    "show": "fashion.cli.results:show",
    "check": "fashion.cli.spec:check",
    "doctor": "fashion.cli.doctor:doctor",
    "schema": "fashion.cli.spec:schema",
    "sweeps": "fashion.cli.spec:sweeps",
    "data": "fashion.cli.data:data",
    "model": "fashion.cli.model:model",
}
# Not listed in the help: machines use them, not people.
HIDDEN: Mapping[str, str] = {"spot-watch": "fashion.cli.spot:spot_watch"}


class Lazy(click.Group):
    """A group that imports a command's module on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = COMMANDS.get(cmd_name) or HIDDEN.get(cmd_name)
        if where is None:
            return None
        module, attribute = where.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="fashion-sweep")
def cli() -> None:
    """Hyper-parameter sweeps on Ray for multi-head image classification.

    \b
    Example: fashion-sweep run sweeps/quickstart.yaml
             fashion-sweep best --predict
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 success, 1 the sweep failed or `doctor` found something, 2 the user's
    mistake, 130 interrupted."""
    # At exit Python would look for cycles among all objects of torch and Ray, which takes a second and is useless.
    atexit.register(gc.freeze)
    # Otherwise pydantic looks for plugins in the entry points of every installed package whenever a light command
    # starts.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if VARIABLE in os.environ:
        prepare_completion()
    try:
        cli(args=arguments, standalone_mode=False)
    except UserError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has stopped reading. Writing what is buffered would fail again at exit.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        # Any command may find a disk full or read-only.
        reason = refusal(error)
        if not reason:
            raise
        click.echo(f"Error: {reason}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
