"""The `fashion-sweep` command. A command imports what it needs when it runs: `--help` loads neither torch nor Ray."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pwd
import sys
from collections.abc import Mapping, Sequence

import click

from fashion.cli.completion.shells import VARIABLE, prepare_completion
from fashion.cli.options import SuggestingGroup
from fashion.cluster.interrupts import caused_by_interrupt, interruptible, nothing_left
from fashion.display.streams import guarded_streams
from fashion.errors import Problem, UserError, refusal

INTERRUPTED = 130  # the exit code that a shell gives a command that Ctrl-C ended

# Name -> module and attribute. A module is imported when its command is named; for help all are, and load little but
# click.
COMMANDS: Mapping[str, str] = {
    "run": "fashion.cli.run:run",
    "submit": "fashion.cli.submit:submit",
    "watch": "fashion.cli.watch:watch",
    "stop": "fashion.cli.watch:stop",
    "best": "fashion.cli.results:best",
    "ls": "fashion.cli.results:ls",
    "show": "fashion.cli.reading.show:show",
    "compare": "fashion.cli.reading.compare:compare",
    "logs": "fashion.cli.reading.logs:logs",
    "report": "fashion.cli.report.command:report",
    "check": "fashion.cli.spec:check",
    "doctor": "fashion.cli.doctor:doctor",
    "schema": "fashion.cli.spec:schema",
    "sweeps": "fashion.cli.spec:sweeps",
    "data": "fashion.cli.data.group:data",
    "model": "fashion.cli.model:model",
    "cache": "fashion.cli.cache.command:cache",
    "export": "fashion.cli.outside.export:export_run",
    "submission": "fashion.cli.outside.submission:submission",
}
# Not listed in the help: machines use them, not people.
HIDDEN: Mapping[str, str] = {"spot-watch": "fashion.cli.spot:spot_watch"}

# Variables that name a file or a folder, of this package and of the libraries that it calls: most of those would take
# a `~` for a folder of that name.
PATH_VARIABLES = (
    "FASHION_CACHE", "RAY_TMPDIR", "TMPDIR", "RAY_AUTH_TOKEN_PATH", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "SSL_CERT_FILE",
)  # fmt: skip
WITHOUT_FOLDER = ("--help", "-h", "--version")  # words with which no folder is needed


class Lazy(SuggestingGroup):
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
    mistake, 130 interrupted (Ctrl-C, SIGTERM, SIGHUP).

    Interrupts, standard streams and errors are handled here for all commands: a reader that has gone (head, less) is no
    failure, and keeps nothing from being done."""
    # At exit Python would look for cycles among all objects of torch and Ray, which takes a second and is useless.
    atexit.register(gc.freeze)
    # Otherwise pydantic looks for plugins in the entry points of every installed package whenever a light command
    # starts.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    name_user()
    expand_home()
    share_cores()
    if VARIABLE in os.environ:
        prepare_completion()
    try:
        with interruptible(), guarded_streams():
            code = _run(arguments)
    except UserError as error:  # standard output is a file, and its disk is full
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:  # while the message of another one was printed
        code = INTERRUPTED
    if arguments is None:  # this process is for the command alone
        nothing_left(code)
    if code:
        sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Run one command, say what kept it from its end, and return its exit code."""
    try:
        require_working_folder(sys.argv[1:] if arguments is None else arguments)
        cli(args=arguments, standalone_mode=False)
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        return end.code or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        return 0  # nobody reads what `watch` shows
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, click.Abort) or caused_by_interrupt(error):
            click.echo("Interrupted.", err=True)
            return INTERRUPTED
        # Any command may find a disk full or read-only.
        reason = str(error) if isinstance(error, UserError) else refusal(error)
        if not reason:
            raise
        click.echo(f"Error: {reason}", err=True)
        return error.exit_code if isinstance(error, UserError) else 2


def name_user() -> None:
    """Name the user where the system doesn't know the user id (a container's `--user 12345`): libraries ask for it."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        # What `getpass.getuser` looks at; none of it is set in such a container.
        if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            os.environ["USER"] = f"uid-{os.getuid()}"


def expand_home() -> None:
    """Put the home folder in place of a `~` with which a variable's path begins. Shells leave it in quotes, and service
    managers, Dockerfiles and .env files leave it everywhere."""
    for name in PATH_VARIABLES:
        if os.environ.get(name, "").startswith("~"):
            os.environ[name] = os.path.expanduser(os.environ[name])


def share_cores() -> None:
    """Let OpenMP's threads sleep soon while they wait for each other, unless the user has set how long they spin.

    By default those of GNU's OpenMP, which torch's wheels for Linux bring, spin. Where another process has the core
    that the last of them needs, the others keep it busy with waiting: beside other work a forward pass takes several
    times as long (docs/performance.md). The variable is read once, when torch is imported.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def require_working_folder(arguments: Sequence[str]) -> None:
    """Raise UserError where the folder in which the command was typed has been deleted: paths are relative to it, and
    the processes of a sweep start in it."""
    if any(word in WITHOUT_FOLDER for word in arguments):
        return
    try:
        os.getcwd()
    except FileNotFoundError:
        rule = "must exist; it was deleted or replaced after this shell had gone there"
        raise UserError(
            Problem("the working folder", rule, fix='Go to a folder that exists (cd "$PWD", or cd)')
        ) from None


if __name__ == "__main__":
    main()
