"""The page's later panels: the winner by attribute, its mistakes, the classes, the model, the cost, and the record."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.trial import of_its_time
from fashion.display.rows import duration, exact, field_value, short
from fashion.errors import DataError
from fashion.page.attributes import AttributeResult, attribute_results, wrong_answers
from fashion.page.charts import distribution_charts, reliability_chart, slots_chart
from fashion.page.gather import PageRun
from fashion.page.html import Markup, number_range, percent, percent_range, points, table, tag, text
from fashion.record.manifest import versions_of

CONFUSED = 15  # classes up to which every pair of them is shown; of more, the most frequent confusions
WIDEST = 28  # letters of all class names, that have room side by side above a confusion
THUMBNAIL = 128  # pixels of its longer side


def attributes_panel(run: PageRun) -> Markup:
    if run.predictions is None:
        return tag("section", tag("h2", "By attribute"), tag("p", f"Not known: {run.unread}."), id="attributes")
    results, left = attribute_results(run.manifest, run.predictions)
    missing = any(each.missing for each in results)
    rows = [
        (
            each.name, percent(each.accuracy.value), percent_range(each.accuracy),
            f"{each.majority or 'none of them'}: {percent(each.majority_accuracy)}",
            points(each.gain), percent(each.balanced.value), percent_range(each.balanced), f"{each.labels:,}",
            *([f"{each.missing:,}"] if missing else []),
        )
        for each in results
    ]  # fmt: skip
    head = ("attribute", "accuracy", "95 % interval", "majority class of train", "gain, 95 % interval",
            "balanced accuracy", "95 % interval", "labels", *(["missing"] if missing else []))  # fmt: skip
    parts = [tag("h2", f"By attribute: trial {run.predictions.trial} at epoch {run.predictions.epoch}")]
    if results:
        parts.append(table(head, rows, "Accuracy by attribute", left=(0, 3)))
    if any(each.scores for each in results):
        names = ", ".join(each.name for each in results if each.scores)
        parts.append(tag("p", f"An image may have several classes of {names}: each class of an image is a label.",
                         class_="dim"))  # fmt: skip
    parts += [tag("p", left, class_="warn")] if left else []
    if results:
        parts.append(tag("div", *map(_attribute_card, results), class_="cards"))
    return tag("section", *parts, id="attributes")


def _attribute_card(result: AttributeResult) -> Markup:
    drawn = Markup(reliability_chart(result).svg())
    few = f"Too few images for its interval to be relied on: {', '.join(result.few[:8])}." if result.few else ""
    if result.calibration.temperature > 1.05:
        sure = "It is surer than it should be"
    elif result.calibration.temperature < 0.95:
        sure = "It is less sure than it could be"
    else:
        sure = "Its confidence is about right"
    title, counted = _counted(result)
    return tag(
        "div", tag("h3", f"{result.name}: {title}"), counted,
        tag("p", f"{sure}: temperature {result.calibration.temperature:.2f}.", class_="dim"),
        drawn, *([tag("p", few, class_="warn")] if few else []), class_="wide" if result.scores else None,
    )  # fmt: skip


def _counted(result: AttributeResult) -> tuple[str, Markup]:
    """The attribute's classes one by one, under a title."""
    if result.confusion is None:
        return "each class against the rest", _scores(result)
    if len(result.classes) > CONFUSED:
        return "most frequent confusions", _most_confused(result, result.confusion)
    return "rows are labels, columns predictions", _confusion(result, result.confusion)


def _scores(result: AttributeResult) -> Markup:
    """A row for each class of a multi-label attribute. Beside its average precision is what guessing would reach."""
    rows = [
        (
            name, f"{each.having:,} of {each.images:,}", f"{each.named:,}",
            f"{each.average_precision.value:.3f}", number_range(each.average_precision),
            f"{each.having / each.images:.3f}" if each.images else "–", f"{each.f1.value:.3f}", number_range(each.f1),
        )
        for name, each in zip(result.classes, result.scores, strict=True)
    ]  # fmt: skip
    head = ("class", "have it", "named", "average precision", "95 % interval", "by guessing", "F1", "95 % interval")
    return table(head, rows, f"Classes of {result.name}")


def _confusion(result: AttributeResult, counts: NDArray[np.int64]) -> Markup:
    totals = counts.sum(axis=1)
    rows = []
    for label, name in enumerate(result.classes):
        cells = []
        for predicted, count in enumerate(counts[label].tolist()):
            share = count / totals[label] if totals[label] else 0.0
            step = min(int(share * 8 + 0.999), 8)
            title = f"{name} predicted as {result.classes[predicted]}: {count} of {totals[label]} ({share:.0%})"
            cells.append(tag("td", count, class_=f"heat{step}{' hit' if label == predicted else ''}", title=title))
        rows.append(tag("tr", tag("th", name, scope="row", class_="text"), *cells, tag("td", int(totals[label]))))
    # Long names stand upright, as in most printed confusions: broken into syllables nobody reads them.
    upright = "upright" if sum(map(len, result.classes)) > WIDEST else None
    heads = [tag("th", tag("span", name), scope="col", class_=upright) for name in result.classes]
    head = tag("tr", tag("td", ""), *heads, tag("th", "images", scope="col"))
    body = tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion")
    about = f"Confusions of {result.name}"
    return tag("div", body, class_="scroll fit", tabindex="0", role="region", aria_label=about)


def _most_confused(result: AttributeResult, counts: NDArray[np.int64], most: int = 15) -> Markup:
    pairs = [
        (count, result.classes[label], result.classes[predicted])
        for label, row in enumerate(counts.tolist())
        for predicted, count in enumerate(row)
        if count and label != predicted
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [(label, predicted, count) for count, label, predicted in pairs[:most]]
    return table(("label", "predicted", "images"), rows, f"Confusions of {result.name}", left=(0, 1))


def wrong_panel(run: PageRun, thumbnails: bool) -> Markup:
    """The most confident mistakes; their pictures only when they were asked for, since data may be confidential."""
    if run.predictions is None:
        return Markup("")
    answers = wrong_answers(run.predictions)
    if not answers:
        return Markup("")
    items = []
    for each in answers:
        words = [tag("div", f"{each.attribute}: {each.predicted}, {each.confidence:.0%} sure"),
                 tag("div", f"labelled {each.label}", class_="dim"), tag("div", tag("small", each.image))]  # fmt: skip
        if thumbnails:
            words.insert(0, _picture(run, each.image))
        items.append(tag("li", *words))
    hint = "" if thumbnails else "Pictures are left out, since they may be confidential: --thumbnails brings them."
    title = tag("h2", "Most confidently wrong validation images")
    said = [tag("p", hint, class_="dim")] if hint else []
    return tag("section", title, *said, tag("ul", *items, class_="wrong"), id="wrong")


def _picture(run: PageRun, image: str) -> Markup:
    from fashion.data.images import load_rgb

    root = run.manifest.get("data_root") or run.manifest["spec"].get("data", {}).get("root", "")
    path = Path(os.path.expanduser(str(root))) / image
    if not path.is_file():
        return tag("p", f"not on this machine: {path}", class_="dim")
    assert run.winner is not None, "it has made the predictions"
    data = of_its_time(run.winner.config).get("data", {})
    try:
        picture = load_rgb(path, data.get("orientation", "apply"), data.get("depth", "declared"))
    except DataError as error:  # of one picture of many: the page is worth having without it
        return tag("p", str(error), class_="dim")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=70)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return Markup(f'<img src="{source}" alt="{text(image)}" width="130" height="130">')


def distributions_panel(run: PageRun) -> Markup:
    cards = [tag("div", tag("h3", row.name), Markup(drawing.svg())) for row, drawing in distribution_charts(run)]
    if not cards:
        return Markup("")
    return tag("section", tag("h2", "Class distributions"), tag("div", *cards, class_="cards"), id="classes")


def model_panel(run: PageRun) -> Markup:
    """The models as the run recorded them; the winner's configuration."""
    parts = [tag("h2", "The model")]
    models = run.manifest.get("models") or []
    if models:
        keys = list(dict.fromkeys(key for model in models for key in model))
        rows = [[_value(model.get(key)) for key in keys] for model in models]
        parts.append(table([key.replace("_", " ") for key in keys], rows, "Models of this sweep", left=(0, 1)))
    if run.winner is not None:
        sampled = set(run.fields)
        settings = [
            (f"{section}.{name}", exact(value), "sampled" if f"{section}.{name}" in sampled else "")
            for section, fields in run.winner.config.items()
            for name, value in (fields.items() if isinstance(fields, dict) else [])
        ]
        inner = table(("field", "value", "in the spec"), settings, "The winner's configuration", left=(0, 1, 2))
        parts.append(tag("details", tag("summary", f"The configuration of trial {run.winner.trial}"), inner))
    return tag("section", *parts, id="model")


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return json.dumps(value) if isinstance(value, list | dict) else short(value)


def cost_rows(run: PageRun) -> list[tuple[str, int, int, str, str]]:
    """For each backbone, or all trials where it was not sampled: trials, epochs, the median epoch, and all of it."""
    groups: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    for trial in run.trials:
        name = str(field_value(trial.config, "model.backbone") or "all trials")
        groups[name].append((trial.number, [each.seconds for each in trial.reports]))
    found = []
    for name, trials in sorted(groups.items()):
        seconds = [each for _, times in trials for each in times]
        median = duration_of_epoch(statistics.median(seconds)) if seconds else "–"
        found.append((name, len(trials), len(seconds), median, duration(math.fsum(seconds))))
    return found


def duration_of_epoch(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def cost_panel(run: PageRun) -> Markup:
    drawing = slots_chart(run)
    parts = [tag("h2", "What it cost")]
    head = ("backbone", "trials", "epochs", "median epoch", "in all, over slots")
    parts.append(table(head, cost_rows(run), "What it cost"))
    if drawing is not None:
        key = "Blue: completed, grey: stopped, orange: failed. The number is the trial's."
        inner = tag("div", Markup(drawing.svg()), class_="scroll", tabindex="0", role="region", aria_label="Slots")
        parts += [tag("h3", "Trials on slots over time"), inner, tag("p", key, class_="dim")]
    return tag("section", *parts, id="cost")


def record_panel(run: PageRun) -> Markup:
    """What one needs to run it again, or to doubt it."""
    manifest = run.manifest
    facts: list[tuple[str, str]] = [
        ("run", run.opened.location),
        ("created", str(manifest["created"])),
        ("data set", str(manifest.get("data_root", ""))),
        ("data fingerprint", str(manifest["data_fingerprint"])),
        *((name, version) for name, version in versions_of(manifest).items() if version),
    ]
    notes = [f"trial {trial.number}: {note}" for trial in run.trials for note in trial.notes]
    failed = [(trial.number, trial.reason or "–") for trial in run.trials if trial.status == "failed"]
    findings = [str(each.get("sentence", "")) for each in manifest.get("findings", []) if isinstance(each, dict)]
    parts = [tag("h2", "Record"), table(("fact", "recorded"), facts, "Record", left=(0, 1))]
    for title, sentences in (("Odd about the data", findings), ("Notes", notes)):
        if sentences:
            listed: Sequence[Markup] = [tag("li", each) for each in sentences[:50]]
            parts += [tag("h3", title), tag("ul", *listed)]
    if failed:
        parts += [tag("h3", "Failed trials"), table(("trial", "reason"), failed[:50], "Failed trials", left=(0, 1))]
    spec = tag("pre", json.dumps(manifest["spec"], indent=2, ensure_ascii=False), tabindex="0")
    parts.append(tag("details", tag("summary", "The spec"), spec))
    return tag("section", *parts, id="record")
