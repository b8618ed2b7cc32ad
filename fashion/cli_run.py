"""`fashion-sweep run`."""

from __future__ import annotations

import click


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field, e.g. --set train.lr=0.01."
)
@click.option("--name", metavar="NAME", help="Name of the sweep and of its run directory. Default: the spec's.")
@click.option("--storage", metavar="FOLDER", help="Where run directories are made. Default: the spec's.")
@click.option("--address", metavar="ADDRESS", help="Join the Ray cluster there. Default: start Ray on this machine.")
@click.option("--plain", is_flag=True, help="One line an event, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an event to stdout.")
def run(
    spec: str,
    overrides: tuple[str, ...],
    name: str | None,
    storage: str | None,
    address: str | None,
    plain: bool,
    as_json: bool,
) -> None:
    """Run a sweep, or go on with it where it stopped.

    Finished and stopped trials are not repeated, interrupted ones go on from their last checkpoint. Ctrl-C stops
    cleanly; the same command goes on.

    \b
    Example: fashion-sweep run sweeps/quickstart.yaml
    Example: fashion-sweep run sweeps/lr.yaml --name lr-adam --set train.optimizer=adam
    """
    from pathlib import Path

    from fashion.cli_progress import Bars
    from fashion.display import Display, Mode
    from fashion.spec import load_spec

    if plain and as_json:
        raise click.UsageError("--plain and --json exclude each other.")
    mode: Mode = "json" if as_json else "plain" if plain else "auto"
    if name is not None:
        overrides += (f"name={name}",)
    if storage is not None:
        overrides += (f"storage={storage}",)
    sweep = load_spec(spec, overrides)

    from fashion.prepare import open_run, prepare

    with Bars() as bars:
        prepared = prepare(sweep, bars)
    record, resumed = open_run(sweep, prepared)

    from fashion.sweep import run_sweep, unfinished

    with Display(record, sweep, mode=mode) as display:
        if resumed:
            left = len(unfinished(record, sweep.total_trials))
            display.note(
                f"{record.path} is there: {sweep.total_trials - left} of {sweep.total_trials} trials are final, {left} to do"
            )
        display.started()
        early = run_sweep(sweep, prepared, record, display, address)
    where = Path(record.path)
    if early == "interrupted":
        click.echo(f"Interrupted. Everything reported is in {where}; the same command goes on from there.", err=True)
        raise SystemExit(130)
    if not early and not any(trial.best() for trial in record.trials.values()):
        early = f"no trial has a finite val_loss. `fashion-sweep show {where}` tells each one's reason."
    if early:
        click.echo(f"The sweep failed: {where}: {early}", err=True)
        raise SystemExit(1)
    if not as_json:
        click.echo(f"Results: {where}  (fashion-sweep best {where} --predict)", err=mode == "json")
