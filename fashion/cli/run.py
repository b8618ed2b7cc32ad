"""`fashion-sweep run`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_file, complete_folder, complete_override

if TYPE_CHECKING:
    from fashion.display.live import Mode
    from fashion.record.run import Run
    from fashion.spec.sweep_spec import SweepSpec


@click.command()
@click.argument("spec", metavar="SPEC", shell_complete=complete_file)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field, e.g. --set train.lr=0.01.",
    shell_complete=complete_override,
)  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the sweep and of its run directory. Default: the spec's.")
@click.option(
    "--storage", metavar="FOLDER", help="Where run directories are kept, also s3:// or gs://. Default: the spec's.",
    shell_complete=complete_folder,
)  # fmt: skip
@click.option(
    "--trials", metavar="N", help="Number of trials; +N: so many more than the finished run has. Default: the spec's."
)
@click.option("--fresh", is_flag=True, help="Train also what a sweep beside this one has trained already.")
@click.option("--address", metavar="ADDRESS", help="Join the Ray cluster there. Default: start Ray on this machine.")
@click.option("--plain", is_flag=True, help="One line an event, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an event to stdout.")
@click.option("--recorded", is_flag=True, help="With --json: first the events that are recorded already.")
def run(
    spec: str,
    overrides: tuple[str, ...],
    name: str | None,
    storage: str | None,
    trials: str | None,
    fresh: bool,
    address: str | None,
    plain: bool,
    as_json: bool,
    recorded: bool,
) -> None:
    """Run a sweep, or go on with it where it stopped. SPEC is a file, or - for standard input.

    Finished and stopped trials are not repeated, interrupted ones go on from their last checkpoint. Ctrl-C stops
    cleanly; the same command goes on. --trials +N extends a finished sweep, also
    after its ranges were edited; its trials count.

    \b
    Example: fashion-sweep run sweeps/quickstart.yaml
    Example: fashion-sweep run sweeps/lr.yaml --name lr-adam --set train.optimizer=adam
    Example: fashion-sweep run sweeps/quickstart.yaml --trials +4
    """
    from fashion.spec.sweep_spec import load_spec

    if plain and as_json:
        raise click.UsageError("--plain and --json exclude each other.")
    if recorded and not as_json:
        raise click.UsageError("--recorded goes with --json.")
    if name is not None:
        overrides += (f"name={name}",)
    if storage is not None:
        overrides += (f"storage={storage}",)
    sweep = load_spec(spec, overrides) if trials is None else _with_trials(spec, overrides, trials)
    record, early = _carry_out(sweep, "json" if as_json else "plain" if plain else "auto", recorded, address, fresh)
    _tell_end(record, early)
    if not as_json:
        click.echo(f"Results: {record.location}  (fashion-sweep best {record.location} --predict)")


def _carry_out(sweep: SweepSpec, mode: Mode, recorded: bool, address: str | None, fresh: bool) -> tuple[Run, str]:
    """The sweep's run, and why it ended early (`run_sweep`)."""
    from contextlib import ExitStack

    from fashion.cli.progress import Bars
    from fashion.display.live import Display
    from fashion.storage.working_copy import held
    from fashion.sweep.extend import begun_trials

    with ExitStack() as stack:
        bars = stack.enter_context(Bars())
        # First of all: a bucket that can't be used, or a sweep that is driven elsewhere, is told before anything starts.
        bucket = stack.enter_context(
            held(sweep.storage, sweep.name, lambda text: click.echo(text, err=True), bars.of("reading the record, MB"))
        )
        begun = begun_trials(sweep)

        from fashion.sweep.prepare import open_run, prepare

        prepared = prepare(sweep, bars, begun)
        bars.close()
        record, resumed = open_run(sweep, prepared, bucket)

        from fashion.engine.driver import run_sweep

        with Display(record, sweep, mode=mode) as display:
            if recorded:
                display.recorded()
            if resumed:
                left = len(record.unfinished(sweep.total_trials))
                final = f"{sweep.total_trials - left} of {sweep.total_trials} trials are final, {left} to do"
                display.note(f"{record.location} is there: {final}")
            display.started()
            return record, run_sweep(sweep, prepared, record, display, address, fresh, bucket)


def _tell_end(record: Run, early: str) -> None:
    """Exit with 130 where the sweep was interrupted, with 1 where it failed."""
    where = record.location
    if early.startswith("interrupted"):
        lacking = early.removeprefix("interrupted").lstrip(": ")
        told = f"{lacking}." if lacking else f"Everything reported is in {where}; the same command goes on from there."
        click.echo(f"Interrupted. {told}", err=True)
        raise SystemExit(130)
    if not early and not any(trial.best() for trial in record.trials.values()):
        early = f"no trial has a finite val_loss. `fashion-sweep show {where}` tells each one's reason."
    if early:
        click.echo(f"The sweep failed: {where}: {early}", err=True)
        raise SystemExit(1)


def _with_trials(path: str, overrides: tuple[str, ...], trials: str) -> SweepSpec:
    """The spec with `--trials N`, or `--trials +N` of the run that is there."""
    from fashion.spec.sweep_spec import load_spec
    from fashion.sweep.extend import total_with

    if not re.fullmatch(r"\+?[1-9][0-9]{0,6}", trials):
        raise click.BadParameter(
            f"must be a number of trials, or +N for N more; got {trials!r}.", param_hint="--trials"
        )
    total, added = int(trials), 0
    if trials.startswith("+"):
        added = int(trials)
        total, left = total_with(added, load_spec(path, overrides))
        if left:
            click.echo(f"--trials {trials}: {left} of {total} trials are still to do; none are added.", err=True)
            added = 0
    spec = load_spec(path, (*overrides, f"search.trials={total}"))
    if added and spec.total_trials < total:
        raise click.BadParameter(
            f"search.method grid has {spec.total_trials} combinations, and all were tried.", param_hint="--trials"
        )
    return spec
