"""`fashion-sweep sweeps`: the sweeps that come with the package."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from fashion.cli.completion import complete_shipped


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {name, question, cost, path} to stdout.")
@click.pass_context
def sweeps(context: click.Context, as_json: bool) -> None:
    """List the sweeps that come with the package, and the question that each answers.

    \b
    Example: fashion-sweep sweeps
    Example: fashion-sweep sweeps copy quickstart
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json goes with the list alone.")
        return
    from fashion.spec.shipped import shipped_sweeps

    found = shipped_sweeps()
    if as_json:
        click.echo(json.dumps([asdict(sweep) | {"path": str(sweep.path)} for sweep in found], indent=2))
        return
    width = max((len(sweep.name) for sweep in found), default=0)
    for sweep in found:
        lines = textwrap.wrap(sweep.question, 108 - width) or [""]
        click.echo(f"{sweep.name:<{width}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}")
    click.echo("Copy one here: fashion-sweep sweeps copy NAME", err=True)


@sweeps.command()
@click.argument("name", metavar="NAME", shell_complete=complete_shipped)
@click.option("--to", "target", type=click.Path(path_type=Path), help="File to write.  [default: sweeps/NAME.yaml]")
def copy(name: str, target: Path | None) -> None:
    """Copy a shipped sweep into the working folder, to run it and to edit it.

    Never overwrites a file.

    \b
    Example: fashion-sweep sweeps copy quickstart
    Example: fashion-sweep sweeps copy lr --to my-lr.yaml
    """
    from fashion.spec.shipped import copy_sweep

    copied = copy_sweep(name, target)
    click.echo(f"{copied}: copied. The comment at its top says what it needs, how to run it and what it costs.")
