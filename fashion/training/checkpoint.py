"""What a trial leaves in its folder, each written to a temporary file and renamed.

`last.pt` resumes the trial, and `last-previous.pt`, the one before it, does where that can't be read.
`best-0004.safetensors` holds the weights of its best epoch and, in the file's own metadata, everything that rebuilds
and explains the model; `val-0004.parquet` holds that epoch's validation predictions. Nothing is read by executing
pickles.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from fashion.config.trial import TrialConfig
from fashion.errors import BlockedError, CheckpointError, Superseded, refusal
from fashion.files import restore_rights, sync
from fashion.record.trial import metrics_from_json
from fashion.record.trial_files import CLAIM, LAST, PREVIOUS, read_header
from fashion.record.validate import MULTI_LABEL
from fashion.training.state import TrialState, from_plain, last_epoch

METADATA_KEY = "fashion"
FORMAT = 1

_claims: dict[Path, str] = {}  # the folders that this process writes checkpoints into, with its mark


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block this process alone may write checkpoints into `folder`; a process that claimed it before is
    refused (Superseded).

    A process on a machine that was cut off from the cluster may live on and reach the disk while its trial goes on
    elsewhere: without this it would replace a newer checkpoint with an older one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    temporary = folder / f"{CLAIM}.{mark}.tmp"
    temporary.write_text(mark)
    os.replace(temporary, folder / CLAIM)
    _claims[folder] = mark
    try:
        yield
    finally:
        if _claims.get(folder) == mark:
            del _claims[folder]


def _require_claim(folder: Path) -> None:
    if folder in _claims and not holds_claim(folder):
        raise Superseded(f"{folder}: another process has taken over this trial")


def holds_claim(folder: Path) -> bool:
    """Whether this process was the last to claim `folder`. False once the trial has ended, too."""
    try:
        return (folder / CLAIM).read_text() == _claims.get(folder)
    except FileNotFoundError:
        return False


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()  # what is read-only says so here in the system's own words
        rights = temporary.stat().st_mode
        write(temporary)
        restore_rights(temporary, rights)  # safetensors makes a file anew, for its user alone
        # On disk before the name is: a power cut must not leave the name with half the bytes.
        with open(temporary, "rb") as file:
            sync(file.fileno(), path)
        _require_claim(path.parent)
        if path.name == LAST and path.exists():
            # A kill between the two renames leaves the previous one alone, whose next epoch no report told of yet.
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        if reason := refusal(_as_os_error(error), str(path)):
            raise BlockedError(reason) from error
        raise
    finally:
        if temporary.exists():
            temporary.unlink()


def _as_os_error(error: Exception) -> Exception:
    """The OSError behind an exception of torch, which drops its number, or of safetensors, which keeps it as text."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if "inline_container.cc" in str(error):  # torch's writer: all that can fail in it is to write
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


def save_weights(path: Path, state: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Write `state` as safetensors with `meta` as JSON under the metadata key "fashion"."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _replace(path, lambda temporary: save_file(tensors, temporary, {METADATA_KEY: json.dumps(meta)}))


def save_predictions(
    path: Path,
    images: Sequence[str],
    attributes: Sequence[str],
    probabilities: Sequence[np.ndarray],
    multi_label: Sequence[bool] = (),
) -> None:
    """Class probabilities per image: column `image`, then one list of float32 per attribute ((N, classes) each). The
    column of a multi-label one has the metadata "multi_label": "true"."""
    columns: list[pa.Array] = [pa.array(images, pa.string())]
    fields = [pa.field("image", pa.string())]
    for name, values, multi in zip(attributes, probabilities, multi_label or [False] * len(attributes), strict=True):
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        fields.append(pa.field(name, columns[-1].type, metadata=MULTI_LABEL if multi else None))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    _replace(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def save_last(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the resumable state in its plain form (`training.state.to_plain`). The one before it stays beside it until
    the next call: should one be damaged, the trial loses an epoch and not all of them."""
    _replace(folder / LAST, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))


def load_state(path: Path) -> TrialState:
    """Read a resumable state that this or an earlier version wrote. Raises CheckpointError."""
    plain = load_last(path)
    with contents_of(path):
        return from_plain(plain)


def load_last(path: Path) -> dict[str, Any]:
    """Read a resumable state in its plain form (`training.state`), without executing pickles.

    Raises:
        CheckpointError: truncated, of another format, or holding anything but plain data.
    """
    state = _load(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {FORMAT} expected. Delete it to start this trial again.")
    return state


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged bytes make torch's restricted unpickler raise nearly anything, so the one call is guarded as a whole.
        unsafe = type(error).__name__ == "UnpicklingError"
        rule = "holds more than plain data, refused" if unsafe else f"not a readable checkpoint ({error})"
        raise CheckpointError(f"{path}: {rule}. Delete it to start this trial again.") from error


class Mended(NamedTuple):
    """What `mend_last` found. `told`: a sentence for the user, empty when nothing was wrong. `best_epoch`, `best_loss`:
    the kept best epoch among those that will be trained again, and its val_loss; 0 and infinity when there is none."""

    told: str = ""
    best_epoch: int = 0
    best_loss: float = math.inf


def mend_last(folder: Path) -> Mended:
    """Make sure that `last.pt` can be read: replace a damaged one with the one before it, or remove both, so that the
    trial starts again.

    The best weights stay: they belong to a recorded epoch, although it is trained again.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.exists():
        if not previous.exists():
            return Mended()
        os.replace(previous, last)
    damage = _damage(last)
    if not damage:
        return Mended()
    if previous.exists() and not _damage(previous):
        os.replace(previous, last)
        plain = load_last(last)
        with contents_of(last):
            epoch = last_epoch(plain)
        told = f"{damage}; it goes on from the checkpoint before, epoch {epoch}"
    else:
        for path in (last, previous):
            path.unlink(missing_ok=True)
        epoch, told = 0, f"{damage}, and there is none before it: the trial starts again"
    best_epoch, best_loss = 0, math.inf
    for path in folder.glob("best-*.safetensors"):
        try:
            found = read_header(path)["report"]
        except CheckpointError:
            continue  # it is damaged, too, and will be written again
        if found["epoch"] > epoch:
            best_epoch, best_loss = found["epoch"], metrics_from_json(found["metrics"])["val_loss"]
    return Mended(told, best_epoch, best_loss)


def _damage(path: Path) -> str:
    try:
        _load(path)
    except CheckpointError as error:
        reason, _, _ = str(error).partition(". Delete")
        return f"its checkpoint can't be read ({reason})"
    return ""


@contextmanager
def contents_of(path: Path) -> Iterator[None]:
    """Whatever goes wrong within the block is the fault of what the readable checkpoint `path` holds: a
    CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        text = f"{path}: does not hold this trial's state ({type(error).__name__}: {str(error)[:200]})."
        raise CheckpointError(f"{text} Delete it to start this trial again.") from error


def standing(path: Path, config: TrialConfig, fingerprint: str) -> tuple[int, int]:
    """How far the state in `path` is: whole epochs, and steps of the next one. (0, 0) where there is none, or none that
    a trial of this configuration and data can go on from."""
    try:
        state = load_state(path)
    except CheckpointError:
        return 0, 0
    return state.at if (state.config, state.fingerprint) == (config, fingerprint) else (0, 0)
