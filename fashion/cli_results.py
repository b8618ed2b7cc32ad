"""`fashion-sweep ls`, `show` and `best`: what the record says. None of them loads Ray or torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from fashion.best import Ranked
    from fashion.run import Run

PIPED_WIDTH = 200  # columns where there is no terminal: nothing is cut off from what a script greps

storage_option = click.option(
    "--storage", default="runs", show_default=True, metavar="DIR", help="Folder of the runs (`storage` in their specs)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


@click.command()
@storage_option
@json_option
def ls(storage: str, as_json: bool) -> None:
    """List the runs, the latest first.

    \b
    Example: fashion-sweep ls
    """
    from rich.table import Table

    from fashion import report
    from fashion.errors import RunError
    from fashion.run import Run, run_paths

    found: list[dict[str, Any]] = []
    for path in run_paths(storage):
        try:
            found.append(overview(Run.open(path)))
        except RunError as error:  # one damaged run must not hide the others
            found.append({"run": path.name, "path": str(path), "state": "damaged", "problem": str(error)})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo(f"No runs in {storage}. Start one: fashion-sweep run sweeps/quickstart.yaml")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head, justify in (("run", "left"), ("state", "left"), ("trials", "right"), ("val_loss", "right"), ("val_acc", "right"), ("active", "right")):
        table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for entry in found:
        if entry["state"] == "damaged":
            table.add_row(entry["run"], "[red]damaged[/]")
            continue
        best = entry["best"] or {"val_loss": math.nan, "val_accuracy": math.nan}
        done = sum(entry["counts"].get(status, 0) for status in report.FINAL)
        loss, accuracy = report.number(best["val_loss"]), report.percent(best["val_accuracy"])
        table.add_row(entry["run"], entry["state"], f"{done}/{entry['trials']}", loss, accuracy, report.ago(entry["active"]))
    console().print(table)
    for entry in found:
        if entry["state"] == "damaged":
            click.echo(entry["problem"], err=True)


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@storage_option
@click.option("--trial", type=int, metavar="N", help="One trial: its configuration and every epoch.")
@json_option
def show(run: str | None, storage: str, trial: int | None, as_json: bool) -> None:
    """Show a run: every trial, the rungs, the failures. RUN is a name or a folder; without it the latest run.

    Works while the sweep runs, from another terminal.

    \b
    Example: fashion-sweep show
    Example: fashion-sweep show backbones --trial 7
    """
    from fashion import report
    from fashion.live import View, picture
    from fashion.run import Run
    from fashion.schedulers import scheduler_of

    record = Run.find(storage, run)
    if trial is not None:
        _show_trial(record, trial, as_json)
        return
    entry = overview(record)
    scheduler = scheduler_of(record)
    if as_json:
        rungs = [vars(state) for state in scheduler.rungs()]
        trials = [_trial_json(record, number) for number in sorted(record.trials)]
        click.echo(json.dumps({**entry, "rungs": rungs, "trials_recorded": trials}, indent=2, allow_nan=False))
        return
    fields = report.varying(record.manifest["spec"])
    rows = [report.row(record.trials[number], fields) for number in sorted(record.trials)]
    out = console()
    state = f"{record.path}  {entry['state']}, last active {report.ago(entry['active'])}"
    view = View(record.name, state, entry["trials"], rows, fields, scheduler.rungs(), scheduler.compare, scheduler.metric)
    out.print(picture(view, out.width, None))


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@storage_option
@json_option
def best(run: str | None, storage: str, as_json: bool) -> None:
    """Promote the checkpoint with the lowest val_loss over all epochs of all trials to RUN/best.

    Prints its configuration, its metrics per attribute and its distance to the runner-up. RUN is a name or a folder;
    without it the latest run.

    \b
    Example: fashion-sweep best
    Example: fashion-sweep best backbones --json
    """
    from fashion import best as ranking
    from fashion.run import Run

    record = Run.find(storage, run)
    winner = ranking.best(record)
    folder = ranking.promote(record, winner)
    if as_json:
        click.echo(json.dumps(winner_json(record, winner, folder), indent=2, allow_nan=False))
    else:
        print_winner(record, winner, folder)


def overview(record: Run) -> dict[str, Any]:
    """A run in a few JSON values: {run, path, state, created, active, trials, counts, best}."""
    from fashion import report
    from fashion.journal import driver_alive

    trials = int(record.manifest["spec"]["search"]["trials"])
    rows = [report.row(trial) for trial in record.trials.values()]
    counts = report.counts(rows, trials)
    done = sum(counts.get(status, 0) for status in report.FINAL)
    state = "running" if driver_alive(record.path) else "finished" if done >= trials else "unfinished"
    leader = report.leader(rows)
    best = None
    if leader is not None:
        accuracy = None if math.isnan(leader.accuracy) else leader.accuracy
        best = {"trial": leader.number, "epoch": leader.best_epoch, "val_loss": leader.best, "val_accuracy": accuracy}
    return {
        "run": record.name,
        "path": str(record.path),
        "state": state,
        "created": record.manifest["created"],
        "active": record.last_activity,
        "trials": trials,
        "counts": counts,
        "best": best,
    }


def winner_json(record: Run, winner: Ranked, folder: Path) -> dict[str, Any]:
    """What `best` prints, as JSON values."""
    from fashion import best as ranking
    from fashion.record import metrics_to_json

    ahead = ranking.lead(record)
    runner_up = None
    if ahead is not None:
        distance = metrics_to_json({"val_loss": ahead.val_loss, "val_accuracy": ahead.val_accuracy})
        runner_up = {"trial": ahead.runner_up.trial, "epoch": ahead.runner_up.epoch, "ahead_by": distance}
    rows = ranking.attribute_table(record.manifest, winner.metrics)
    attributes = [
        {"gain": row.gain, **{key: value for key, value in vars(row).items()}} if math.isfinite(row.accuracy) else {"name": row.name}
        for row in rows
    ]
    return {
        "run": record.name,
        "trial": winner.trial,
        "epoch": winner.epoch,
        "metrics": metrics_to_json(winner.metrics),
        "majority_accuracy": ranking.majority_accuracy(record.manifest),
        "attributes": attributes,
        "runner_up": runner_up,
        "config": winner.config,
        "promoted": str(folder),
    }


def print_winner(record: Run, winner: Ranked, folder: Path) -> None:
    """Print the winner: metrics against the majority baseline, per attribute with counts, runner-up, configuration, files."""
    from rich.table import Table

    from fashion import best as ranking
    from fashion import report

    out = console()
    entry = overview(record)
    done = sum(entry["counts"].get(status, 0) for status in report.FINAL)
    epochs = winner.config.get("train", {}).get("epochs", winner.epoch)
    out.print(f"[bold]trial {winner.trial}, epoch {winner.epoch} of {epochs}[/] of {record.path} ({done} of {entry['trials']} trials final)", highlight=False)
    accuracy, majority = winner.metrics.get("val_accuracy", math.nan), ranking.majority_accuracy(record.manifest)
    gain = f", {100 * (accuracy - majority):+.2f} points from the majority baseline ({report.percent(majority)} %)"
    out.print(f"val_loss [bold]{winner.val_loss:.4f}[/], val_accuracy [bold]{report.percent(accuracy)} %[/]{gain}", highlight=False)
    more = {name: winner.metrics[f"val_{name}"] for name in ("balanced_accuracy", "exact_match") if f"val_{name}" in winner.metrics}
    out.print(", ".join(f"{name.replace('_', ' ')} {report.percent(value)} %" for name, value in more.items()), highlight=False)
    ahead = ranking.lead(record)
    if ahead is None:
        out.print("no runner-up: no other trial has a finite val_loss")
    else:
        second = ahead.runner_up
        points = f"{-100 * ahead.val_accuracy:+.2f} points" if math.isfinite(ahead.val_accuracy) else "accuracy not recorded"
        out.print(f"runner-up: trial {second.trial}, epoch {second.epoch}, val_loss {second.val_loss:.4f} ({ahead.val_loss:+.4f}), val_accuracy {points}", highlight=False)
    out.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in ("attribute", "correct", "accuracy", "majority", "gain"):
        table.add_column(head, justify="left" if head == "attribute" else "right", no_wrap=True)
    table.add_column("val images of each class")
    for row in ranking.attribute_table(record.manifest, winner.metrics):
        images = ", ".join(f"{name} {count}" for name, count in zip(row.classes, row.val_counts, strict=True))
        correct = f"{row.correct}/{row.images}" if math.isfinite(row.accuracy) else "-"
        gain = f"{100 * row.gain:+.2f}" if math.isfinite(row.gain) else "-"
        table.add_row(row.name, correct, report.percent(row.accuracy), report.percent(row.majority_accuracy), gain, images)
    out.print(table)
    out.print()
    sampled = set(report.varying(record.manifest["spec"]))
    out.print("configuration (* sampled)", style="dim")
    for section, values in winner.config.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            dotted = f"{section}.{name}".rstrip(".")
            out.print(f"{'*' if dotted in sampled else ' '} {dotted:<26} {'null' if value is None else value}", highlight=False, markup=False)
    out.print()
    out.print(f"promoted to {folder}", highlight=False, soft_wrap=True)


def _show_trial(record: Run, number: int, as_json: bool) -> None:
    from rich.table import Table

    from fashion import report
    from fashion.errors import Problem, RunError

    if number not in record.trials:
        there = f"Recorded are {min(record.trials)} to {max(record.trials)}" if record.trials else "None is recorded yet"
        raise RunError(str(Problem(str(record.path), "holds no such trial", str(number), there)))
    if as_json:
        click.echo(json.dumps(_trial_json(record, number, reports=True), indent=2, allow_nan=False))
        return
    trial = record.trials[number]
    out = console()
    out.print(f"[bold]trial {number}[/] of {record.path}: {trial.status}, attempt {trial.attempt}", highlight=False)
    if trial.reason:
        out.print(trial.reason, highlight=False, markup=False)
    for section, values in trial.config.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            out.print(f"  {f'{section}.{name}'.rstrip('.'):<26} {'null' if value is None else value}", highlight=False, markup=False)
    names = [name for name in trial.reports[0].metrics if "/" not in name] if trial.reports else []
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    best = trial.best()
    for head in ("epoch", *names, "seconds", "decision"):
        table.add_column(head, justify="left" if head == "decision" else "right", no_wrap=True)
    for each in trial.reports:
        values = [f"{each.metrics.get(name, math.nan):.4g}" for name in names]
        style = "bold" if best is not None and each.epoch == best.epoch else ""
        table.add_row(f"{each.epoch}/{each.epochs}", *values, f"{each.seconds:.1f}", trial.decisions[each.epoch], style=style)
    out.print(table if trial.reports else "no epoch reported yet")
    if best is not None:
        out.print(f"best: epoch {best.epoch}, val_loss {report.number(best.metrics['val_loss'])}", highlight=False)


def _trial_json(record: Run, number: int, reports: bool = False) -> dict[str, Any]:
    from fashion.record import metrics_to_json

    trial = record.trials[number]
    best = trial.best()
    entry: dict[str, Any] = {
        "trial": number,
        "status": trial.status,
        "reason": trial.reason,
        "attempt": trial.attempt,
        "epochs_done": trial.reports[-1].epoch if trial.reports else 0,
        "best": {"epoch": best.epoch, "metrics": metrics_to_json(best.metrics)} if best else None,
        "config": trial.config,
    }
    if reports:
        entry["reports"] = [{**each.to_json(), "decision": trial.decisions[each.epoch]} for each in trial.reports]
    return entry


def console() -> Console:
    """Standard output; where it is no terminal, wide enough that nothing is cut off."""
    from rich.console import Console

    out = Console()
    return out if out.is_terminal else Console(width=PIPED_WIDTH)
