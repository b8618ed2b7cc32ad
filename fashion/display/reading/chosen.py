"""The trials that `show --where` and `--sort` choose, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from fashion.display import rows as words
from fashion.display.columns import STYLES
from fashion.display.tables import View, trial_table
from fashion.errors import printable
from fashion.reading.trial_columns import TrialColumns, varying
from fashion.record.run import Run
from fashion.record.scheduler import settings_of
from fashion.schedulers.metrics import METRICS

# What the table shows anyway, whichever columns the user has named.
SHOWN = ("trial", "status", "val_loss", "epochs", "epochs_done", "best_epoch", "train.epochs")


@dataclass(frozen=True)
class ChosenTrials:
    """numbers: in the order in which they are shown. named: the columns that the condition and the order look at.
    where: the condition as it was typed, empty for none."""

    numbers: tuple[int, ...]
    named: tuple[str, ...]
    where: str = ""


def print_chosen(run: Run, columns: TrialColumns, chosen: ChosenTrials, out: Console, most: int | None) -> None:
    """Print the chosen trials, at most `most` of them, with a column for each that was named."""
    settings = settings_of(run)
    fields = varying(run.manifest)
    everything = [words.row(run.trials[number], fields) for number in sorted(run.trials)]
    extra = [name for name in chosen.named if name not in (*SHOWN, *fields) and not _has_column(name)]
    by_number = {each.number: each for each in everything}
    shown = [
        replace(by_number[number], values={**by_number[number].values, **_values(columns, number, extra)})
        for number in chosen.numbers[:most]
    ]
    head = f"{len(chosen.numbers)} of {len(everything)} recorded trials"
    told = f"{head} match {chosen.where}" if chosen.where else head
    out.print(Text(printable(run.location), "dim"), soft_wrap=True)
    out.print(Text(printable(told), "bold"), soft_wrap=True)
    if not shown:
        for line in _values_there(columns, chosen):
            out.print(printable(line), markup=False, soft_wrap=True)
        return
    view = View(
        run.name, run.location, run.total_trials, everything, fields, (), settings.compare, settings.metric,
        bars=out.is_terminal, ascii=not out.encoding.lower().startswith("utf"),
    )  # fmt: skip
    named = [*map(printable, extra), *(name for name in chosen.named if name in fields)]
    order = [*named, *(name for name in words.by_importance(fields, everything) if name not in named)]
    out.print()
    for part in trial_table(view, order, shown, out.width):
        out.print(part, markup=False)
    if len(shown) < len(chosen.numbers):
        left = [by_number[number] for number in chosen.numbers[len(shown) :]]
        tally = words.counts_text(words.counts(left, 0))
        out.print(f"and {len(left)} more: {tally} (--all shows them)", style=STYLES["waiting"])


def _has_column(name: str) -> bool:
    return name in METRICS and bool(METRICS[name].column)


def _values(columns: TrialColumns, number: int, names: Sequence[str]) -> dict[str, object]:
    return {printable(name): columns.rows[number][name] for name in names}


def _values_there(columns: TrialColumns, chosen: ChosenTrials) -> list[str]:
    """What the columns of text that were named hold, for one who has mistyped a value."""
    lines = []
    for name in dict.fromkeys(chosen.named):
        if values := columns.values(name):
            lines.append(f"{name}: {words.listed(values, 60)}")
    return lines
