"""The distribution of classes in every labelled split (challenge report, Figures 1 and 2): table, JSON, figure."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashion.data.layout import Attribute, Baseline, Dataset, majority_baseline
from fashion.errors import UserError
from fashion.files import write_atomic

_COLOURS = {"train": "#264b6e", "val": "#e08a3c", "test": "#7a9f5a"}
DOTS = 160  # per inch
TALLEST = 400  # inches; the most that matplotlib draws at this many dots
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
LONGEST = 40  # characters of a name in a figure
# Matplotlib's own font, and those that Linux, macOS and Windows have for the writing that it lacks.
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Noto Sans Arabic", "Noto Naskh Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Symbola",
    "Arial Unicode MS", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI",
)  # fmt: skip


@dataclass(frozen=True)
class ClassDistribution:
    """How many images each class has: `counts[split][head][label]`.

    `images[split]` counts all images, in unlabelled splits too. `baselines[split]` scores each head's most frequent
    training class on that split. `missing[split][head]` counts images without that label.
    """

    attributes: tuple[Attribute, ...]
    images: dict[str, int]
    counts: dict[str, list[list[int]]]
    baselines: dict[str, Baseline]
    missing: dict[str, list[int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "attributes": [
                {
                    "name": attribute.name,
                    "classes": list(attribute.classes),
                    "counts": {split: heads[head] for split, heads in self.counts.items()},
                    "missing": {split: counts[head] for split, counts in self.missing.items()},
                    "majority": attribute.classes[self.baselines["train"].classes[head]],
                    "baseline": {split: baseline.accuracies[head] for split, baseline in self.baselines.items()},
                }
                for head, attribute in enumerate(self.attributes)
            ],
            "baseline": {split: baseline.overall for split, baseline in self.baselines.items()},
        }

    def table(self) -> str:
        """Counts and shares of every class, and the majority baseline; * marks the majority class of train."""
        from rich.cells import cell_len  # what a name takes of a terminal's line: twice as much in Chinese

        names = [name for attribute in self.attributes for name in (attribute.name, *attribute.classes)]
        width = max(map(cell_len, names)) + 5
        lines = [" " * width + "".join(f"{split:>17}" for split in self.counts)]
        for head, attribute in enumerate(self.attributes):
            lines += ["", attribute.name]
            for label, name in enumerate(attribute.classes):
                mark = " *" if label == self.baselines["train"].classes[head] else ""
                cells = (
                    f"{heads[head][label]:>9,} {heads[head][label] / self.images[split]:>6.1%}"
                    for split, heads in self.counts.items()
                )
                shown = f"  {name}{mark}"
                lines.append(shown + " " * (width - cell_len(shown)) + "".join(f"{cell:>17}" for cell in cells))
            if any(counts[head] for counts in self.missing.values()):
                lost = (
                    f"{counts[head]:>9,} {counts[head] / self.images[split]:>6.1%}"
                    for split, counts in self.missing.items()
                )
                lines.append(f"{'  (missing)':<{width}}" + "".join(f"{cell:>17}" for cell in lost))
        lines += [
            "",
            f"{'images':<{width}}" + "".join(f"{f'{self.images[split]:,}':>10}{'':7}" for split in self.counts),
        ]
        lines.append(
            f"{'majority baseline':<{width}}"
            + "".join(f"{baseline.overall:>17.2%}" for baseline in self.baselines.values())
        )
        lines += ["", "* the most frequent class of train, which the majority baseline always predicts"]
        unlabelled = [f"{split} ({count:,} images)" for split, count in self.images.items() if split not in self.counts]
        if unlabelled:
            lines.append(f"without labels: {', '.join(unlabelled)}")
        return "\n".join(line.rstrip() for line in lines)


def distribution(dataset: Dataset) -> ClassDistribution:
    """Count every class in every labelled split."""
    labelled = [name for name, split in dataset.splits.items() if split.labels is not None]
    return ClassDistribution(
        dataset.attributes,
        {name: len(split) for name, split in dataset.splits.items()},
        {name: [counts.tolist() for counts in dataset.label_counts(name)] for name in labelled},
        {name: majority_baseline(dataset, name) for name in labelled},
        {name: dataset.missing_counts(name) for name in labelled},
    )


def figure(dataset: Dataset, path: str | Path) -> Path:
    """Draw one panel per attribute: the share of each class in every labelled split, with its count.

    Writes .png, .svg or .pdf. Raises UserError for another suffix, for more classes than can be read, and for a folder
    that can't be written.
    """
    path = Path(os.path.expanduser(path))
    suffix = path.suffix.lower()
    if suffix not in FIGURE_SUFFIXES:
        raise UserError(f"A figure's name ends in {', '.join(FIGURE_SUFFIXES)}; got {path.name}.")
    buffer = io.BytesIO()
    # A date would make the same figure other bytes each time.
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with without_markup():
        _drawn(distribution(dataset)).savefig(buffer, format=suffix[1:], dpi=DOTS, metadata=dated)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"The figure can't be written to {path}: {error}.") from error
    return path


@contextmanager
def without_markup() -> Iterator[None]:
    """Texts of a figure that is made and drawn inside are drawn as they are: $x_1$ in a class name is no formula. Each
    character is taken from the first of FONTS that has it; what no font here has is drawn as a box, without a word."""
    from matplotlib import rc_context
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    fonts = [name for name in FONTS if name in known] or ["sans-serif"]
    with (
        rc_context({"text.parse_math": False, "text.usetex": False, "font.family": fonts}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def shortened(name: str, most: int = LONGEST) -> str:
    """A name as a figure shows it, of at most so many characters: a longer one would leave no room for the figure."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _drawn(shown: ClassDistribution) -> Any:
    """The matplotlib figure, with up to three panels in a row."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    columns = min(3, len(shown.attributes))
    rows = math.ceil(len(shown.attributes) / columns)
    # Bars in the fullest panel of each row.
    bars = [
        max(len(a.classes) for a in shown.attributes[row * columns : (row + 1) * columns]) * len(shown.counts)
        for row in range(rows)
    ]
    height = sum(0.2 * count + 0.75 for count in bars)
    if height > TALLEST:
        raise UserError(
            f"The figure would be {height:.0f} inches high: too many classes to be readable. At most {TALLEST} inches "
            "are drawn. --json prints the counts without a figure."
        )
    canvas = Figure(figsize=(1.2 + 4.0 * columns, 0.9 + height), layout="constrained")
    heights = [count + 2 for count in bars]
    axes = canvas.subplots(rows, columns, squeeze=False, sharex=True, height_ratios=heights).flatten()
    for head, (panel, attribute) in enumerate(zip(axes, shown.attributes, strict=False)):
        filled = len(attribute.classes) * len(shown.counts) / bars[head // columns]
        counts = {split: heads[head] for split, heads in shown.counts.items()}
        _panel(panel, attribute, counts, shown.images, 0.8 * max(filled, 0.4))
        if head + columns >= len(shown.attributes):
            panel.set_xlabel("share of the split's images", color="0.35")
            panel.tick_params(labelbottom=True)
    for panel in axes[len(shown.attributes) :]:
        panel.remove()
    largest = max(n / shown.images[split] for split, heads in shown.counts.items() for head in heads for n in head)
    axes[0].set_xlim(0, 1.14 * largest)
    handles, names = axes[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
    title = f"Distribution of classes (majority baseline on val: {shown.baselines['val'].overall:.2%})"
    canvas.suptitle(title, x=0.99, ha="right", fontsize=11, color="0.2")
    return canvas


def _panel(
    panel: Any, attribute: Attribute, counts: dict[str, list[int]], images: dict[str, int], thickness: float
) -> None:
    """Draw an attribute's classes as groups of bars, one for each split, counting downwards.

    `thickness` is the share, in (0, 1], of a class's height that its bars fill together. The caller makes bars equally
    thick in all panels of a row.
    """
    height = thickness / len(counts)
    for index, (split, values) in enumerate(counts.items()):
        positions = [label + (index - (len(counts) - 1) / 2) * height for label in range(len(values))]
        shares = [value / images[split] for value in values]
        drawn = panel.barh(
            positions, shares, height * 0.92, color=_COLOURS[split], label=f"{split} (n = {images[split]:,})"
        )
        panel.bar_label(drawn, [f"{value:,}" for value in values], padding=3, fontsize=7.5, color="0.35")
    panel.set_title(shortened(attribute.name), loc="left", fontweight="bold", fontsize=10.5)
    panel.set_yticks(range(len(attribute.classes)), [shortened(name.replace("_", " ")) for name in attribute.classes])
    panel.set_ylim(len(attribute.classes) - 0.5, -0.5)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("0.75")
    panel.tick_params(axis="both", length=0, labelsize=9, labelcolor="0.2")
    panel.grid(axis="x", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
