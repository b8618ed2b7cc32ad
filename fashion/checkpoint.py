"""What a trial leaves in its folder, each written to a temporary file and renamed.

`last.pt` resumes the trial; `best-0004.safetensors` holds the weights of its best epoch with, in the file's own
metadata, everything that rebuilds and explains the model; `val-0004.parquet` that epoch's validation predictions.
Nothing here is read by executing pickles.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from fashion.errors import CheckpointError

LAST = "last.pt"
METADATA_KEY = "fashion"
FORMAT = 1


def best_path(folder: Path, epoch: int) -> Path:
    return folder / f"best-{epoch:04d}.safetensors"


def predictions_path(folder: Path, epoch: int) -> Path:
    return folder / f"val-{epoch:04d}.parquet"


def _replace(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        # On disk before the name is: a power cut must not leave the name with half the bytes.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: Path, state: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Write `state` as safetensors with `meta` as JSON under the metadata key "fashion"."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _replace(path, lambda temporary: save_file(tensors, temporary, {METADATA_KEY: json.dumps(meta)}))


def save_predictions(
    path: Path, images: Sequence[str], attributes: Sequence[str], probabilities: Sequence[np.ndarray]
) -> None:
    """Class probabilities per image: column `image`, then one list of float32 per attribute ((N, classes) each)."""
    columns: dict[str, pa.Array] = {"image": pa.array(images)}
    for name, values in zip(attributes, probabilities, strict=True):
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    _replace(path, lambda temporary: pq.write_table(pa.table(columns), temporary, compression="zstd"))


def save_last(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the resumable state (tensors, numbers, strings and containers of them only)."""
    _replace(folder / LAST, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))


def load_last(path: Path) -> dict[str, Any]:
    """Read a resumable state without executing pickles.

    Raises:
        CheckpointError: truncated, of another format, or holding anything but plain data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged bytes make torch's restricted unpickler raise nearly anything, so the one call is guarded as a whole.
        unsafe = type(error).__name__ == "UnpicklingError"
        rule = "holds more than plain data, refused" if unsafe else f"not a readable checkpoint ({error})"
        raise CheckpointError(f"{path}: {rule}. Delete it to start this trial again.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {FORMAT} expected. Delete it to start this trial again.")
    return state


@contextmanager
def contents_of(path: Path) -> Iterator[None]:
    """Within, whatever goes wrong is the fault of what the readable checkpoint `path` holds: a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        text = f"{path}: does not hold this trial's state ({type(error).__name__}: {str(error)[:200]})."
        raise CheckpointError(f"{text} Delete it to start this trial again.") from error


def prune(folder: Path, keep: set[int]) -> None:
    """Remove the best weights and predictions of every epoch that is not in `keep`."""
    for path in folder.glob("*"):
        found = re.fullmatch(r"(?:best|val)-(\d{4,})\.(?:safetensors|parquet)", path.name)
        if found and int(found[1]) not in keep:
            path.unlink(missing_ok=True)
