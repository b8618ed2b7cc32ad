"""One trial as a page: what became of it and why, its learning curve, its epochs and its configuration."""

from __future__ import annotations

import math
import statistics
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fashion.display import rows as words
from fashion.display.columns import Column, fitting
from fashion.display.pages import table
from fashion.display.reading.chart import ChartCurve, chart
from fashion.display.tables import rung_name
from fashion.errors import printable
from fashion.reading.cost import cost_of
from fashion.reading.trial_columns import varying
from fashion.record import ranking
from fashion.record.manifest import versions_in_words
from fashion.record.run import Run
from fashion.record.scheduler import scheduler_of
from fashion.record.trial import Trial
from fashion.schedulers.base import Scheduler
from fashion.schedulers.metrics import METRICS

# The metrics of an epoch whose columns are the last to yield where there is no room for all.
FIRST = ("val_loss", "val_accuracy", "train_loss", "lr", "train_accuracy")
GAP = 2


def print_trial(run: Run, number: int, out: Console) -> None:
    """Print what became of a trial and why, what was sampled for it, its learning curve, every epoch with the best one
    in bold, and the rest of its configuration."""
    trial = run.trials[number]
    scheduler = scheduler_of(run)
    out.print(f"[bold]trial {number}[/] of {escape(printable(run.location))}: {trial.status}, attempt {trial.attempt}",
              soft_wrap=True)  # fmt: skip
    for text in [*_became(trial, scheduler), *_places(run, trial), *_times(run, trial)]:
        out.print(printable(text), markup=False)
    out.print()
    _print_fields(run, trial.config, out, sampled=True)
    if not trial.reports:
        out.print("no epoch reported yet")
    else:
        _print_curve(trial, scheduler, out)
        out.print()
        _print_epochs(trial, out)
    out.print()
    _print_fields(run, trial.config, out, sampled=False)


def _became(trial: Trial, scheduler: Scheduler) -> list[str]:
    """Why the trial ended, or what it needs in order to go on."""
    found = [trial.reason] if trial.reason else []
    missed = scheduler.missed.get(trial.number)
    if trial.status == "stopped" and missed:
        sign = "at most" if METRICS[scheduler.metric].mode == "min" else "at least"
        where = rung_name(missed.progress, scheduler.compare)
        needed = f"{words.number(missed.value)}, and {sign} {words.number(missed.needed)} was needed to pass"
        found.append(f"at {where} its {scheduler.metric} was {needed}")
    elif not trial.final and trial.reports and (ahead := _ahead(trial, scheduler)):
        found.append(ahead)
    if trial.origin:
        found.append(f"reused: trained as trial {trial.origin[1]} of {trial.origin[0]}")
    return found + [f"note: {note}" for note in trial.notes]


def _ahead(trial: Trial, scheduler: Scheduler) -> str:
    """The next rung of a trial that goes on, and what passes it today; empty where that is not known."""
    rungs = scheduler.rungs()
    last = trial.reports[-1]
    done = last.progress if scheduler.compare == "fraction" else float(last.epoch)
    ahead = [state for state in rungs if state.rung > done and state.cutoff is not None]
    if not ahead or len({state.bracket for state in rungs}) > 1:
        return ""
    state = min(ahead, key=lambda each: each.rung)
    assert state.cutoff is not None
    cutoff = words.number(state.cutoff)
    return f"next rung: {rung_name(state.rung, scheduler.compare)}, where {scheduler.metric} {cutoff} passes today"


def _places(run: Run, trial: Trial) -> list[str]:
    """Where each attempt ran, and under which other versions."""
    found = [f"attempt {use.attempt} in slot {use.slot} on {use.node}" for use in trial.slots]
    for attempt, changed in trial.versions.items():
        under = versions_in_words(run.manifest, changed)
        found.append(f"attempt {attempt} under other versions than the run began with: {under}")
    return found


def _times(run: Run, trial: Trial) -> list[str]:
    if not trial.reports:
        return []
    seconds = [each.seconds for each in trial.reports]
    typical = statistics.median(seconds)
    total = math.fsum(seconds)
    text = f"{typical:.2f} s an epoch (median), {words.duration(total)} in all"
    best = trial.best()
    if best is not None:
        cost = cost_of(run, ranking.trial_at(run, trial.number), [trial])
        if math.isfinite(cost.images_per_second):
            text += f", {cost.images_per_second:.0f} training images/s"
        text += f"; best at epoch {best.epoch}: val_loss {words.number(best.metrics['val_loss'])}"
    return [text]


def _print_curve(trial: Trial, scheduler: Scheduler, out: Console) -> None:
    """val_loss and train_loss by epoch, the best epoch and what was needed where the trial was stopped."""
    ascii_only = not out.encoding.lower().startswith("utf")
    marks = ("o", "*", "@", "x") if ascii_only else ("·", "•", "◆", "×")
    losses = {
        name: {float(each.epoch): each.metrics[name] for each in trial.reports if name in each.metrics}
        for name in ("train_loss", "val_loss")
    }
    best, missed = trial.best(), scheduler.missed.get(trial.number)
    curves = [
        ChartCurve("train_loss", marks[0], losses["train_loss"]),
        ChartCurve("val_loss", marks[1], losses["val_loss"]),
    ]
    if best is not None:
        curves.append(ChartCurve("best", marks[2], {best.epoch: best.metrics["val_loss"]}))
    last = trial.reports[-1]
    if trial.status == "stopped" and missed and scheduler.metric == "val_loss":
        curves.append(ChartCurve("needed to pass", marks[3], {last.epoch: missed.needed}))
    lines = chart(curves, last.epochs, out.width)
    if lines:
        out.print()
        for line in lines:
            out.print(line, markup=False, no_wrap=True)


def _print_epochs(trial: Trial, out: Console) -> None:
    """A line for each epoch, with the columns for which there is room."""
    reports = trial.reports
    names = list(dict.fromkeys(name for each in reports for name in each.metrics if "/" not in name))
    ranks = {name: rank for rank, name in enumerate((*FIRST, *(each for each in names if each not in FIRST)), start=2)}
    found = [_column("epoch", [f"{each.epoch}/{each.epochs}" for each in reports], 0)]
    found += [
        _column(name, [f"{each.metrics.get(name, math.nan):.4g}" for each in reports], ranks[name]) for name in names
    ]
    found.append(_column("seconds", [f"{each.seconds:.1f}" for each in reports], 6))
    decisions: list[str] = [trial.decisions[each.epoch] for each in reports]
    found.append(_column("decision", decisions, 1, right=False))
    kept, hidden = fitting(found, out.width, GAP)
    epochs = table(*(column.head for column in kept), left=("decision",))
    best = trial.best()
    for index, each in enumerate(reports):
        style = "bold" if best is not None and each.epoch == best.epoch else ""
        epochs.add_row(*(column.cells[index] for column in kept), style=style)
    out.print(epochs)
    if hidden:
        names = [column.head for column in hidden]
        out.print(Text(f"no room for {words.listed(names, out.width - 12)}", "dim"))


def _column(head: str, texts: list[str], rank: int, right: bool = True) -> Column:
    width = max(map(len, (head, *texts)))
    return Column(head, [Text(text) for text in texts], width, rank, right, width)


def _print_fields(run: Run, config: dict[str, Any], out: Console, sampled: bool) -> None:
    """The fields of a recorded configuration that the spec samples, with a mark, or the others."""
    varied = set(varying(run.manifest))
    lines = []
    for section, values in config.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            dotted = f"{section}.{name}".rstrip(".")
            if (dotted in varied) is sampled:
                lines.append(f"{'*' if sampled else ' '} {dotted:<24} {words.exact(value)}")
    if lines:
        out.print("configuration (* sampled)" if sampled else "the rest of the configuration", style="dim")
    for line in lines:
        out.print(printable(line), markup=False, soft_wrap=True)
