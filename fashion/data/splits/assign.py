"""Images put into train, val and test: as the data say, or, where they don't, by `data.split`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fashion.config.data import SplitRule
from fashion.data.lists import LABELLED, MISSING, SPLITS, Scan
from fashion.data.splits.divide import Undivided, divide

DEFAULT_RULE = SplitRule()


def assign_splits(
    scan: Scan,
    images: Sequence[str],
    lines: NDArray[np.int64],
    labels: NDArray[np.int64],
    splits: Sequence[str] | None,
    groups: Sequence[str | None],
    rule: SplitRule | None,
    made_by: SplitRule | None = None,
) -> None:
    """Fill the scan's images, lines and labels split by split, in the order of the rows.

    images (N): with the line and the labels (N, columns) of each. splits: each row's, or None where the data have
    none. groups: N values, or none. rule: data.split. made_by: the same, where the splits that the data name were made
    by it. What is wrong becomes a problem.
    """
    if splits is not None and "val" in splits and rule is not None and made_by is None:
        fix = "Leave data.split out, or leave the split of the images to it alone"
        scan.add("names", "data.split", "is for data without splits, and these have their own", str(rule), fix)
    if splits is not None and "val" not in splits and rule is None:
        fix = "Write data.split: {val: 0.15} in the spec (--divide val=0.15 for `data`), which takes val out of train"
        scan.add("empty", scan.source or str(scan.root), "some images must be in val", "none", fix)
    if splits is None or ("val" not in splits and rule is not None):
        scan.rule = rule or DEFAULT_RULE
        splits = ["train"] * len(images) if splits is None else splits
        if scan.packed is not None:
            must = "names the split of each image, since only the images themselves tell which are alike"
            scan.add("names", scan.source or str(scan.root), must, "no splits", "Push the data set again")
        if not scan.problems:
            splits = _divided(Undivided(scan.root, images, labels, scan.attributes, groups), splits, scan.rule)
    else:
        scan.rule = made_by
    named = np.array(splits)
    for split in SPLITS:
        rows = np.flatnonzero(named == split)
        if not len(rows):
            if split in LABELLED and not scan.problems:
                fix = "There are few images: name the splits yourself in a column split"
                scan.add("empty", scan.source or str(scan.root), f"some images must be in {split}", "none", fix)
            continue
        scan.images[split] = [images[row] for row in rows.tolist()]
        scan.lines[split] = lines[rows].tolist()
        if groups:
            scan.groups[split] = [groups[row] for row in rows.tolist()]
        own = labels[rows]
        if split in LABELLED or not scan.attributes or (own != MISSING).any():
            own.setflags(write=False)
            scan.labels[split] = own
        if split in LABELLED and scan.attributes and (own == MISSING).all():
            scan.add("label", scan.label_place(split), "some images must have labels", "none")


def _divided(whole: Undivided, splits: Sequence[str], rule: SplitRule) -> list[str]:
    """The splits with those of train divided. A test that is there already stays, and takes no more images."""
    rows = [row for row, split in enumerate(splits) if split == "train"]
    val, test = rule.val, 0.0 if "test" in splits else rule.test
    mine = replace(
        whole,
        images=[whole.images[row] for row in rows],
        labels=whole.labels[rows],
        groups=[whole.groups[row] for row in rows] if whole.groups else [],
    )
    found = divide(mine, (1 - val - test, val, test), rule.seed)
    divided = list(splits)
    for row, number in zip(rows, found.tolist(), strict=True):
        divided[row] = SPLITS[number]
    return divided
