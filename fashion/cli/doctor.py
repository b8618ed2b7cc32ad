"""`fashion-sweep doctor`: finds out what is wrong with a machine, or with a cluster's nodes, before a sweep does."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_file

if TYPE_CHECKING:
    from fashion.doctor.diagnosis import Diagnosis

SHOWN = 3  # different values that one line lists before it leaves out the rest


@click.command()
@click.argument("spec", required=False, metavar="[SPEC]", shell_complete=complete_file)
@click.option(
    "--address", metavar="ADDRESS", help="Examine every node of the Ray cluster at ADDRESS, not this machine."
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {check, node, ok, place, value, rule, fix}.")
def doctor(spec: str | None, address: str | None, as_json: bool) -> None:
    """Look for anything that would keep a sweep from running well on this machine, or on the nodes of a cluster.

    Examines versions, GPUs, the cache folder with its speed and free space, clocks, and whether Ray asks for a token;
    with SPEC also its data, weights and storage. Exits with 0 if all is well, with 1 if something is wrong, and with 2
    if nothing could be examined because SPEC is wrong or no cluster answers.

    \b
    Example: fashion-sweep doctor
    Example: fashion-sweep doctor sweeps/backbones.yaml --address 10.0.0.1:6379
    """
    from fashion.doctor.diagnosis import HERE
    from fashion.doctor.examine import Node, compare, examine, versions
    from fashion.doctor.request import request_for
    from fashion.spec.sweep_spec import load_spec

    request = request_for(None if spec is None else load_spec(spec))
    if address is None:
        if os.environ.get("RAY_ADDRESS"):
            click.echo("RAY_ADDRESS names a cluster, which `run` would join: --address auto examines it.", err=True)
        found = [*compare([Node(HERE, versions())]), *examine(request)]
    else:
        from fashion.doctor.nodes import examine_cluster

        found = examine_cluster(request, address, lambda text: None if as_json else click.echo(text, err=True))
    if as_json:
        click.echo(json.dumps([each.to_json() for each in found], indent=2))
    else:
        click.echo(_text(found))
    if not all(each.ok for each in found):
        raise SystemExit(1)


def _text(found: list[Diagnosis]) -> str:
    """One line for each check that is well, however many nodes share it, then one for each fault."""
    from fashion.doctor.diagnosis import HERE
    from fashion.errors import printable

    well: dict[tuple[str, str], list[Diagnosis]] = {}
    for each in found:
        if each.ok:
            well.setdefault((each.problem.place, each.problem.rule), []).append(each)
    nodes = {each.node for each in found}
    lines = []
    for (place, rule), alike in well.items():
        values = list(dict.fromkeys(each.problem.value for each in alike if each.problem.value))
        shown = ", ".join(values[:SHOWN]) + (", ..." if len(values) > SHOWN else "")
        where = "" if len(nodes) == 1 else f" ({len({each.node for each in alike})} of {len(nodes)} nodes)"
        lines.append(printable(f"ok       {place}: {rule}{f'; {shown}' if shown else ''}{where}"))
    wrong = [each for each in found if not each.ok]
    lines += [f"finding  {printable(each.node)}: {each.problem}" for each in wrong]
    verdict = f"{len(wrong)} finding{'s' if len(wrong) > 1 else ''}" if wrong else "all is well"
    where = f"{len(nodes)} nodes" if len(nodes) > 1 else nodes.pop() if nodes == {HERE} else "1 node"
    return "\n".join([*lines, f"{len(found)} checks on {where}: {verdict}"])
