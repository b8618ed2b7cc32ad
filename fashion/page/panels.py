"""The page's first panels: the answer, the leaderboard, what mattered, and several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fashion.display.rows import Row, counts, counts_text, duration, field_value, short
from fashion.page.charts import curve_chart, importance_chart
from fashion.page.gather import PageRun
from fashion.page.html import Markup, joined, number_range, percent, percent_range, table, tag, text
from fashion.page.payload import distinct_names
from fashion.reading.compare import Pairing, Side, pairings
from fashion.reading.cost import cost_of
from fashion.record.cards.refit_words import refit_sentences
from fashion.record.trial import trained_on_val

LEADERS = 15  # trials on the leaderboard


def answer_sentences(run: PageRun) -> list[str]:
    """What the sweep found, how sure that is, and what to expect."""
    state = counts(run.rows, run.total)
    found = [f"{counts_text(state)} of {run.total} trials."]
    if run.running:
        found[0] += " The sweep is running."
    if run.winner is None:
        failed = [row.reason for row in run.rows if row.status == "failed" and row.reason]
        reason = f" The first failure: {failed[0]}." if failed else ""
        return [f"There is no winner: no trial has reported a finite val_loss.{reason}", *found]
    if trained_on_val(run.winner.config):
        return [*refit_sentences(run.manifest), *found]
    accuracy = run.winner.metrics.get("val_accuracy", math.nan)
    chosen = ", ".join(f"{run.labels[name]} {short(field_value(run.winner.config, name))}" for name in run.fields[:4])
    first = f"Trial {run.winner.trial} at epoch {run.winner.epoch} has the lowest val_loss, {run.winner.val_loss:.4f}"
    first += f", and {percent(accuracy)} of the validation labels right" if math.isfinite(accuracy) else ""
    return [first + (f" ({chosen})." if chosen else "."), _tied_sentence(run), _corrected_sentence(run), *found]


def _tied_sentence(run: PageRun) -> str:
    sure = run.certainty
    if sure is None or not sure.tied:
        return f"How sure that is can't be told: {_untold(run)}."
    others = sorted(sure.tied[1:])
    if len(sure.trials) < 2:
        return "There is no other trial to compare it with."
    if not others:
        return (
            f"It is better than every other trial, beyond what chance does to {sure.images:,} validation images (5 %)."
        )
    named = ", ".join(map(str, others[:6])) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
    word = "trial" if len(others) == 1 else "trials"
    return f"It can't be told from {len(others)} other {word} at 5 % on {sure.images:,} validation images: {named}."


def _corrected_sentence(run: PageRun) -> str:
    sure = run.certainty
    if sure is None or not sure.corrected or len(sure.trials) < 2:
        return ""
    return (
        f"The best of {len(sure.trials)} looks better than it is: on new images expect about "
        f"{percent(sure.corrected['val_accuracy'].value)} and a val_loss of {sure.corrected['val_loss'].value:.4f}."
    )


def _untold(run: PageRun) -> str:
    return (run.certainty.untold if run.certainty else "") or "the winner's predictions are missing"


def answer_panel(run: PageRun) -> Markup:
    sentences = [sentence for sentence in answer_sentences(run) if sentence]
    said = [tag("p", each) for each in sentences]
    return tag("section", tag("h2", "The answer"), *said, class_="answer", id="answer")


def leaders(run: PageRun, most: int = LEADERS) -> list[Row]:
    """The trials with a finite val_loss, the best first."""
    return sorted((row for row in run.rows if math.isfinite(row.best)), key=lambda row: row.order)[:most]


def leaderboard_panel(run: PageRun) -> Markup:
    rows = leaders(run)
    if not rows:
        return tag("section", tag("h2", "Leaderboard"), tag("p", "No trial can be ranked yet."), id="leaderboard")
    ends = [each for row in rows if (each := run.interval(row.number, "val_loss"))]
    low = min([row.best for row in rows] + [each.low for each in ends])
    high = max([row.best for row in rows] + [each.high for each in ends])
    cells = [
        (
            f"trial {row.number}", f"{row.best:.4f}", number_range(run.interval(row.number, "val_loss")),
            _bar(row, run, low, high), percent(row.accuracy), percent_range(run.interval(row.number, "val_accuracy")),
            percent(row.metrics.get("val_balanced_accuracy", math.nan)),
            percent(row.metrics.get("val_exact_match", math.nan)),
            f"{row.epoch}/{row.epochs}", row.status,
        )
        for row in rows
    ]  # fmt: skip
    head = ("trial", "val_loss", "95 % interval", "interval drawn", "accuracy", "95 % interval", "balanced",
            "exact match", "epochs", "status")  # fmt: skip
    classes = [
        " ".join(["tied"] * (row.number in run.tied) + ["winner"] * (index == 0)) for index, row in enumerate(rows)
    ]
    said = "Shaded trials can't be told from the winner at 5 %, all comparisons allowed for."
    if not run.tied:
        said = f"Which trials are tied is not known: {_untold(run)}."
    elif run.certainty is not None and run.certainty.untold:
        said += f" No intervals of some: {run.certainty.untold}."
    ranked = sum(math.isfinite(row.best) for row in run.rows)
    more = f" The first {LEADERS} of {ranked}." if ranked > LEADERS else ""
    return tag("section", tag("h2", "Leaderboard"), tag("p", said + more, class_="dim"),
               table(head, cells, "Leaderboard", left=(0, 3, 9), classes=classes), id="leaderboard")  # fmt: skip


def _bar(row: Row, run: PageRun, low: float, high: float) -> Markup:
    """A trial's loss as a mark, with its interval, on the leaderboard's own scale."""

    def x(value: float) -> float:
        return 6 + 168 * (value - low) / ((high - low) or 1)

    interval = run.interval(row.number, "val_loss")
    line = "" if interval is None else (
        f'<line class="range" x1="{x(interval.low):.1f}" x2="{x(interval.high):.1f}" y1="8" y2="8"/>')  # fmt: skip
    won = run.winner is not None and row.number == run.winner.trial
    mark = f'<rect class="mark{"-winner" if won else ""}" x="{x(row.best) - 3.5:.1f}" y="4.5" width="7" height="7"/>'
    return Markup(f'<svg class="interval" viewBox="0 0 180 16" aria-hidden="true">{line}{mark}</svg>')


def winner_curves_panel(run: PageRun) -> Markup:
    drawings = [drawing for kind in ("loss", "accuracy") if (drawing := curve_chart(run.winner_reports, kind))]
    if not drawings or run.winner is None:
        return Markup("")
    return tag(
        "section", tag("h2", f"The winner's curves: trial {run.winner.trial}"),
        tag("div", *(tag("div", Markup(each.svg())) for each in drawings), class_="cards two"),
    )  # fmt: skip


def mattered_panel(run: PageRun) -> Markup:
    if not run.fields:
        return tag("section", tag("h2", "What mattered"), tag("p", "The sweep samples no field."), id="mattered")
    cards = []
    for found in run.mattered:
        words = f"{found.trials} trial{'' if found.trials == 1 else 's'} {found.place}"
        if not found.fields:
            cards.append(tag("div", tag("h3", words), tag("p", f"Can't be told from these trials: {found.why}.")))
            continue
        told = [run.labels.get(each.field, each.field) for each in found.fields if each.told]
        verdict = f"Matters beyond chance: {', '.join(told)}." if told else "Can't be told from these trials."
        drawing = importance_chart(found, run.labels)
        cards.append(tag("div", tag("h3", words), Markup(drawing.svg()), tag("p", verdict)))
    method = (
        "How much each field has to do with being among the best quarter of the trials (PED-ANOVA), as a share of the "
        "sum over all fields, with 95 % intervals from random halves of the trials. Grey: not told from chance. Trials "
        "that were stopped later count at each rung that they reached; a conditional field counts where it is set."
    )
    return tag("section", tag("h2", "What mattered"), tag("p", method, class_="dim"),
               tag("div", *cards, class_="cards"), id="mattered")  # fmt: skip


def side_by_side_panel(runs: Sequence[PageRun]) -> Markup:
    """Several runs: a row each, what differs in their specs, and the winners' differences on the same images."""
    names = distinct_names(runs)
    rows = [
        (
            name, f"trial {run.winner.trial}" if run.winner else "–",
            f"{run.winner.val_loss:.4f}" if run.winner else "–",
            number_range(run.interval(run.winner.trial, "val_loss")) if run.winner else "–",
            percent(run.winner.metrics.get("val_accuracy", math.nan)) if run.winner else "–",
            percent_range(run.interval(run.winner.trial, "val_accuracy")) if run.winner else "–",
            len(run.tied) or "–", len(run.rows),
            duration(sum(row.seconds * row.epoch for row in run.rows if math.isfinite(row.seconds))),
        )
        for name, run in zip(names, runs, strict=True)
    ]  # fmt: skip
    head = ("run", "winner", "val_loss", "95 % interval", "accuracy", "95 % interval", "tied", "trials", "trained for")
    parts = [tag("h2", "Side by side"), table(head, rows, "Runs", left=(0, 1))]
    for pair in pairs_of(runs, names):
        parts.append(tag("h3", f"Winner of {pair.label} less winner of {names[0]}, on the same images"))
        parts.append(_differences(pair))
    parts.append(tag("h3", "What differs in the specs"))
    specs = [_flat(run.manifest["spec"]) for run in runs]
    fields = [key for key in dict.fromkeys(key for spec in specs for key in spec)
              if len({spec.get(key, "–") for spec in specs}) > 1]  # fmt: skip
    cells = [(field, *(spec.get(field, "–") for spec in specs)) for field in fields]
    parts.append(table(("field", *names), cells, "What differs in the specs", left=range(len(runs) + 1)))
    return tag("section", *parts, id="runs")


def pairs_of(runs: Sequence[PageRun], names: Sequence[str]) -> list[Pairing]:
    """The winners of the other runs against that of the first one; none where that has no winner."""
    sides = [
        Side(name, run.opened.record, run.winner, cost_of(run.opened.record, run.winner, run.trials), run.predictions,
             run.unread)
        for name, run in zip(names, runs, strict=True)
        if run.winner is not None
    ]  # fmt: skip
    return pairings(sides) if runs[0].winner is not None else []


def _differences(pair: Pairing) -> Markup:
    if pair.unpaired:
        return tag("p", f"They can't be compared: {pair.unpaired}.")
    rows = []
    for each in pair.differences:
        loss, found = each.metric == "val_loss", each.difference
        value = f"{found.value:+.4f}" if loss else f"{100 * found.value:+.2f} points"
        ends = f"{found.low:+.4f} to {found.high:+.4f}" if loss else (
            f"{100 * found.low:+.2f} to {100 * found.high:+.2f} points")  # fmt: skip
        better = (found.value < 0) == loss
        verdict = "can't be told apart" if found.within_noise else "better" if better else "worse"
        rows.append((each.metric, value, ends, verdict))
    head = ("metric", "difference", f"{100 * pair.differences[0].level:.3g} % interval", "verdict")
    return table(head, rows, "Paired differences", left=(0, 3))


def _flat(spec: object, prefix: str = "") -> dict[str, str]:
    if not isinstance(spec, dict):
        return {prefix: str(spec)}
    if not spec or any(key in spec for key in ("choice", "uniform", "loguniform", "int", "when", "switch")):
        return {prefix: ", ".join(f"{key} {value}" for key, value in spec.items())}
    inner = [_flat(each, f"{prefix}.{key}".strip(".")) for key, each in spec.items()]
    return {name: value for fields in inner for name, value in fields.items()}


def heading(runs: Sequence[PageRun]) -> Markup:
    title = " and ".join(distinct_names(runs))
    places = joined(tag("span", run.opened.location, class_="dim") for run in runs[:1]) if len(runs) == 1 else text("")
    return joined([tag("h1", title), places])
