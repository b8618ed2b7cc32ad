"""A run and a trial, as JSON values and as pages on a terminal; from the record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from fashion.display import rows as words
from fashion.display.rows import Row
from fashion.display.tables import View, picture
from fashion.errors import printable
from fashion.record.cards.refit_words import NO_SCORE
from fashion.record.manifest import versions_in_words
from fashion.record.run import Run
from fashion.record.scheduler import scheduler_of
from fashion.record.trial import metrics_to_json, trained_on_val

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
    """A trial as JSON values; if `reports` is set with every epoch, where its attempts ran, and what it missed at the
    rung that stopped it."""
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
        missed = scheduler_of(run).missed.get(number) if trial.status == "stopped" else None
        entry["stopped_at"] = vars(missed) if missed else None
        entry["slots"] = [vars(use) for use in trial.slots]
        entry["reports"] = [{**each.to_json(), "decision": trial.decisions[each.epoch]} for each in trial.reports]
    return entry


def run_json(run: Run, numbers: Sequence[int] | None = None) -> dict[str, Any]:
    """What `show` prints as JSON values: the overview, the rungs and every trial, or those of the given numbers in
    their order."""
    rungs = [vars(state) for state in scheduler_of(run).rungs()]
    chosen = sorted(run.trials) if numbers is None else numbers
    return {**overview(run), "rungs": rungs, "recorded": [trial_json(run, number) for number in chosen]}


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
    if any(trained_on_val(trial.config) for trial in run.trials.values()):
        out.print(f"{NO_SCORE}.", soft_wrap=True)
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
