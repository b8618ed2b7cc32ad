"""Files of a run's page: the page itself, its static panels as pictures and tables, and the challenge's report."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from fashion.display.rows import duration, exact
from fashion.errors import Problem, UserError
from fashion.files import write_atomic
from fashion.page import charts
from fashion.page.attributes import AttributeResult, attribute_results
from fashion.page.details import cost_rows
from fashion.page.drawing import Drawing
from fashion.page.gather import PageRun
from fashion.page.panels import answer_sentences, leaders
from fashion.record.manifest import versions_of
from fashion.statistics.results import Interval

Rows = Sequence[Sequence[object]]


def write_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises UserError where it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        fix = "Name another place with --out"
        raise UserError(Problem(str(path), "can't be written", str(error.strerror or error), fix)) from error


def write_static(run: PageRun, folder: Path) -> list[Path]:
    """Write every static panel as NAME.svg and NAME.png, and the tables as NAME.csv. Returns the files."""
    written = []
    for name, drawing in _drawings(run):
        for path, content in (
            (folder / f"{name}.svg", drawing.svg(alone=True).encode()),
            (folder / f"{name}.png", drawing.png()),
        ):
            write_file(path, content)
            written.append(path)
    for name, rows in _tables(run):
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        write_file(folder / f"{name}.csv", text.getvalue().encode())
        written.append(folder / f"{name}.csv")
    return written


def _results(run: PageRun) -> list[AttributeResult]:
    return [] if run.predictions is None else attribute_results(run.manifest, run.predictions)[0]


def _drawings(run: PageRun) -> Iterable[tuple[str, Drawing]]:
    rows = leaders(run)
    if rows:
        yield "leaderboard", charts.leaderboard_chart(rows, run)
    for kind in ("loss", "accuracy"):
        drawing = charts.curve_chart(run.winner_reports, kind)
        if drawing is not None:
            yield f"winner_{kind}", drawing
    for place, found in enumerate(run.mattered, start=1):
        if found.fields:
            yield f"mattered_{place}", charts.importance_chart(found, run.labels)
    for place, result in enumerate(_results(run), start=1):
        yield f"reliability_{place}", charts.reliability_chart(result)
    for place, (_, drawing) in enumerate(charts.distribution_charts(run), start=1):
        yield f"classes_{place}", drawing
    slots = charts.slots_chart(run)
    if slots is not None:
        yield "slots", slots


def _tables(run: PageRun) -> Iterable[tuple[str, Rows]]:
    head = ("trial", "status", "epochs_done", "best_epoch", "val_loss", "val_loss_low", "val_loss_high", "val_accuracy",
            "val_accuracy_low", "val_accuracy_high", "tied", *run.fields)  # fmt: skip
    rows: list[Sequence[object]] = [head]
    for row in sorted(run.rows, key=lambda each: each.order):
        loss, accuracy = (run.interval(row.number, metric) for metric in ("val_loss", "val_accuracy"))
        ends = [edge for each in (loss, accuracy) for edge in ((each.low, each.high) if each else ("", ""))]
        rows.append(
            (
                row.number, row.status, row.epoch, row.best_epoch,
                _plain(row.best), *ends[:2], _plain(row.accuracy), *ends[2:],
                row.number in run.tied, *("" if value is None else value for value in row.values.values()),
            )
        )  # fmt: skip
    yield "leaderboard", rows
    fields = [("place", "trials", "field", "share", "low", "high", "told_from_chance")]
    yield "mattered", [*fields, *((found.place, found.trials, each.field, each.share, each.low, each.high, each.told)
                                  for found in run.mattered for each in found.fields)]  # fmt: skip
    results = _results(run)
    yield "attributes", [
        ("attribute", "labels", "missing", "accuracy", "low", "high", "majority_class", "majority_accuracy",
         "balanced_accuracy", "balanced_low", "balanced_high", "temperature", "error_before", "error_after"),
        *((each.name, each.labels, each.missing, *_ends(each.accuracy), each.majority, each.majority_accuracy,
           *_ends(each.balanced),
           each.calibration.temperature, each.calibration.before.ece, each.calibration.after.ece)
          for each in results),
    ]  # fmt: skip
    for place, result in enumerate(results, start=1):
        if result.confusion is not None:
            cells = [(name, *counts) for name, counts in zip(result.classes, result.confusion.tolist(), strict=True)]
            yield f"confusion_{place}", [(f"{result.name} label", *result.classes), *cells]
            continue
        head = ("images", "having", "named", "average_precision", "low", "high", "f1", "f1_low", "f1_high")
        scores = [(name, each.images, each.having, each.named, *_ends(each.average_precision), *_ends(each.f1))
                  for name, each in zip(result.classes, result.scores, strict=True)]  # fmt: skip
        yield f"scores_{place}", [(f"{result.name} class", *head), *scores]


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _plain(value: float) -> object:
    return value if math.isfinite(value) else ""


def markdown(run: PageRun) -> str:
    """The challenge's report of a run: model, loss, curves, parameter count and machine, in Markdown."""
    lines = [f"# {run.name}", "", *(sentence for sentence in answer_sentences(run) if sentence), ""]
    if run.winner is None:
        return "\n".join(lines)
    config = run.winner.config
    model, train = config.get("model", {}), config.get("train", {})
    backbone, weights = (_cell(str(model.get(name, "not recorded"))) for name in ("backbone", "weights"))
    heads = len(run.manifest["attributes"])
    lines += [
        "## Model",
        "",
        f"Backbone {backbone}, weights {weights}, and a linear head for each of {heads} attributes.",
    ]
    lines += [""]
    for each in run.manifest.get("models") or []:
        if each.get("backbone") == model.get("backbone") and isinstance(each.get("parameters"), int):
            lines += [f"Parameters: {each['parameters']:,}.", ""]
            break
    lines += ["## Loss and training", "", "| field | value |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(exact(value))} |" for name, value in train.items()]
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    lines += ["", "## Curves", "", f"| epoch | {' | '.join(names)} |", "|---|---|---|---|---|"]
    for report in run.winner_reports:
        values = [f"{report.metrics.get(name, math.nan):.4f}" for name in names]
        lines.append(f"| {report.epoch} | {' | '.join(values)} |")
    results = _results(run)
    if results:
        lines += ["", "## By attribute", "", "| attribute | accuracy % | 95 % interval | majority % | balanced % |",
                  "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {_cell(each.name)} | {100 * each.accuracy.value:.2f} | {100 * each.accuracy.low:.1f} to "
            f"{100 * each.accuracy.high:.1f} | {100 * each.majority_accuracy:.2f} | {100 * each.balanced.value:.2f} |"
            for each in results
        ]
    nodes = sorted({use.node for trial in run.trials for use in trial.slots})
    named = ", ".join(map(_cell, nodes)) or "not recorded"
    head = "| backbone | trials | epochs | median epoch | in all, over slots |"
    lines += ["", "## Machine", "", f"Nodes: {named}.", "", head, "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(_cell(str(each)) for each in row) + " |" for row in cost_rows(run)]
    winner = next(row for row in run.rows if row.number == run.winner.trial)
    lines += ["", f"The winner's own epochs took {duration(winner.seconds * winner.epoch)}.", "", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in versions_of(run.manifest).items() if version]
    return "\n".join([*lines, f"- data fingerprint {run.manifest['data_fingerprint']}", ""])


def _cell(text: str) -> str:
    """Text that stays within a cell, and is neither HTML nor markup."""
    for sign in "\\`*_|[]":
        text = text.replace(sign, "\\" + sign)
    return text.replace("<", "&lt;").replace("\n", " ")
