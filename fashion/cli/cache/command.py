"""`fashion-sweep cache`: what the cache folder holds, and what may go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from fashion.cli.options import SuggestingGroup

if TYPE_CHECKING:
    from fashion.data.cache.entries import CacheEntry

HEAD = ("name", "GB", "last used", "data set", "what it holds", "used by")
AGAIN = "Let the commands end that use them, then type this again"


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print {folder, limit_gb, entries: [...]} to stdout.")
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """List the images, features and maps in the cache folder, the least recently used first.

    The folder is $FASHION_CACHE, or ~/.cache/fashion-sweep. All of it can be made anew. With $FASHION_CACHE_GB the
    folder has a limit in GB: when something is to be added, the least recently used go that no process has open.

    \b
    Example: fashion-sweep cache
    Example: fashion-sweep cache rm maps-1f0a92c4
    Example: fashion-sweep cache trim 20
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json goes with the list alone.")
        return
    from fashion.data.cache.entries import entries, limit, total
    from fashion.data.contents import default_cache_dir

    folder, most = default_cache_dir(), limit()
    found = entries(folder)
    if as_json:
        listed = [_plain(entry) for entry in found]
        told = {"folder": str(folder), "limit_gb": most and most / 1e9, "entries": listed}
        click.echo(json.dumps(told, indent=2))
        return
    if found:
        _show([HEAD, *(_row(entry) for entry in found)])
    within = f" of at most {most / 1e9:g} GB (FASHION_CACHE_GB)" if most else ""
    click.echo(f"{folder}: {total(found) / 1e9:.2f} GB{within}", err=True)


@cache.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Remove what the list shows under NAME, or all of a kind: images, features or maps.

    Nothing that a process has open is removed.

    \b
    Example: fashion-sweep cache rm maps-1f0a92c4
    Example: fashion-sweep cache rm features maps
    """
    from fashion.data.cache.entries import entries, named, remove
    from fashion.data.contents import default_cache_dir
    from fashion.errors import Problem, UserError

    wanted = named(entries(default_cache_dir()), names)
    kept = [entry for entry in wanted if not remove(entry)]
    _tell_removed([entry for entry in wanted if entry not in kept])
    if kept:
        listed = ", ".join(entry.name for entry in kept)
        raise UserError(Problem("cache rm", "what is in use stays", listed, AGAIN))


@cache.command()
@click.argument("gb", type=click.FloatRange(min=0.0), metavar="GB")
def trim(gb: float) -> None:
    """Remove the least recently used until at most GB gigabytes are left.

    Nothing that a process has open is removed.

    \b
    Example: fashion-sweep cache trim 20
    """
    from fashion.data.cache.entries import entries, total
    from fashion.data.cache.entries import trim as trim_cache
    from fashion.data.contents import default_cache_dir
    from fashion.errors import Problem, UserError

    folder = default_cache_dir()
    _tell_removed(trim_cache(folder, gb * 1e9))
    if (left := total(entries(folder))) > gb * 1e9:
        rule = f"{left / 1e9:.2f} GB are in use, and stay"
        raise UserError(
            Problem("cache trim", rule, f"{gb:g}", "Let the commands end that use them, then type this again")
        )


def _tell_removed(gone: Sequence[CacheEntry]) -> None:
    for entry in gone:
        click.echo(f"{entry.name}: removed ({entry.what}, {entry.size / 1e9:.2f} GB)")
    if not gone:
        click.echo("Nothing was removed.")


def _show(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{'>' if name == 'GB' else '<'}{n}}" for name, cell, n in zip(HEAD, row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _row(entry: CacheEntry) -> tuple[str, ...]:
    used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
    state = "" if entry.whole else ", not finished"
    by = ", ".join(part for part in ("in use" if entry.in_use else "", entry.sweep) if part)
    return entry.name, f"{entry.size / 1e9:.2f}", used, entry.data, entry.what + state, by


def _plain(entry: CacheEntry) -> dict[str, Any]:
    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    return asdict(entry) | {"used": used, "path": str(entry.path)}
