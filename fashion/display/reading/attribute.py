"""One attribute of a trial as a page: how good, which classes are taken for which, and whether it knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fashion.display import rows as words
from fashion.errors import printable
from fashion.reading.confusion import Confusion
from fashion.record.ranking import AttributeRow
from fashion.statistics.calibration import Calibration, Reliability, ReliabilityBin
from fashion.statistics.label_scores import LabelScore

NARROWEST = 5  # columns of a predicted class
NAME = 18  # most columns of a class name
MISTAKES = 12  # that are listed where the matrix has no room


@dataclass(frozen=True)
class AttributePage:
    """majority: of the manifest's counts; None for a multi-label attribute. calibration: None with too few labels.
    scores: of each class of a multi-label attribute; empty for others."""

    trial: int
    epoch: int
    location: str
    confusion: Confusion
    majority: AttributeRow | None
    calibration: Calibration | None
    scores: tuple[LabelScore, ...] = ()


def attribute_json(page: AttributePage) -> dict[str, Any]:
    """The page as JSON values. Shares are from 0 to 1, null where nothing was counted; confusion is by true class."""
    found, calibration = page.confusion, page.calibration
    classes: list[dict[str, Any]] = [
        {**each._asdict(), "recall": each.recall, "precision": each.precision} for each in found.classes
    ]
    for each, score in zip(classes, page.scores, strict=False):
        each |= {"average_precision": score.average_precision._asdict(), "f1": score.f1._asdict()}
    entry: dict[str, Any] = {
        "trial": page.trial, "epoch": page.epoch, "attribute": found.attribute, "labels": found.labels,
        "missing": found.missing, "accuracy": found.accuracy, "balanced_accuracy": found.balanced_accuracy,
        "majority": None, "classes": classes,
        "confusion": None if found.counts is None else found.counts.tolist(), "calibration": None,
    }  # fmt: skip
    if page.majority is not None:
        entry["majority"] = {"class": page.majority.majority_class, "accuracy": page.majority.majority_accuracy}
    if calibration is not None:
        entry["calibration"] = {
            "labels": calibration.labels, **_reliability_json(calibration.before),
            "temperature": calibration.temperature,
            "tempered": _reliability_json(calibration.after),
        }  # fmt: skip
    return entry


def _reliability_json(found: Reliability) -> dict[str, Any]:
    return {
        "ece": found.ece,
        "cross_entropy": found.cross_entropy,
        "bins": [each._asdict() for each in found.bins],
    }


def print_attribute(page: AttributePage, out: Console) -> None:
    """Print the page; class names are cut to what fits."""
    found = page.confusion
    where = f"trial {page.trial}, epoch {page.epoch} of {printable(page.location)}"
    out.print(Text(f"{printable(found.attribute)}, {where}", "bold"), soft_wrap=True)
    for line in _headlines(page):
        out.print(line, markup=False)
    out.print()
    out.print(_classes(found, page.scores))
    out.print()
    _print_confusion(found, out)
    if page.calibration is not None:
        out.print()
        _print_calibration(page.calibration, out)


def _headlines(page: AttributePage) -> list[str]:
    found, majority = page.confusion, page.majority
    if found.accuracy is None:
        return ["no validation image has a label of it"]
    text = f"accuracy {words.percent(found.accuracy)} % ({found.right}/{found.labels})"
    text += f", balanced {_share(found.balanced_accuracy)} %"
    lines = [text]
    if majority is not None:
        gain = 100 * (found.accuracy - majority.majority_accuracy)
        always = printable(majority.majority_class)
        lines.append(
            f'always "{always}" would be right in {words.percent(majority.majority_accuracy)} %: {gain:+.2f} points'
        )
    if found.missing:
        lines.append(f"{found.missing} validation images have no label of it and are left out")
    return lines


def _classes(found: Confusion, scores: Sequence[LabelScore]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("class", no_wrap=True)
    for head in ("images", "predicted", "right", "recall %", "precision %"):
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("average precision", "F1") if scores else ():
        table.add_column(head, justify="right", no_wrap=True)
    for index, each in enumerate(found.classes):
        shares = (_share(each.recall), _share(each.precision))
        counts = map(str, (each.images, each.predicted, each.right))
        both = (scores[index].average_precision, scores[index].f1) if scores else ()
        ranges = (f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})" for value in both)
        table.add_row(Text(_cut(each.name, NAME)), *counts, *shares, *ranges)
    return table


def _print_confusion(found: Confusion, out: Console) -> None:
    """The matrix where it fits, else the most frequent mistakes."""
    if found.counts is None:
        out.print("an image may be of several classes: there is no matrix of one against another", style="dim")
        return
    label = min(max(cell_len(printable(each.name)) for each in found.classes), NAME)
    room = (out.width - label) // len(found.classes) - 2
    needed = max(NARROWEST, len(str(found.counts.max())))
    if room < needed:
        _print_mistakes(found, out)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("true \\ predicted" if label >= 16 else "", no_wrap=True)
    for each in found.classes:
        table.add_column(Text(_cut(each.name, min(room, NAME))), justify="right", no_wrap=True)
    for index, row in enumerate(found.counts.tolist()):
        cells = [
            Text(str(count) if count else ".", "bold green" if index == at and count else "" if count else "dim")
            for at, count in enumerate(row)
        ]
        table.add_row(Text(_cut(found.classes[index].name, label)), *cells)
    out.print("images by true class (rows) and predicted class (columns)", style="dim")
    out.print(table)


def _print_mistakes(found: Confusion, out: Console) -> None:
    mistakes = found.mistakes()
    out.print("what is taken for what, the most frequent first", style="dim")
    for each in mistakes[:MISTAKES]:
        out.print(f"{each.images:>6}  {_cut(each.true, NAME)} taken for {_cut(each.predicted, NAME)}", markup=False)
    if len(mistakes) > MISTAKES:
        rest = sum(each.images for each in mistakes[MISTAKES:])
        out.print(f"{rest:>6}  in {len(mistakes) - MISTAKES} other ways (--json has the whole matrix)", style="dim")
    if not mistakes:
        out.print("nothing", style="dim")


def _print_calibration(found: Calibration, out: Console) -> None:
    if found.temperature >= 1.02:
        leaning = "it is too confident"
    elif found.temperature <= 0.98:
        leaning = "it could be more confident"
    else:
        leaning = "as it is"
    before, after = found.before, found.after
    measured = f"expected error {_share(before.ece)} %, cross entropy {words.number(before.cross_entropy)}"
    out.print(f"calibration: {measured}", markup=False)
    measured = f"{_share(after.ece)} %, {words.number(after.cross_entropy)}"
    out.print(f"at temperature {found.temperature:.3g} ({leaning}): {measured}", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in ("says %", "labels", "confident %", "right %", "| tempered", "confident %", "right %"):
        table.add_column(head, justify="right", no_wrap=True)
    for one, other in zip(before.bins, after.bins, strict=True):
        if one.number or other.number:
            table.add_row(f"{100 * one.low:.0f}-{100 * one.high:.0f}", *_bin(one), *_bin(other))
    out.print(table)


def _bin(each: ReliabilityBin) -> tuple[str, str, str]:
    return (str(each.number), _share(each.confidence, 1), _share(each.accuracy, 1))


def _share(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def _cut(name: str, width: int) -> str:
    """A name in at most `width` columns, with `~` where its end is cut off."""
    text = printable(name).replace("\n", " ")
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "~"
