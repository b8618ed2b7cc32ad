"""What readers of a run need to know of its data and models, recorded once so that they need neither."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from fashion.bucket.store import TakenError
from fashion.data.check import findings_by_kind
from fashion.data.layout import Dataset
from fashion.files import write_atomic
from fashion.model.backbones import BackboneRow, row
from fashion.model.network import complete_row, meta_backbone, stages_of
from fashion.record.run import VAL_LABELS, Run
from fashion.storage.working_copy import Held


def record_val_labels(run: Run, dataset: Dataset, bucket: Held | None = None) -> None:
    """Write the validation labels into the run, once, and into its bucket.

    The table has the column `image` and then, for each attribute, a column of class indices (int32), in the order of
    the data set's list, which is that of the trials' predictions. The data set must be the one that the run started
    with."""
    if not run.val_labels_path.is_file():
        write_atomic(run.val_labels_path, _val_labels(dataset))
    if bucket is not None:
        with suppress(TakenError):  # there since the run began
            bucket.store.put(VAL_LABELS, run.val_labels_path.read_bytes(), create=True)


def _val_labels(dataset: Dataset) -> bytes:
    val = dataset.splits["val"]
    assert val.labels is not None, "read_dataset refuses val without labels"
    columns: dict[str, Any] = {"image": pa.array(list(val.images), pa.string())}
    for head, attribute in enumerate(dataset.attributes):
        columns[attribute.name] = pa.array(val.labels[:, head], pa.int32())
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, compression="zstd")
    return content.getvalue()


def found_in(dataset: Dataset) -> list[dict[str, Any]]:
    """What is odd about the data set, as the run's manifest has it: {kind, count, sentence}, one a kind."""
    return [asdict(each) for each in findings_by_kind(dataset)]


def record_findings(run: Run, dataset: Dataset) -> None:
    """Add that to the manifest of a run which was begun before it was looked for."""
    if "findings" not in run.manifest:
        run.update_manifest(findings=found_in(dataset))


def described(models: Iterable[tuple[str, str]], class_counts: Sequence[int]) -> list[dict[str, Any]]:
    """Of each (backbone, weights) its parameters, and those of the backbone's stages in order of the forward pass."""
    return [
        {"backbone": backbone, "weights": weights, **_size(row(backbone), class_counts)}
        for backbone, weights in sorted(set(models))
    ]


def _size(of: BackboneRow, class_counts: Sequence[int]) -> dict[str, Any]:
    backbone, features = meta_backbone(complete_row(of))
    heads = sum((features + 1) * count for count in class_counts)  # linear, with a bias
    return {
        "parameters": _count(backbone) + heads,
        "backbone_parameters": _count(backbone),
        "head_parameters": heads,
        "stages": [
            {"name": name, "kind": type(module).__name__, "parameters": _count(module)}
            for name, module in stages_of(backbone)
        ],
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
