"""Runs benchmarks one after another: a table on stdout, the rows as JSON in a file, progress on stderr."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.child import ROOT
from benchmarks.rows import Row
from fashion.files import write_atomic

# id -> whether it reads the real data. Each is a module with a function `run(full, data)`, imported when its turn
# comes.
BENCHMARKS = {
    "input": True, "step": True, "trial": False, "probe": True, "tail": True, "sweep": True, "scale": False,
    "predict": True, "start": False, "beside": False, "labels": False, "page": False,
}  # fmt: skip
WIDTH = 150  # characters, where the output is not a terminal


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--full", is_flag=True, help="The long form; without it all of them take under 20 minutes on 2 cores.")
@click.option("--only", multiple=True, type=click.Choice(list(BENCHMARKS)), help="Run this one; may be repeated.")
@click.option("--data", type=click.Path(path_type=Path), help="The challenge's data set. Default: $FASHION_DATA, or "
              "../shared/FashionDataset beside the project.")  # fmt: skip
@click.option("--json", "place", type=click.Path(path_type=Path), default=ROOT / "build" / "bench.json",
              help="Where the rows go. Default: build/bench.json.")  # fmt: skip
def main(full: bool, only: tuple[str, ...], data: Path | None, place: Path) -> None:
    """Measure the program against what users would take instead, and against the machine's limits.

    \b
    Example: python -m benchmarks --only step --only input --data data/FashionDataset
    """
    names = [name for name in BENCHMARKS if not only or name in only]
    data = data or Path(os.environ.get("FASHION_DATA") or ROOT.parent / "shared" / "FashionDataset")
    readers = [name for name in names if BENCHMARKS[name]]
    if readers and not (data / "split" / "train.txt").is_file():
        click.echo(f"Error: {', '.join(readers)} read the real data, and there is none at {data}: --data", err=True)
        sys.exit(2)
    rows: list[Row] = []
    try:
        for number, name in enumerate(names, start=1):
            click.echo(f"[{number}/{len(names)}] {name}", err=True)
            started = time.monotonic()
            rows += importlib.import_module(f"benchmarks.{name}").run(full, data)
            write(rows, place)
            click.echo(f"      {name} took {time.monotonic() - started:.0f} s", err=True)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    finally:  # also when a benchmark fails: its traceback follows
        show(rows)


def write(rows: Sequence[Row], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, (json.dumps([row.to_json() for row in rows], indent=2) + "\n").encode())


def show(rows: Sequence[Row]) -> None:
    table = Table("id", "contender")
    for name, justify in (
        ("value", "right"),
        ("unit", "left"),
        ("ratio", "right"),
        ("target", "left"),
        ("met", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    before = None
    for row in rows:
        if before not in (None, row.id):
            table.add_section()
        before = row.id
        ratio = "" if row.ratio is None else shown(row.ratio)
        met = "" if row.met is None else "yes" if row.met else "[bold red]no"
        table.add_row(row.id, row.contender, shown(row.value), row.unit, ratio, row.target or "", met)
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def shown(value: float) -> str:
    """Three digits, or all of those before the point."""
    digits = next((count for limit, count in ((100, 0), (10, 1), (1, 2)) if abs(value) >= limit), 3)
    return f"{value:,.{digits}f}"


if __name__ == "__main__":
    main()
