"""The distribution of classes in every labelled split (the report's Figures 1 and 2) as table, JSON and figure."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.data.layout import Attribute, Baseline, Dataset, majority_baseline
from fashion.errors import UserError

_COLOURS = {"train": "#264b6e", "val": "#e08a3c", "test": "#7a9f5a"}
TALLEST = 400  # inches; at 160 dots each the most that matplotlib draws
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Distribution:
    """`counts[split][head][label]` images; `images[split]` images in all, unlabelled splits included.

    `baselines[split]` scores each head's most frequent training class on that split.
    """

    attributes: tuple[Attribute, ...]
    images: dict[str, int]
    counts: dict[str, list[list[int]]]
    baselines: dict[str, Baseline]

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "attributes": [
                {
                    "name": attribute.name,
                    "classes": list(attribute.classes),
                    "counts": {split: heads[head] for split, heads in self.counts.items()},
                    "majority": attribute.classes[self.baselines["train"].classes[head]],
                    "baseline": {split: baseline.accuracies[head] for split, baseline in self.baselines.items()},
                }
                for head, attribute in enumerate(self.attributes)
            ],
            "baseline": {split: baseline.overall for split, baseline in self.baselines.items()},
        }

    def table(self) -> str:
        """Counts and shares of every class, and the majority baseline; * marks the majority class of train."""
        width = max(len(name) for attribute in self.attributes for name in (attribute.name, *attribute.classes)) + 5
        lines = [" " * width + "".join(f"{split:>17}" for split in self.counts)]
        for head, attribute in enumerate(self.attributes):
            lines += ["", attribute.name]
            for label, name in enumerate(attribute.classes):
                mark = " *" if label == self.baselines["train"].classes[head] else ""
                cells = (
                    f"{heads[head][label]:>9,} {heads[head][label] / self.images[split]:>6.1%}"
                    for split, heads in self.counts.items()
                )
                lines.append(f"{f'  {name}{mark}':<{width}}" + "".join(f"{cell:>17}" for cell in cells))
        lines += [
            "",
            f"{'images':<{width}}" + "".join(f"{f'{self.images[split]:,}':>10}{'':7}" for split in self.counts),
        ]
        lines.append(
            f"{'majority baseline':<{width}}"
            + "".join(f"{baseline.overall:>17.2%}" for baseline in self.baselines.values())
        )
        unlabelled = [f"{split} ({count:,} images)" for split, count in self.images.items() if split not in self.counts]
        if unlabelled:
            lines.append(f"without labels: {', '.join(unlabelled)}")
        return "\n".join(line.rstrip() for line in lines)


def distribution(dataset: Dataset) -> Distribution:
    """Count every class in every labelled split."""
    labelled = [name for name, split in dataset.splits.items() if split.labels is not None]
    return Distribution(
        dataset.attributes,
        {name: len(split) for name, split in dataset.splits.items()},
        {name: [counts.tolist() for counts in dataset.label_counts(name)] for name in labelled},
        {name: majority_baseline(dataset, name) for name in labelled},
    )


def figure(dataset: Dataset, path: str | Path) -> Path:
    """Draw one panel an attribute: the share of each class in every labelled split, with its count.

    Writes .png, .svg or .pdf; raises UserError for another ending or a folder that can't be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise UserError(f"A figure's name ends in {', '.join(FIGURE_SUFFIXES)}; got {path.name}.")
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    shown = distribution(dataset)
    columns = min(3, len(shown.attributes))
    rows = math.ceil(len(shown.attributes) / columns)
    bars = [
        max(len(a.classes) for a in shown.attributes[row * columns : (row + 1) * columns]) * len(shown.counts)
        for row in range(rows)
    ]
    if (tall := sum(0.2 * count + 0.75 for count in bars)) > TALLEST:
        raise UserError(
            f"The figure would be {tall:.0f} inches high, which has too many classes to be read; at most {TALLEST} are drawn. "
            "--json prints the counts without a figure."
        )
    canvas = Figure(
        figsize=(1.2 + 4.0 * columns, 0.9 + sum(0.2 * count + 0.75 for count in bars)), layout="constrained"
    )
    axes = canvas.subplots(
        rows, columns, squeeze=False, sharex=True, height_ratios=[count + 2 for count in bars]
    ).flatten()
    for head, (panel, attribute) in enumerate(zip(axes, shown.attributes, strict=False)):
        crowd = len(attribute.classes) * len(shown.counts) / bars[head // columns]
        _panel(
            panel,
            attribute,
            {split: heads[head] for split, heads in shown.counts.items()},
            shown.images,
            0.8 * max(crowd, 0.4),
        )
        if head + columns >= len(shown.attributes):
            panel.set_xlabel("share of the split's images", color="0.35")
            panel.tick_params(labelbottom=True)
    for panel in axes[len(shown.attributes) :]:
        panel.remove()
    axes[0].set_xlim(
        0, 1.14 * max(n / shown.images[split] for split, heads in shown.counts.items() for head in heads for n in head)
    )
    handles, names = axes[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
    baseline = shown.baselines["val"].overall
    canvas.suptitle(
        f"Distribution of classes (majority baseline on val: {baseline:.2%})",
        x=0.99,
        ha="right",
        fontsize=11,
        color="0.2",
    )
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The figure can't be written to {path}: {error}.") from error
    try:
        canvas.savefig(
            temporary,
            dpi=160,
            metadata=None
            if path.suffix.lower() == ".png"
            else {"CreationDate" if path.suffix.lower() == ".pdf" else "Date": None},
        )
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"The figure can't be written to {path}: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _panel(
    panel: Any, attribute: Attribute, counts: dict[str, list[int]], images: dict[str, int], thickness: float
) -> None:
    """`thickness` is that of a class's bars together, 1 being all the room there is: alike in all panels of a row."""
    height = thickness / len(counts)
    for index, (split, values) in enumerate(counts.items()):
        places = [label + (index - (len(counts) - 1) / 2) * height for label in range(len(values))]
        shares = [value / images[split] for value in values]
        drawn = panel.barh(
            places, shares, height * 0.92, color=_COLOURS[split], label=f"{split} (n = {images[split]:,})"
        )
        panel.bar_label(drawn, [f"{value:,}" for value in values], padding=3, fontsize=7.5, color="0.35")
    panel.set_title(attribute.name, loc="left", fontweight="bold", fontsize=10.5)
    panel.set_yticks(range(len(attribute.classes)), [name.replace("_", " ") for name in attribute.classes])
    panel.set_ylim(len(attribute.classes) - 0.5, -0.5)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("0.75")
    panel.tick_params(axis="both", length=0, labelsize=9, labelcolor="0.2")
    panel.grid(axis="x", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
