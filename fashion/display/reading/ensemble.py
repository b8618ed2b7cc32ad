"""What `best --ensemble` says: who is in it, what it is worth beside the best single model, and what it costs."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from fashion.display import rows as words
from fashion.display.pages import table
from fashion.errors import printable
from fashion.reading.ensembles.found import Ensemble
from fashion.statistics.paired import MetricDifference
from fashion.statistics.results import lower_is_better

PER_ATTRIBUTE = "val_accuracy/"


def print_ensemble(found: Ensemble, asked: int, folder: str, out: Console) -> None:
    """Print an ensemble. asked: for how many picks; folder: where it was promoted to."""
    several = len({member.run.location for member in found.members}) > 1
    few = f" ({asked} were asked for; more would not have helped)" if found.picks < asked else ""
    count = len(found.members)
    noun, picked = "trial" if count == 1 else "trials", f"{found.picks} pick{'' if found.picks == 1 else 's'}"
    out.print(f"[bold]an ensemble of {count} {noun}[/], {picked} of {found.candidates} trials{few}")
    members = table("picked", "trial", "epoch", "backbone", "crop", "val_loss", "val_acc %", left=("backbone",))
    if several:
        members.add_column("run")
    for member in found.members:
        config, metrics = member.chosen.config, member.chosen.metrics
        row = [
            f"{member.count}x",
            str(member.chosen.trial),
            str(member.chosen.epoch),
            escape(printable(str(config.get("model", {}).get("backbone", "-")))),
            str(config.get("data", {}).get("crop", "-")),
            words.number(member.chosen.val_loss),
            words.percent(metrics.get("val_accuracy", float("nan"))),
        ]
        members.add_row(*row, *([escape(printable(member.run.name))] if several else []))
    out.print(members)
    for sentence in found.left_out:
        out.print(printable(f"{sentence}, and can't be a member"), markup=False, soft_wrap=True)
    out.print()
    run, single = found.single
    of = f" of {run.name}" if several else ""
    out.print(printable(f"beside the best single model, trial {single.trial}, epoch {single.epoch}{of}"), markup=False)
    scores = table("metric", "ensemble", "single", "difference", "95 % interval", left=("metric", "95 % interval"))
    for each in found.differences:
        if not each.metric.startswith(PER_ATTRIBUTE) or len(found.differences) < 20:
            scores.add_row(escape(printable(each.metric)), *_cells(each))
    out.print(scores)
    for line in _lines(found):
        out.print(printable(line), markup=False, soft_wrap=True)
    out.print()
    out.print(f"promoted to {folder}", markup=False, soft_wrap=True)


def _lines(found: Ensemble) -> list[str]:
    loss = next((each for each in found.differences if each.metric == "val_loss"), None)
    scaled = ", ".join(f"{name} {value:.2f}" for name, value in found.temperatures.items())
    return [
        f"The ensemble's are of {found.images:,} validation images, each predicted by what was picked without it; the "
        "single model was chosen by these same images, which flatters it, and is not scaled.",
        *([_verdict(loss)] if loss is not None else []),
        f"temperatures: {scaled}",
        _cost(found),
    ]


def _verdict(loss: MetricDifference) -> str:
    if loss.difference.within_noise:
        return "Its val_loss can't be told from the single model's."
    return f"Its val_loss is {'lower' if loss.difference.value < 0 else 'higher'} by more than chance explains."


def _cost(found: Ensemble) -> str:
    count = len(found.members)
    passes = f"{count} passes for each image" if count > 1 else "one pass for each image"
    size = "" if found.parameters is None else f", {found.parameters / 1e6:,.1f} million parameters"
    speed = found.images_per_second
    if speed is None:
        return f"cost: {passes}{size}; how many images/s is not known, as not every member's speed was measured"
    return f"cost: {passes}{size}; {speed:,.1f} images/s if each member takes as long as it did in training"


def _cells(each: MetricDifference) -> list[str]:
    found = each.difference
    if lower_is_better(each.metric):
        ends = f"{found.low:+.4f} to {found.high:+.4f}"
        return [words.number(each.second), words.number(each.first), f"{found.value:+.4f}", ends]
    ends = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    return [f"{words.percent(each.second)} %", f"{words.percent(each.first)} %", f"{100 * found.value:+.2f}", ends]
