"""What `run` says at its end: the winner and how sure, what mattered most, and what it cost."""

from __future__ import annotations

import math

from fashion.display import rows as words
from fashion.errors import printable
from fashion.reading.summary import SweepSummary


def summary_lines(found: SweepSummary) -> list[str]:
    """Four sentences of plain text, one to a line."""
    return [printable(line) for line in (_winner(found), _sure(found), _mattered(found), _cost(found))]


def _winner(found: SweepSummary) -> str:
    winner = found.winner
    epochs = winner.config.get("train", {}).get("epochs", "?")
    accuracy = words.percent(winner.metrics.get("val_accuracy", math.nan))
    loss = words.number(winner.val_loss)
    return f"Winner: trial {winner.trial}, epoch {winner.epoch} of {epochs}: val_loss {loss}, val_accuracy {accuracy} %"


def _sure(found: SweepSummary) -> str:
    certainty = found.certainty
    if certainty.runner_up is None or certainty.val_loss is None:
        return f"How sure: unknown, {certainty.unknown}"
    each, number = certainty.val_loss, certainty.runner_up.trial
    ends = f"95 % interval {each.low:+.4f} to {each.high:+.4f}"
    next_one = f"trial {number}, the next one, whose val_loss is {each.difference:.4f} higher ({ends})"
    return f"How sure: better than {next_one}" if each.clear else f"How sure: can't be told from {next_one}"


def _mattered(found: SweepSummary) -> str:
    if found.importance is None:
        return f"What mattered most: {found.unimportant}"
    share = f"{100 * found.importance.share:.0f} % of the order of the trials"
    if not found.importance.clear:
        return f"What mattered most: can't be told from these trials ({found.importance.field} goes with {share})"
    return f"What mattered most: {found.importance.field}, which goes with {share}"


def _cost(found: SweepSummary) -> str:
    cost = found.cost
    speed = f", {cost.images_per_second:.0f} images/s" if math.isfinite(cost.images_per_second) else ""
    return f"Cost: {cost.trials} trials, {cost.epochs} epochs, {words.duration(cost.seconds)} of training{speed}"
