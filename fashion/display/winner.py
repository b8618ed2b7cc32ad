"""What `best` says: the promoted trial first, then what it was tried with; as JSON values and as a page."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fashion.display import rows as words
from fashion.display.certainty import certainty_json, certainty_lines, disagreement_lines
from fashion.display.pages import final, overview, print_config, table
from fashion.display.reading.refit import print_refit
from fashion.errors import printable
from fashion.reading.certainty import Certainty
from fashion.record import ranking
from fashion.record.cards.refit_words import refit_sentences, unseen
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial import metrics_to_json, trained_on_val
from fashion.record.validate import fully_labelled


def winner_json(run: Run, promoted: Ranked, folder: str | None, found: Certainty) -> dict[str, Any]:
    """What `best` prints as JSON values. Shares are in [0, 1], losses in nats; a positive lead favours the winner, and
    `tied` holds the runner-up where that is within noise.

    Of a trial that was trained on the validation images no validation metric is told, and `refit` says so.

    `promoted` may be another trial or epoch than the best: then `runner_up` is null. `best` tells which one that is.
    `folder` is where it was promoted to, None where that was not possible.
    """
    best = ranking.best(run)
    won = (promoted.trial, promoted.epoch) == (best.trial, best.epoch)
    lead = ranking.lead(run) if won else None
    runner_up = None
    if lead is not None:
        ahead = metrics_to_json({"val_loss": lead.val_loss, "val_accuracy": lead.val_accuracy})
        runner_up = {"trial": lead.runner_up.trial, "epoch": lead.runner_up.epoch, "ahead_by": ahead}
    attributes = []
    for row in ranking.attribute_table(run.manifest, unseen(promoted.metrics, trained_on_val(promoted.config))):
        shares = {"accuracy": row.accuracy, "gain": row.gain}
        attributes.append({**vars(row), **metrics_to_json(shares)})
    return {
        "run": run.name,
        "trial": promoted.trial,
        "epoch": promoted.epoch,
        "metrics": metrics_to_json(unseen(promoted.metrics, trained_on_val(promoted.config))),
        **({"refit": refit_sentences(run.manifest)} if trained_on_val(promoted.config) else {}),
        "majority_accuracy": ranking.majority_accuracy(run.manifest),
        **_counted(run),
        "attributes": attributes,
        "best": {"trial": best.trial, "epoch": best.epoch, "val_loss": best.val_loss},
        "runner_up": runner_up,
        "config": promoted.config,
        "promoted": folder,
        **certainty_json(promoted, found),
    }


def _counted(run: Run) -> dict[str, int]:
    images = fully_labelled(run.manifest, "val")
    return {} if images is None else {"fully_labelled": images}


def print_winner(
    run: Run, promoted: Ranked, folder: str | None, out: Console, found: Certainty, everything: bool = False
) -> None:
    """Print what was promoted: its metrics beside the majority baseline, overall and per attribute, the runner-up, how
    sure all that is, and what was sampled for it; with `everything` its whole configuration, how often each class
    occurs, and which trials are the best by other metrics."""
    if trained_on_val(promoted.config):
        print_refit(run, promoted, folder, out)
        return
    entry = overview(run)
    state = f"{final(entry['counts'])} of {entry['trials']} trials final"
    out.print(f"{_named(run, promoted)} ({state})", soft_wrap=True)
    accuracy, majority = promoted.metrics.get("val_accuracy", math.nan), ranking.majority_accuracy(run.manifest)
    baseline = f"(majority baseline {words.percent(majority)} %, {_points(accuracy - majority)} points)"
    out.print(f"{_measured(promoted)} {baseline}")
    if "val_loss_se" in promoted.metrics:
        out.print(_over_folds(run, promoted), soft_wrap=True)
    others = [name for name in ("val_balanced_accuracy", "val_exact_match") if name in promoted.metrics]
    if others:
        told = {"val_exact_match": _fully_labelled(run)}
        out.print(", ".join(f"{name} {words.percent(promoted.metrics[name])} %{told.get(name, '')}" for name in others))
    out.print(_beside(run, promoted))
    for line in [*certainty_lines(run, promoted, found), *(disagreement_lines(found) if everything else ())]:
        out.print(printable(line), markup=False)
    out.print()
    out.print(_attributes(run, promoted))
    if everything:
        _print_classes(run, promoted, out)
    out.print()
    if everything:
        print_config(run, promoted.config, out)
    else:
        _print_sampled(run, promoted.config, out)
    if folder is not None:
        out.print()
        out.print(f"promoted to {folder}", markup=False, soft_wrap=True)


def print_winner_again(run: Run, promoted: Ranked, out: Console) -> None:
    """One line on what was promoted before and is now to be used."""
    if trained_on_val(promoted.config):
        out.print(_named(run, promoted), soft_wrap=True)
        return
    out.print(f"{_named(run, promoted)}: {_measured(promoted)}", soft_wrap=True)


def _named(run: Run, promoted: Ranked) -> str:
    epochs = promoted.config.get("train", {}).get("epochs", "?")
    return f"[bold]trial {promoted.trial}, epoch {promoted.epoch} of {epochs}[/] of {escape(printable(run.location))}"


def _measured(promoted: Ranked) -> str:
    accuracy = promoted.metrics.get("val_accuracy", math.nan)
    return f"val_loss [bold]{words.number(promoted.val_loss)}[/], val_accuracy [bold]{words.percent(accuracy)} %[/]"


def _over_folds(run: Run, promoted: Ranked) -> str:
    """The standard error of val_loss, and each fold's own."""
    folds = [value for name, value in promoted.metrics.items() if name.startswith("val_loss/fold_")]
    each = ", ".join(words.number(value) for value in folds)
    error = words.number(promoted.metrics["val_loss_se"])
    return f"over out-of-fold predictions of {len(folds)} folds: standard error {error}; of each fold {each}"


def _fully_labelled(run: Run) -> str:
    """How many images an exact match is counted over, where that is not all of them."""
    images = fully_labelled(run.manifest, "val")
    return "" if images is None else f" (of {images:,} fully labelled images)"


def _beside(run: Run, promoted: Ranked) -> str:
    """How far the trial is from the best other one."""
    best, lead = ranking.best(run), ranking.lead(run)
    if (promoted.trial, promoted.epoch) != (best.trial, best.epoch):
        other, what = best, "the best is"
    elif lead is None:
        return "no runner-up: no other trial has a finite val_loss"
    else:
        other, what = lead.runner_up, "runner-up"
    share = other.metrics.get("val_accuracy", math.nan)
    loss = f"val_loss {words.number(other.val_loss)} ({other.val_loss - promoted.val_loss:+.4f})"
    points = _points(share - promoted.metrics.get("val_accuracy", math.nan))
    return f"{what} trial {other.trial}, epoch {other.epoch}: {loss}, accuracy {words.percent(share)} % ({points})"


def _attributes(run: Run, promoted: Ranked) -> Table:
    found = table("attribute", "correct", "accuracy %", "majority %", "gain", left=("attribute",))
    found.columns[0].no_wrap = False  # a long name takes two lines before the figures yield
    found.columns[0].overflow = "fold"
    for row in ranking.attribute_table(run.manifest, promoted.metrics):
        correct = f"{row.correct}/{row.images}" if math.isfinite(row.accuracy) else "-"
        shares = (words.percent(row.accuracy), words.percent(row.majority_accuracy), _points(row.gain))
        found.add_row(escape(printable(row.name)), correct, *shares)
    return found


def _print_classes(run: Run, promoted: Ranked, out: Console) -> None:
    out.print()
    out.print("validation images of each class", style="dim")
    for row in ranking.attribute_table(run.manifest, promoted.metrics):
        images = ", ".join(f"{name} {count}" for name, count in zip(row.classes, row.val_counts, strict=True))
        out.print(printable(f"  {row.name}: {images}"), markup=False, soft_wrap=True)


def _print_sampled(run: Run, config: dict[str, Any], out: Console) -> None:
    fields = words.varying(run.manifest)
    out.print("sampled (--all: every field)" if fields else "nothing was sampled (--all: every field)", style="dim")
    for name in fields:
        value = words.field_value(config, name)
        if value is not None:
            out.print(printable(f"  {name:<24} {words.exact(value)}"), markup=False, soft_wrap=True)


def _points(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}" if math.isfinite(share) else "-"  # + 0.0: never "-0.00"
