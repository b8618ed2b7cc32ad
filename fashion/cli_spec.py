"""`fashion-sweep check` and `fashion-sweep schema`."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field, e.g. --set train.lr=0.01."
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {spec, ok, problems, ...} to stdout.")
def check(specs: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check sweep specs and show what they would run.

    Reports every problem of every file at once and exits with 2 if there is any. Starts nothing.

    \b
    Example: fashion-sweep check sweeps/*.yaml
    Example: fashion-sweep check sweeps/lr.yaml --set search.trials=20
    """
    from fashion.errors import SpecError
    from fashion.spec import load_spec

    results: list[dict[str, Any]] = []
    for path in specs:
        try:
            results.append({"spec": path, "ok": True, "problems": [], **_summary(load_spec(path, overrides))})
        except SpecError as error:
            problems = [{"place": p.place, "rule": p.rule, "value": p.value, "fix": p.fix} for p in error.problems]
            results.append({"spec": path, "ok": False, "problems": problems})
            if not as_json:
                click.echo(str(error), err=True)
        else:
            if not as_json:
                _show(results[-1])
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
    from fashion.spec_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


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
    from fashion.space import case_name

    trials = f"{result['trials']} trial{'s' if result['trials'] != 1 else ''}"
    click.echo(f"{printable(result['spec'])}: ok, {trials}, search {result['method']}, scheduler {result['scheduler']}")
    for name, form in result["space"].items():
        kind, *options = form
        values = ", ".join(case_name(value) for value in form[kind])
        click.echo(f"  {name:<28} {kind} {values}" + "".join(f", {key} {form[key]}" for key in options))
