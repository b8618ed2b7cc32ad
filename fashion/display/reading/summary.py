"""What `run` says at its end: the winner and how sure, what mattered most, and what it cost."""

from __future__ import annotations

import math

from fashion.display import rows as words
from fashion.display.certainty import certainty_lines
from fashion.errors import printable
from fashion.reading.summary import SweepSummary
from fashion.record.run import Run


def summary_lines(run: Run, found: SweepSummary) -> list[str]:
    """Plain text: the winner, how sure that is in the words of `best`, what mattered, and the cost."""
    sure = certainty_lines(run, found.winner, found.certainty)
    lines = [_winner(found), *(f"  {line}" for line in sure), _mattered(found), _cost(found)]
    return [printable(line) for line in lines]


def _winner(found: SweepSummary) -> str:
    winner = found.winner
    epochs = winner.config.get("train", {}).get("epochs", "?")
    accuracy = words.percent(winner.metrics.get("val_accuracy", math.nan))
    loss = words.number(winner.val_loss)
    return f"Winner: trial {winner.trial}, epoch {winner.epoch} of {epochs}: val_loss {loss}, val_accuracy {accuracy} %"


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
    trials, epochs = (
        f"{number} {noun}" if number == 1 else f"{number} {noun}s"
        for number, noun in ((cost.trials, "trial"), (cost.epochs, "epoch"))
    )
    return f"Cost: {trials}, {epochs}, {words.duration(cost.seconds)} of training{speed}"
