"""`fashion-sweep report`: a run, or several side by side, as one HTML page. It loads neither Ray nor torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_file, complete_folder, complete_run
from fashion.cli.options import LocalPath
from fashion.cli.reading.location import storage_option

if TYPE_CHECKING:
    from fashion.page.gather import PageRun

WATCH_SECONDS = 10.0  # between two pages of a sweep that runs, unless writing one takes long
SHARE = 5  # a page is written again after at least so many times as long as writing one takes


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_run)
@storage_option
@click.option("--out", type=LocalPath(dir_okay=False), metavar="FILE", shell_complete=complete_file,
              help="Write the page there.  [default: RUN/report.html]")  # fmt: skip
@click.option("--static", type=LocalPath(file_okay=False), metavar="DIR", shell_complete=complete_folder,
              help="Also write the panels that don't move as SVG and PNG, and their numbers as CSV.")  # fmt: skip
@click.option("--markdown", type=LocalPath(dir_okay=False), metavar="FILE", shell_complete=complete_file,
              help="Also write a report in Markdown: model, loss, curves, parameters, machine.")  # fmt: skip
@click.option("--thumbnails", is_flag=True, help="With small pictures of validation images; they may be confidential.")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@click.option("--watch", is_flag=True, help="Write it again while the sweep runs; the open page follows.")
def report(
    runs: tuple[str, ...],
    storage: str,
    out: str | None,
    static: str | None,
    markdown: str | None,
    thumbnails: bool,
    opens: bool,
    watch: bool,
) -> None:
    """Write a page of what a sweep found, and how sure one can be.

    One HTML file that needs no network: the winner and what can't be told from it, all trials to filter, learning
    curves, what mattered, every attribute's confusions. RUN is a name, a folder or an address; without it the latest
    run. Several stand side by side, with paired differences.

    \b
    Example: fashion-sweep report
    Example: fashion-sweep report backbones --open
    Example: fashion-sweep report probe finetune_cpu --out both.html
    Example: fashion-sweep report backbones --static figures --markdown report.md
    """
    from fashion.page.written import markdown as report_of
    from fashion.page.written import write_file, write_static

    if markdown and len(runs) > 1:
        raise click.UsageError("--markdown takes one run.")
    found = _gathered(runs, storage)
    place = Path(out) if out is not None else _place(found)
    running = watch and any(run.running for run in found)
    spent = _write(found, place, thumbnails, running)
    click.echo(str(place))
    if static is not None:
        for run in found:
            folder = Path(static) / run.name if len(found) > 1 else Path(static)
            click.echo(f"{folder}: {len(write_static(run, folder))} files")
    if markdown is not None:
        write_file(Path(markdown), report_of(found[0]).encode(errors="backslashreplace"))
        click.echo(markdown)
    if opens:
        import webbrowser

        if not webbrowser.open(place.absolute().as_uri()):
            click.echo(f"No browser was found: open {place} yourself.", err=True)
    while running:
        time.sleep(max(WATCH_SECONDS, SHARE * spent))
        found = _gathered(runs, storage)
        running = any(run.running for run in found)
        if not running:  # it has ended, perhaps since its record was read: nobody loads the last page again
            found = _gathered(runs, storage)
        spent = _write(found, place, thumbnails, running)


def _gathered(names: Sequence[str], storage: str) -> list[PageRun]:
    from fashion.api.locate import find_location
    from fashion.api.recorded_run import read_run
    from fashion.display.progress import Bars
    from fashion.page.gather import gather

    locations = [find_location(storage, name) for name in names or (None,)]
    found = []
    with Bars() as bars:
        for location in dict.fromkeys(locations):
            opened = read_run(location, every_report=True, progress=bars)
            for note in opened.notes:
                click.echo(note, err=True)
            found.append(gather(opened, bars))
    return found


def _place(found: Sequence[PageRun]) -> Path:
    """Where the page goes: into the first run's folder, or of a run in a bucket into the working folder."""
    first = found[0].opened
    return Path(f"{first.name}.html") if first.address is not None else first.record.path / "report.html"


def _write(found: Sequence[PageRun], place: Path, thumbnails: bool, running: bool) -> float:
    """Write the page; returns the seconds that it took. running: whether it loads itself again."""
    from fashion.page.document import page_html
    from fashion.page.written import write_file

    begun = time.monotonic()
    content = page_html(found, thumbnails, WATCH_SECONDS if running else 0.0)
    write_file(place, content.encode(errors="backslashreplace"))
    return time.monotonic() - begun
