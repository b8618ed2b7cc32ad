"""What a path is taken for as a data set, in plain words: `fashion-sweep data explain`."""

from __future__ import annotations

from pathlib import Path

from fashion.config.data import LabelReading
from fashion.data.forms.table import form_of, scan_layout, unknown
from fashion.data.layout import Dataset, dataset_of
from fashion.data.lists import Looking
from fashion.errors import printable

_CLASSES = 8  # of an attribute that a line names
_PROBLEMS = 20


def explain(
    path: Path, follow_links: bool, reading: LabelReading, named: str | None = None, looking: Looking | None = None
) -> tuple[list[str], bool]:
    """Lines for a terminal, and whether the data set can be used: its form and how it is read, with its first problems;
    or which forms there are, what was found instead, and what makes it the nearest one.

    named: how the lines call it, where that is not its path on this machine. looking: is told how many
    images have been looked at."""
    named = named or str(path)
    told = form_of(path)
    if told is None:
        problem = unknown(path)
        lines = [f"{named}: no data set", f"expected: {problem.rule}", f"found: {problem.value}"]
        return [printable(line) for line in [*lines, f"to mend it: {problem.fix}"]], False
    form, place = told
    scan = scan_layout(path, follow_links, reading, looking)
    lines = [f"{named}: {form}" + (f", {place.name}" if place != path else ""), f"images below: {scan.root}"]
    if scan.problems:
        lines += [f"{len(scan.problems):,} problem{'s' if len(scan.problems) > 1 else ''}:"]
        lines += [f"  {problem}" for _, problem in scan.problems[:_PROBLEMS]]
        if len(scan.problems) > _PROBLEMS:
            lines.append(f"  and {len(scan.problems) - _PROBLEMS:,} more: fashion-sweep data check lists all")
        return [printable(line) for line in lines], False
    return [printable(line) for line in [*lines, *_contents(dataset_of(scan))]], True


def _contents(dataset: Dataset) -> list[str]:
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in dataset.splits.items())
    made = f", divided by data.split: {dataset.rule}" if dataset.rule is not None else ""
    lines = [f"splits: {sizes}{made}"]
    labelled = [name for name, split in dataset.splits.items() if split.labels is not None]
    missing = [dataset.missing_counts(name) for name in labelled]
    for head, attribute in enumerate(dataset.attributes):
        names = ", ".join(attribute.classes[:_CLASSES])
        more = f" and {len(attribute.classes) - _CLASSES:,} more" if len(attribute.classes) > _CLASSES else ""
        lost = sum(counts[head] for counts in missing)
        classes = "class" if len(attribute.classes) == 1 else "classes"
        kind = "multi-label, " if attribute.multi_label else ""
        told = f"; missing for {lost:,} images" if lost else ""
        lines.append(f"attribute {attribute.name}: {kind}{len(attribute.classes):,} {classes} ({names}{more}){told}")
    if without := [name for name in dataset.splits if name not in labelled]:
        lines.append(f"without labels: {', '.join(without)}")
    return lines
