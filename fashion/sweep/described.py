"""What readers of a run need to know of its data, recorded once so that they need not have them."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.bucket.store import TakenError
from fashion.data.check import findings_by_kind
from fashion.data.layout import Dataset, split_labels
from fashion.data.lists import MISSING
from fashion.files import write_atomic
from fashion.record.run import VAL_LABELS, Run
from fashion.record.validate import attribute_entry
from fashion.storage.working_copy import Held


def record_val_labels(run: Run, dataset: Dataset, bucket: Held | None = None) -> None:
    """Write the validation labels into the run, once, and into its bucket.

    The table has the column `image` and then, for each attribute, a column of class indices (int32), null where the
    label is missing; for a multi-label attribute a column of lists (int8) with 0, 1 or null for each class. The order
    is that of the data set's list and of the trials' predictions. The data set must be the one of the run's start.
    """
    if not run.val_labels_path.is_file():
        write_atomic(run.val_labels_path, _val_labels(dataset))
    if bucket is not None:
        with suppress(TakenError):  # there since the run began
            bucket.store.put(VAL_LABELS, run.val_labels_path.read_bytes(), create=True)


def _val_labels(dataset: Dataset) -> bytes:
    val = dataset.splits["val"]
    assert val.labels is not None, "read_dataset refuses val without labels"
    columns: dict[str, Any] = {"image": pa.array(list(val.images), pa.string())}
    for attribute, labels in split_labels(dataset.attributes, val.labels):
        missing = (labels == MISSING).reshape(-1)
        kind = pa.int8() if attribute.multi_label else pa.int32()
        flat = pa.array(labels.reshape(-1), kind, mask=missing if missing.any() else None)
        if attribute.multi_label:
            ends = np.arange(0, labels.size + 1, attribute.columns, dtype=np.int32)
            flat = pa.ListArray.from_arrays(pa.array(ends), flat)
        columns[attribute.name] = flat
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, compression="zstd")
    return content.getvalue()


def moved_images(run: Run, dataset: Dataset) -> str:
    """Where the validation images of a run are in a data set that has changed since, and how many images its other
    splits have gained or lost; empty where all is the same, or the run does not tell."""
    try:
        before = pq.read_table(run.val_labels_path, columns=["image"]).column(0).to_pylist()
    except (OSError, pa.ArrowException):  # missing or damaged: it is the changed data that are to be told of
        return ""
    sizes = {name: len(split) for name, split in dataset.as_listed.splits.items()}
    others = {name: count for name, count in run.manifest.get("splits", sizes).items() if name != "val"}
    told = [
        f"{name} has {sizes.get(name, 0):,} images now, and had {others.get(name, 0):,}"
        for name in dict.fromkeys([*others, *sizes])
        if name != "val" and sizes.get(name, 0) != others.get(name, 0)
    ]
    now = {image: name for name, split in dataset.splits.items() for image in split.images}
    counts = Counter(now.get(image, "no split") for image in before)
    new = len(dataset.splits["val"]) - counts.pop("val", 0)
    parts = [f"{count:,} are in {name} now" for name, count in sorted(counts.items())]
    parts += [f"{new:,} images have come to val"] if new else []
    moved = f"Of its {len(before):,} validation images, {', '.join(parts)}." if parts else ""
    grown = f"{', '.join(told)}." if told else ""
    return " ".join(filter(None, (moved, grown)))


def known_counts(dataset: Dataset, split: str) -> list[NDArray[np.int64]]:
    """How many labels of each column of a split are known: one array per attribute, (1,) or (classes,)."""
    return [(columns != MISSING).sum(axis=0) for _, columns in dataset.by_attribute(split)]


def labels_of(dataset: Dataset) -> dict[str, Any]:
    """What a run's manifest says of the attributes and their labels: see `Run`."""
    splits = ("train", "val")
    said: dict[str, Any] = {
        "attributes": [attribute_entry(attribute) for attribute in dataset.attributes],
        "label_counts": {name: [counts.tolist() for counts in dataset.label_counts(name)] for name in splits},
    }
    known = {name: dataset.labels(name) != MISSING for name in splits}
    if any(attribute.multi_label for attribute in dataset.attributes) or not all(each.all() for each in known.values()):
        said["known_labels"] = {
            name: {
                "columns": [counts.tolist() for counts in known_counts(dataset, name)],
                "images": int(known[name].all(1).sum()),
            }
            for name in splits
        }
    return said


def found_in(dataset: Dataset) -> list[dict[str, Any]]:
    """What is odd about the data set, as the run's manifest has it: {kind, count, sentence}, one a kind."""
    return [asdict(each) for each in findings_by_kind(dataset.as_listed)]


def record_findings(run: Run, dataset: Dataset) -> None:
    """Add that to the manifest of a run which was begun before it was looked for."""
    if "findings" not in run.manifest:
        run.update_manifest(findings=found_in(dataset))
