"""How sure one can be of a winner, in plain words and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fashion.reading.certainty import Certainty
from fashion.reading.cost import images_per_second, parameters_of
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.statistics.results import LEAST_IMAGES, Difference, Interval

NAMED = 8  # trials that a line names before it counts them


def certainty_lines(run: Run, promoted: Ranked, found: Certainty) -> list[str]:
    """Of a promoted trial: its accuracy with the interval, what it can't be told from, and what to expect of it."""
    interval = _of(promoted, found).get("val_accuracy")
    if interval is None:
        return [f"how sure this is can't be told: {found.untold or 'only of each best epoch predictions are kept'}"]
    rough = "" if interval.reliable else f"; rough, as a class has fewer than {LEAST_IMAGES}"
    right = f"{_percent(interval.value)} % right, {_percent(interval.low)} to {_percent(interval.high)}"
    lines = [f"{right} with 95 % confidence ({found.images:,} images{rough})"]
    if promoted.trial != found.winner:
        lines += [_beside_winner(promoted.trial, found)] if found.tied else []
    elif len(found.trials) > 1:
        lines.append(_tied(run, found))
        expected = found.corrected["val_accuracy"].value
        lines.append(f"as the best of {len(found.trials)} expect {_percent(expected)} % on new images")
    return [*lines, found.untold] if found.untold else lines


def disagreement_lines(found: Certainty) -> list[str]:
    """One for each metric by which another trial than the winner is the best."""
    lines = []
    for each in found.disagreements:
        gained, lost = _signed(each.metric, each.gains), _signed("val_loss", each.gives_up)
        verdict = "within noise" if each.within_noise else "more than noise"
        lines.append(f"{each.metric}: trial {each.trial} {gained}, {verdict}; val_loss {lost}")
    return lines


def certainty_json(promoted: Ranked, found: Certainty) -> dict[str, Any]:
    """The same and more as JSON values. `interval` is empty where the promoted epoch is not its trial's best."""
    return {
        "interval": _intervals(_of(promoted, found)),
        "tied": list(found.tied),
        "cheapest": found.cheapest,
        "fastest": found.fastest,
        "corrected": _intervals(found.corrected),
        "disagreements": [
            {
                "metric": each.metric,
                "trial": each.trial,
                "gains": vars(each.gains),
                "gives_up": vars(each.gives_up),
                "within_noise": each.within_noise,
            }
            for each in found.disagreements
        ],
        "untold": found.untold,
    }


def _of(promoted: Ranked, found: Certainty) -> dict[str, Interval]:
    told = next((each for each in found.trials if each.trial == promoted.trial), None)
    return told.intervals if told is not None and told.epoch == promoted.epoch else {}


def _intervals(of: dict[str, Interval]) -> dict[str, dict[str, Any]]:
    return {name: each._asdict() for name, each in of.items()}


def _tied(run: Run, found: Certainty) -> str:
    others = sorted(found.tied[1:])
    if not others:
        return "told from every other trial: its val_loss is lower by more than chance explains"
    line = f"can't be told from {_listed(others, len(found.trials) - 1)}"
    if found.cheapest is None:
        return line
    count = parameters_of(run, run.trials[found.cheapest].config) or 0
    size = f"{count / 1e6:.1f} million" if count >= 1e5 else f"{count:,}"
    line += f"; the cheapest of them is {_name(found.cheapest, found)} ({size} parameters)"
    if found.fastest is not None and found.fastest != found.cheapest:
        speed = images_per_second(run, [run.trials[found.fastest]]) or 0
        line += f", the fastest {_name(found.fastest, found)} ({speed:.0f} images/s)"
    return line


def _name(trial: int, found: Certainty) -> str:
    return "this one" if trial == found.winner else f"trial {trial}"


def _listed(numbers: Sequence[int], of: int) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    if len(numbers) > NAMED:
        return f"{len(numbers)} of the other {of} trials"
    return f"trials {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _beside_winner(trial: int, found: Certainty) -> str:
    if trial in found.tied:
        return f"can't be told from trial {found.winner}, which has the lowest val_loss"
    return f"trial {found.winner} has a lower val_loss, by more than chance explains"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _signed(metric: str, found: Difference) -> str:
    if metric.startswith("val_loss"):
        return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    return f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
