"""A run and a trial, as JSON values and as pages on a terminal; from the record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fashion.display import rows as words
from fashion.display.rows import Row
from fashion.display.tables import View, picture, rung_name
from fashion.errors import printable
from fashion.record.manifest import versions_in_words
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
        "origin": {"run": trial.origin[0], "trial": trial.origin[1]} if trial.origin else None,
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
        missed=scheduler.missed,
        bars=out.is_terminal,
        ascii=not out.encoding.lower().startswith("utf"),
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
    scheduler = scheduler_of(run)
    if trial.status == "stopped" and (missed := scheduler.missed.get(number)):
        where = rung_name(missed.progress, scheduler.compare)
        needed = f"{words.number(missed.value)}, and {words.number(missed.needed)} was needed"
        out.print(f"at {where} its {scheduler.metric} was {needed}")
    if trial.origin:
        out.print(printable(f"reused: trained as trial {trial.origin[1]} of {trial.origin[0]}"), markup=False)
    for note in trial.notes:
        out.print(f"note: {printable(note)}", markup=False)
    for attempt, changed in trial.versions.items():
        words_of_it = versions_in_words(run.manifest, changed)
        text = f"attempt {attempt} under other versions than the run began with: {words_of_it}"
        out.print(printable(text), markup=False)
    print_config(run, trial.config, out)
    if not trial.reports:
        out.print("no epoch reported yet")
        return
    names = [name for name in trial.reports[0].metrics if "/" not in name]
    epochs = table("epoch", *names, "seconds", "decision", left=("decision",))
    best = trial.best()
    for each in trial.reports:
        values = [f"{each.metrics.get(name, math.nan):.4g}" for name in names]
        style = "bold" if best is not None and each.epoch == best.epoch else ""
        seconds = f"{each.seconds:.1f}"
        epochs.add_row(f"{each.epoch}/{each.epochs}", *values, seconds, trial.decisions[each.epoch], style=style)
    out.print()
    out.print(epochs)


def print_config(run: Run, config: dict[str, Any], out: Console) -> None:
    """Print every field of a recorded configuration, with a mark at what the spec samples."""
    sampled = set(words.varying(run.manifest))
    out.print("configuration (* sampled)", style="dim")
    for section, values in config.items():
        fields = values.items() if isinstance(values, dict) else [("", values)]
        for name, value in fields:
            dotted = f"{section}.{name}".rstrip(".")
            line = f"{'*' if dotted in sampled else ' '} {dotted:<24} {words.exact(value)}"
            out.print(printable(line), markup=False, soft_wrap=True)


def table(*heads: str, left: tuple[str, ...]) -> Table:
    """An empty table without lines; the columns of the heads in `left` begin there, the others end at the right."""
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in heads:
        found.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    return found
