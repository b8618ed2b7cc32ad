"""`fashion-sweep check`, `schema` and `sweeps`: specs before they run."""

from __future__ import annotations

import json
import textwrap
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fashion.cli.completion.words import complete_file, complete_override, complete_shipped
from fashion.cli.options import ONE_OF_TWO, HomePath, SuggestingGroup, data_option, spec_or_draft

if TYPE_CHECKING:
    from fashion.display.progress import Bars
    from fashion.errors import Problem
    from fashion.spec.sweep_spec import SweepSpec


@click.command()
@click.argument("specs", nargs=-1, metavar="[SPEC]...", shell_complete=complete_file)
@data_option("check it")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field, e.g. --set train.lr=0.01.",
    shell_complete=complete_override,
)  # fmt: skip
@click.option(
    "--cluster",
    type=HomePath(),
    metavar="FILE",
    help="Also check this cluster file of Ray's launcher, and whether the cluster can run the specs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {spec, ok, problems, ...} to stdout.")
def check(
    specs: tuple[str, ...], root: str | None, overrides: tuple[str, ...], cluster: str | None, as_json: bool
) -> None:
    """Check sweep specs and show what they would run.

    Reports every problem of every file at once and exits with 2 if there is any. Nothing is started. Where the data
    set is on this machine, what `run` would lack here is reported, too: images, weights' files and GPUs. With --cluster
    the specs are for another machine, and this one is not looked at.
    With --cluster and --json, the list ends with {cluster, ok, problems}. With --data the spec that `run --data` would
    run is written, and checked.

    \b
    Example: fashion-sweep check sweeps/*.yaml
    Example: fashion-sweep check sweeps/lr.yaml --set search.trials=20
    Example: fashion-sweep check --data labels.csv
    Example: fashion-sweep check --cluster cluster.yaml sweeps/*.yaml
    """
    from fashion.errors import SpecError
    from fashion.spec.sweep_spec import load_spec

    if not specs:
        specs = (spec_or_draft(None, root, overrides),)
    elif root is not None:
        raise click.UsageError(ONE_OF_TWO)
    results: list[dict[str, Any]] = []
    wanted = []
    for path in specs:
        try:
            spec = load_spec(path, overrides)
            if found := _foreseen(spec, here=cluster is None):
                raise SpecError(f"{path}: {len(found)} problem{'s' if len(found) > 1 else ''}", found)
            wanted.append((path, spec.resources))
            results.append({"spec": path, "ok": True, "problems": [], **_summary(spec)})
        except SpecError as error:
            results.append({"spec": path, "ok": False, "problems": [asdict(each) for each in error.problems]})
            if not as_json:
                click.echo(str(error), err=True)
        else:
            if not as_json:
                _show(results[-1])
    if cluster is not None:
        from fashion.cluster.cluster_file import check_cluster

        found = check_cluster(cluster, wanted)
        results.append({"cluster": cluster, "ok": not found, "problems": [asdict(each) for each in found]})
        if found and not as_json:
            click.echo("\n".join([f"{cluster}:", *(f"  {each}" for each in found)]), err=True)
        elif not as_json:
            click.echo(f"{cluster}: ok")
    if as_json:
        click.echo(json.dumps(results, indent=2))
    if not all(result["ok"] for result in results):
        raise SystemExit(2)


@click.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors.

    \b
    Example: fashion-sweep schema > spec.schema.json
    and as the first line of a spec:
    # yaml-language-server: $schema=../spec.schema.json
    """
    from fashion.spec.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@click.group(cls=SuggestingGroup, invoke_without_command=True)
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
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write this file.  [default: sweeps/NAME.yaml]")
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


def _foreseen(spec: SweepSpec, here: bool) -> list[Problem]:
    """What would fail in some trial for certain. Backbones are built where only that tells, with a bar."""
    from fashion.errors import UserError
    from fashion.sweep.foresee import foreseen, foreseen_here

    with ExitStack() as stack:

        def progress(label: str, done: int, total: int) -> None:
            from fashion.display.progress import Bars  # rich is not loaded for a spec that needs no bar

            if "bars" not in shown:
                shown["bars"] = stack.enter_context(Bars())
            shown["bars"](label, done, total)

        shown: dict[str, Bars] = {}
        try:
            return foreseen_here(spec, progress) if here else foreseen(spec, None, progress)
        except UserError as error:  # timm has no such network, or is missing
            return [*error.problems]


def _summary(spec: Any) -> dict[str, Any]:
    return {
        "name": spec.name,
        "trials": spec.total_trials,
        "method": spec.search.method,
        "scheduler": spec.scheduler.name,
        "space": {name: distribution.to_json() for name, distribution in spec.space.items()},
    }


def _show(result: dict[str, Any]) -> None:
    from fashion.errors import printable
    from fashion.spec.space import case_name

    trials = f"{result['trials']} trial{'s' if result['trials'] != 1 else ''}"
    click.echo(f"{printable(result['spec'])}: ok, {trials}, search {result['method']}, scheduler {result['scheduler']}")
    for name, form in result["space"].items():
        kind, *options = form
        values = ", ".join(case_name(value) for value in form[kind])
        click.echo(f"  {name:<28} {kind} {values}" + "".join(f", {key} {form[key]}" for key in options))
