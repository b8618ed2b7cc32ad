"""A drawn data set as a label file: several attributes, one of them multi-label as in CelebA, and some labels missing.

The images show `fashion.data.demo`'s garments. Those of one group have the same colours and the same figure, as the
photos of one person have, and the file names no splits. The same arguments give the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fashion.data.demo import ATTRIBUTES, EXTRAS, draw_garment, labels_by_share, new_demo
from fashion.data.forms.cells import NONE_OF_THEM
from fashion.data.forms.delimited import as_csv

LABEL_FILE = "labels.csv"
TOLD = ("pattern", "sleeve", "neckline")  # the others are drawn too, without a label
MULTI_LABEL = "extras"
MISSING_SHARE = 0.1  # of the labels of each attribute
LARGEST_GROUP = 6  # images


def write_label_demo(
    root: str | Path, images: int, size: int = 96, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write `images` pictures of `size` pixels and their labels.csv; returns the label file. The folder appears whole.

    Its columns are file_name, group, TOLD and MULTI_LABEL, whose cells hold names with | between them. Raises DataError
    where the folder exists and is not empty, can't be written, or a number is out of range.
    """
    counts = {"train": images}
    root = new_demo(root, counts, size, lambda folder: _write(folder, images, size, seed, progress))
    return root / LABEL_FILE


def _write(folder: Path, images: int, size: int, seed: int, progress: Callable[[int, int], None] | None) -> None:
    (folder / "img").mkdir()
    rng = np.random.default_rng([seed, 3])
    classes = {name: labels_by_share(rng, images, [*shares.values()]) for name, shares in ATTRIBUTES.items()}
    held = {name: rng.random(images) < share for name, share in EXTRAS.items()}
    sizes = rng.integers(1, LARGEST_GROUP + 1, images)
    groups = np.repeat(np.arange(images), sizes)[:images]
    missing = {name: rng.random(images) < MISSING_SHARE for name in (*TOLD, MULTI_LABEL)}
    rows = [["file_name", "group", *TOLD, MULTI_LABEL]]
    for number in range(images):
        names = {name: list(shares)[classes[name][number]] for name, shares in ATTRIBUTES.items()}
        extras = [name for name in EXTRAS if held[name][number]]
        picture = draw_garment(names, size, np.random.default_rng([seed, 4, groups[number]]), extras)
        file = f"img/{number:05d}.jpg"
        picture.save(folder / file, quality=92, subsampling=0)
        cells = {**{name: names[name] for name in TOLD}, MULTI_LABEL: "|".join(extras) or NONE_OF_THEM}
        shown = ["" if missing[name][number] else cell for name, cell in cells.items()]
        rows.append([file, f"person-{groups[number]:04d}", *shown])
        if progress is not None:
            progress(number + 1, images)
    (folder / LABEL_FILE).write_text(as_csv(rows), encoding="utf-8")
