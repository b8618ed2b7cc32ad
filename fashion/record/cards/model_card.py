"""The card of a promoted model, `best/README.md`: what it is, how good on which images, and how to use it.

After Mitchell et al. 2019, as far as a sweep's record can tell. It begins with the front matter that model hubs read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fashion.config.names import asks_timm
from fashion.errors import printable
from fashion.record.cards.refit_words import refit_sentences
from fashion.record.ranking import attribute_table, majority_accuracy
from fashion.record.trial import trained_on_val

NAME = "README.md"
SHARES = ("val_accuracy", "val_balanced_accuracy", "val_exact_match")
PREPROCESSING = (
    ("resize", "side in pixels of the square that an image is resized to"),
    ("fit", "stretch ignores the aspect ratio, pad keeps it"),
    ("interpolation", "filter of that resize"),
    ("orientation", "whether EXIF orientations are applied"),
    ("crop", "side of the centre crop that the network sees"),
    ("normalize", "which channel means and deviations are used"),
    ("eval_flip", "whether the mean with the mirrored image is taken"),
    ("eval_crops", "how many crops of an image the mean is taken over"),
)


def model_card(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The card's Markdown. manifest: the run's; model: what `best/model.json` says. Every word comes from them, so the
    same model has the same card."""
    config, metrics = model["config"], {name: float(value) for name, value in model["metrics"].items()}
    backbone = str(config.get("model", {}).get("backbone", "unknown"))
    results = " ".join(refit_sentences(manifest)) if trained_on_val(config) else _results(manifest, metrics)
    sections = [
        _front(backbone),
        f"# {cell(model['run'])}, trial {model['trial']}\n\n{_what(model, backbone)}",
        f"## Results\n\n{results}",
        f"## Classes\n\n{classes_table(manifest)}",
        f"## Input\n\n{_input(config.get('data', {}))}",
        f"## Use\n\n{_use()}",
        f"## Training\n\n{_training(config, model.get('versions', {}))}",
        f"## Limits\n\n{limits(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front(backbone: str) -> str:
    tags = ["fashion-sweep", "multi-head", *(["timm"] if asks_timm(backbone) else [])]
    listed = "\n".join(f"- {tag}" for tag in tags)
    return f"---\nlibrary_name: fashion-sweep\npipeline_tag: image-classification\ntags:\n{listed}\n---"


def _what(model: Mapping[str, Any], backbone: str) -> str:
    heads = len(model["attributes"])
    weights, config = model["weights"], model["config"]
    start = config.get("model", {}).get("weights", "unknown")
    return "\n".join(
        [
            f"An image classifier with one backbone (`{code(backbone)}`, started from weights `{code(start)}`) and "
            f"{heads} head{'s' if heads != 1 else ''}, one per attribute.",
            "",
            f"- run `{code(model['run'])}`, trial {model['trial']}, epoch {model['epoch']}; promoted "
            f"{model['promoted']}",
            f"- weights: `{code(weights['file'])}`, {weights['bytes']:,} bytes, sha256 `{weights['sha256']}`",
            f"- data fingerprint: `{code(model['data_fingerprint'])}`",
            *_folds(config),
        ]
    )


def _folds(config: Mapping[str, Any]) -> list[str]:
    folds = config.get("data", {}).get("folds")
    if folds is None:
        return []
    return [
        f"- {folds} models in one, whose probabilities are averaged. Each was trained without one of {folds} parts of "
        "the images, and the results are those of each on the part that it had not seen"
    ]


def _results(manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    rows = attribute_table(manifest, metrics)
    lines = [f"On the {rows[0].images:,} validation images:" if rows else "On the validation images:", ""]
    lines += ["| metric | value |", "|---|---:|", f"| val_loss (nats) | {number(metrics.get('val_loss', math.nan))} |"]
    lines += [f"| {name} | {percent(metrics[name])} |" for name in SHARES if name in metrics]
    if rows:
        lines.append(f"| accuracy of always predicting the majority | {percent(majority_accuracy(manifest))} |")
        lines += ["", "| attribute | correct | accuracy | majority | its class |", "|---|---:|---:|---:|---|"]
        lines += [
            f"| {cell(row.name)} | {row.correct:,} of {row.images:,} | {percent(row.accuracy)} | "
            f"{percent(row.majority_accuracy)} | {cell(row.majority_class)} |"
            for row in rows
        ]
    lines += [
        "",
        "The epoch, and the trial among the sweep's, were chosen by val_loss on these same images, so new images will "
        "do a little worse.",
    ]
    return "\n".join(lines)


def classes_table(manifest: Mapping[str, Any]) -> str:
    """Every class with its images, in the order of the model's outputs."""
    lines = ["In the order of the model's outputs.", "", "| attribute | class | train | val |", "|---|---|---:|---:|"]
    for row in attribute_table(manifest, {}):
        for name, train, val in zip(row.classes, row.train_counts, row.val_counts, strict=True):
            lines.append(f"| {cell(row.name)} | {cell(name)} | {train:,} | {val:,} |")
    return "\n".join(lines)


def _input(data: Mapping[str, Any]) -> str:
    lines = ["An RGB image; transparent pixels are white.", "", "| step | value | |", "|---|---|---|"]
    lines += [
        f"| `data.{name}` | `{code(json.dumps(data[name]))}` | {about} |"
        for name, about in PREPROCESSING
        if name in data
    ]
    return "\n".join(lines)


def _use() -> str:
    return "\n".join(
        [
            "With the package installed, from the folder that this file is in:",
            "",
            "```python",
            "import fashion",
            "",
            'model = fashion.load_model(".")',
            'model.predict(["photo.jpg"])',
            "```",
            "",
            "Without it: `fashion-sweep export RUN --to onnx` (or `--to torch`) writes one file with the preprocessing "
            "inside.",
        ]
    )


def _training(config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    listed = ", ".join(f"{cell(name)} {cell(version)}" for name, version in versions.items() if version)
    body = json.dumps(config, indent=2, ensure_ascii=True).replace("`", "\\u0060")
    return f"Versions: {listed or 'not recorded'}.\n\n```json\n{body}\n```"


def limits(manifest: Mapping[str, Any]) -> str:
    """What a reader of the results should know of the data."""
    rare = [
        f"{cell(row.name)} {cell(name)} ({count:,})"
        for row in attribute_table(manifest, {})
        for name, count in zip(row.classes, row.val_counts, strict=True)
        if count < 20
    ]
    said = [f"- {cell(str(each.get('sentence', '')))}." for each in manifest.get("findings", [])]
    if rare:
        said.append(
            f"- Classes with fewer than 20 validation images, of which the results say little: {', '.join(rare)}."
        )
    said.append("- It was measured on this data set alone; images of another source may be told far worse.")
    return "\n".join(said)


def percent(share: float) -> str:
    """A share in [0, 1] in per cent; a dash for NaN."""
    return f"{100 * share:.2f} %" if math.isfinite(share) else "-"


def number(value: float) -> str:
    """A loss; a dash for NaN."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def cell(text: Any) -> str:
    """Text that neither ends a table's cell nor is taken for markup."""
    shown = printable(str(text)).replace("\n", " ").replace("\\", "\\\\")
    for mark in "|*_[]`<>":
        shown = shown.replace(mark, "&lt;" if mark == "<" else "&gt;" if mark == ">" else f"\\{mark}")
    return shown


def code(text: Any) -> str:
    """Text between backticks, in a table or outside of one."""
    return printable(str(text)).replace("\n", " ").replace("`", "'").replace("|", "\\|")
