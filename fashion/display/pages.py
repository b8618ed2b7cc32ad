"""A run, a trial and a winner, as JSON values and as pages on a terminal; from the record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fashion.display import rows as words
from fashion.display.rows import Row
from fashion.display.tables import View, picture
from fashion.errors import printable
from fashion.record import ranking
from fashion.record.manifest import versions_in_words
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.scheduler import scheduler_of
from fashion.record.trial import metrics_to_json

PIPED_WIDTH = 200  # columns without a terminal, so that nothing is cut off that a script may look for


def page() -> Console:
    """Standard output. If it is no terminal, it is wide enough that nothing is cut off."""
    out = Console(highlight=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, emoji=False, width=PIPED_WIDTH)


def overview(run: Run, rows: Sequence[Row] | None = None) -> dict[str, Any]:
    """A run in a few JSON values: {run, path, state, created, active, trials, counts, best}.

    `active` is the time of the last event in seconds since the epoch, `trials` the number that the spec asks for. A
    caller that has made the run's `rows` already passes them.
    """
    trials = run.total_trials
    if rows is None:
        rows = [words.row(trial) for trial in run.trials.values()]
    counts = words.counts(rows, trials)
    state = "running" if run.driven else "finished" if final(counts) >= trials else "unfinished"
    leader = words.leader(rows)
    best = None
    if leader is not None:
        accuracy = leader.accuracy if math.isfinite(leader.accuracy) else None
        best = {"trial": leader.number, "epoch": leader.best_epoch, "val_loss": leader.best, "val_accuracy": accuracy}
    return {
        "run": run.name,
        "path": run.location,
        "state": state,
        "created": run.manifest["created"],
        "active": run.last_activity,
        "trials": trials,
        "counts": counts,
        "best": best,
    }


def final(counts: dict[str, int]) -> int:
    """The number of trials that have nothing left to do."""
    return sum(counts.get(status, 0) for status in words.FINAL)


def trial_json(run: Run, number: int, reports: bool = False) -> dict[str, Any]:
    """A trial as JSON values, with every epoch if `reports` is set."""
    trial = run.trials[number]
    best = trial.best()
    entry: dict[str, Any] = {
        "trial": number,
        "status": trial.status,
        "reason": trial.reason,
        "notes": trial.notes,
        "versions": [{"attempt": attempt, "changed": changed} for attempt, changed in trial.versions.items()],
        "attempt": trial.attempt,
        "epochs_done": trial.reports[-1].epoch if trial.reports else 0,
        "best": {"epoch": best.epoch, "metrics": metrics_to_json(best.metrics)} if best else None,
        "config": trial.config,
    }
    if reports:
        entry["reports"] = [{**each.to_json(), "decision": trial.decisions[each.epoch]} for each in trial.reports]
    return entry


def run_json(run: Run) -> dict[str, Any]:
    """What `show` prints as JSON values: the overview, the rungs and every trial."""
    rungs = [vars(state) for state in scheduler_of(run).rungs()]
    return {**overview(run), "rungs": rungs, "recorded": [trial_json(run, number) for number in sorted(run.trials)]}


def winner_json(run: Run, winner: Ranked, folder: str) -> dict[str, Any]:
    """What `best` prints as JSON values. Shares are in [0, 1], losses in nats; a positive lead favours the winner."""
    lead = ranking.lead(run)
    runner_up = None
    if lead is not None:
        ahead = metrics_to_json({"val_loss": lead.val_loss, "val_accuracy": lead.val_accuracy})
        runner_up = {"trial": lead.runner_up.trial, "epoch": lead.runner_up.epoch, "ahead_by": ahead}
    attributes = []
    for row in ranking.attribute_table(run.manifest, winner.metrics):
        shares = {"accuracy": row.accuracy, "gain": row.gain}
        attributes.append({**vars(row), **metrics_to_json(shares)})
    return {
        "run": run.name,
        "trial": winner.trial,
        "epoch": winner.epoch,
        "metrics": metrics_to_json(winner.metrics),
        "majority_accuracy": ranking.majority_accuracy(run.manifest),
        "attributes": attributes,
        "runner_up": runner_up,
        "config": winner.config,
        "promoted": folder,
    }


def print_run(run: Run, out: Console, most: int | None = None) -> None:
    """Print the trials from the best down (at most `most` of them), the rungs and the failures."""
    scheduler = scheduler_of(run)
    fields = words.varying(run.manifest)
    rows = [words.row(run.trials[number], fields) for number in sorted(run.trials)]
    entry = overview(run, rows)
    state = f"{run.location}  {entry['state']}, last active {words.ago(entry['active'])}"
    view = View(
        run.name,
        state,
        entry["trials"],
        rows,
        fields,
        scheduler.rungs(),
        scheduler.compare,
        scheduler.metric,
        bars=out.is_terminal,
    )
    out.print(picture(view, out.width, None, most), markup=False)
    for text in _under_other_versions(run):
        out.print(printable(text), markup=False, soft_wrap=True)


def _under_other_versions(run: Run) -> list[str]:
    """Which trials were trained, in whole or in part, under other versions than the run began with."""
    numbers: dict[str, list[int]] = {}
    for number in sorted(run.trials):
        for changed in run.trials[number].each_versions():
            if changed:
                numbers.setdefault(versions_in_words(run.manifest, changed), []).append(number)
    return [f"under other versions than the run began with: {ranges(each)} ({text})" for text, each in numbers.items()]


def ranges(numbers: Sequence[int]) -> str:
    """Trials' numbers from the least up, runs of them shortened: "trials 3, 5 to 8"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = [f"{first}" if first == last else f"{first} to {last}" for first, last in spans]
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"


def print_trial(run: Run, number: int, out: Console) -> None:
    """Print a trial's configuration and every epoch's metrics, with the best epoch in bold."""
    trial = run.trials[number]
    out.print(f"[bold]trial {number}[/] of {escape(run.location)}: {trial.status}, attempt {trial.attempt}")
    if trial.reason:
        out.print(printable(trial.reason), markup=False)
    for note in trial.notes:
        out.print(f"note: {printable(note)}", markup=False)
    for attempt, changed in trial.versions.items():
        words_of_it = versions_in_words(run.manifest, changed)
        text = f"attempt {attempt} under other versions than the run began with: {words_of_it}"
        out.print(printable(text), markup=False)
    _print_config(run, trial.config, out)
    if not trial.reports:
        out.print("no epoch reported yet")
        return
    names = [name for name in trial.reports[0].metrics if "/" not in name]
    table = _table("epoch", *names, "seconds", "decision", left=("decision",))
    best = trial.best()
    for each in trial.reports:
        values = [f"{each.metrics.get(name, math.nan):.4g}" for name in names]
        style = "bold" if best is not None and each.epoch == best.epoch else ""
        seconds = f"{each.seconds:.1f}"
        table.add_row(f"{each.epoch}/{each.epochs}", *values, seconds, trial.decisions[each.epoch], style=style)
    out.print()
    out.print(table)


def print_winner(run: Run, winner: Ranked, folder: str, out: Console) -> None:
    """Print the winner: its metrics beside the majority baseline, overall and per attribute, its lead and
    configuration."""
    entry = overview(run)
    epochs = winner.config.get("train", {}).get("epochs", "?")
    state = f"{final(entry['counts'])} of {entry['trials']} trials final"
    out.print(f"[bold]trial {winner.trial}, epoch {winner.epoch} of {epochs}[/] of {escape(run.location)} ({state})")
    accuracy, majority = winner.metrics.get("val_accuracy", math.nan), ranking.majority_accuracy(run.manifest)
    baseline = f"{_points(accuracy - majority)} points on the majority baseline ({words.percent(majority)} %)"
    loss = f"val_loss [bold]{words.number(winner.val_loss)}[/]"
    out.print(f"{loss}, val_accuracy [bold]{words.percent(accuracy)} %[/]: {baseline}")
    others = [name for name in ("val_balanced_accuracy", "val_exact_match") if name in winner.metrics]
    if others:
        out.print(", ".join(f"{name} {words.percent(winner.metrics[name])} %" for name in others))
    lead = ranking.lead(run)
    if lead is None:
        out.print("no runner-up: no other trial has a finite val_loss")
    else:
        second = lead.runner_up
        loss = f"val_loss {words.number(second.val_loss)} ({lead.val_loss:+.4f})"
        share = second.metrics.get("val_accuracy", math.nan)
        points = f"val_accuracy {words.percent(share)} % ({_points(-lead.val_accuracy)} points)"
        out.print(f"runner-up: trial {second.trial}, epoch {second.epoch}: {loss}, {points}")
    out.print()
    table = _table("attribute", "correct", "accuracy", "majority", "gain", left=("attribute",))
    table.add_column("val images of each class")
    for row in ranking.attribute_table(run.manifest, winner.metrics):
        images = ", ".join(f"{name} {count}" for name, count in zip(row.classes, row.val_counts, strict=True))
        correct = f"{row.correct}/{row.images}" if math.isfinite(row.accuracy) else "-"
        shares = (words.percent(row.accuracy), words.percent(row.majority_accuracy), _points(row.gain))
        table.add_row(escape(row.name), correct, *shares, escape(images))
    out.print(table)
    out.print()
    _print_config(run, winner.config, out)
    out.print()
    out.print(f"promoted to {folder}", markup=False, soft_wrap=True)


def _print_config(run: Run, config: dict[str, Any], out: Console) -> None:
    sampled = set(words.varying(run.manifest))
    out.print("configuration (* sampled)", style="dim")
    for section, values in config.items():
        fields = values.items() if isinstance(values, dict) else [("", values)]
        for name, value in fields:
            dotted = f"{section}.{name}".rstrip(".")
            shown = "null" if value is None else f"{value:.6g}" if isinstance(value, float) else value
            line = f"{'*' if dotted in sampled else ' '} {dotted:<24} {shown}"
            out.print(printable(line), markup=False, soft_wrap=True)


def _table(*heads: str, left: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    return table


def _points(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}" if math.isfinite(share) else "-"  # + 0.0: never "-0.00"
