"""Which epoch of which trial is the best, and its promotion to `best/`; from the run directory alone.

Neither Ray nor torch nor safetensors is needed: a safetensors file begins with a length and a JSON header, and the
weights are copied as bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fashion.errors import CheckpointError, Problem, RunError
from fashion.record.journal import now, require_own, sync_folder, write_atomic
from fashion.record.run import Run
from fashion.record.trial import metrics_to_json, placeless
from fashion.record.validate import parse

FORMAT = 1
WEIGHTS = "model.safetensors"
MAX_HEADER = 100_000_000  # safetensors' own limit, bytes
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Ranked:
    """One trial at its best epoch. val_loss is finite; metrics are that epoch's; config as recorded."""

    trial: int
    epoch: int
    val_loss: float
    metrics: dict[str, float]
    config: dict[str, Any]


@dataclass(frozen=True)
class AttributeRow:
    """One attribute's validation result. Shares are in [0, 1]; counts are images of each class, in the classes' order.

    majority_accuracy: what predicting the training images' commonest class scores on the validation images.
    """

    name: str
    classes: tuple[str, ...]
    accuracy: float
    correct: int
    images: int
    majority_class: str
    majority_accuracy: float
    train_counts: tuple[int, ...]
    val_counts: tuple[int, ...]

    @property
    def gain(self) -> float:
        return self.accuracy - self.majority_accuracy


@dataclass(frozen=True)
class Lead:
    """How far the winner is ahead of the runner-up: both positive when the winner is better."""

    runner_up: Ranked
    val_loss: float
    val_accuracy: float


def ranking(run: Run) -> list[Ranked]:
    """Every trial with a finite val_loss at its lowest one over all its epochs, the best first.

    Of equal epochs the earliest counts, of equal trials the one with the lower number. Trials that failed later count.
    """
    ranked = [
        Ranked(trial.number, report.epoch, report.metrics["val_loss"], dict(report.metrics), trial.config)
        for trial in run.trials.values()
        if (report := trial.best()) is not None
    ]
    return sorted(ranked, key=lambda entry: (entry.val_loss, entry.trial))


def best(run: Run) -> Ranked:
    """The winner. Raises RunError when no trial has reported a finite val_loss."""
    ranked = ranking(run)
    if not ranked:
        rule = f"no trial has reported a finite val_loss ({len(run.trials)} trials recorded)"
        raise RunError(
            str(Problem(str(run.path), rule, fix="Let the sweep finish an epoch; failed trials say why in `show`"))
        )
    return ranked[0]


def lead(run: Run) -> Lead | None:
    """The winner's distance to the runner-up; None when fewer than two trials can be ranked."""
    ranked = ranking(run)
    if len(ranked) < 2:
        return None
    first, second = ranked[:2]
    ahead = first.metrics.get("val_accuracy", math.nan) - second.metrics.get("val_accuracy", math.nan)
    return Lead(second, second.val_loss - first.val_loss, ahead)


def attribute_table(manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> list[AttributeRow]:
    """A row an attribute from the metrics val_accuracy/NAME and the label counts in the run's manifest."""
    rows: list[AttributeRow] = []
    if not manifest["attributes"]:
        return rows
    counts = manifest["label_counts"]
    for attribute, train, val in zip(manifest["attributes"], counts["train"], counts["val"], strict=True):
        name, classes = attribute["name"], tuple(attribute["classes"])
        accuracy, images = metrics.get(f"val_accuracy/{name}", math.nan), sum(val)
        majority = max(range(len(train)), key=lambda index: train[index])  # the first of equal ones
        correct = round(accuracy * images) if math.isfinite(accuracy) else 0
        rows.append(
            AttributeRow(
                name,
                classes,
                accuracy,
                correct,
                images,
                classes[majority],
                val[majority] / images,
                tuple(train),
                tuple(val),
            )
        )
    return rows


def majority_accuracy(manifest: Mapping[str, Any]) -> float:
    """Overall validation accuracy of predicting each attribute's commonest training class."""
    rows = attribute_table(manifest, {})
    images = sum(row.images for row in rows)
    return sum(row.majority_accuracy * row.images for row in rows) / images if images else math.nan


def read_header(path: Path) -> dict[str, Any]:
    """The JSON under "fashion" in a safetensors file's metadata. Raises CheckpointError for a missing, foreign or
    truncated file."""

    def broken(rule: str, value: str = "", fix: str = "Restore the file, or train that trial again") -> CheckpointError:
        return CheckpointError(str(Problem(str(path), rule, value, fix)))

    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(MAX_HEADER, size - 8):
                raise broken("is no complete safetensors file", f"{size} bytes")
            header = parse(stream.read(length))
    except IsADirectoryError:
        raise broken("is no safetensors file", "a folder") from None
    except FileNotFoundError:
        raise broken(
            "the checkpoint is missing", fix="If the sweep was killed, type its command again to go on"
        ) from None
    except ValueError as error:
        raise broken("is no safetensors file", str(error)) from None
    if not isinstance(header, dict):
        raise broken("is no safetensors file", "its header is no JSON object")
    try:
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if size != 8 + length + end:
            raise broken("is truncated or has grown", f"{size} bytes instead of {8 + length + end}")
        fashion = parse(metadata["fashion"])
        fashion["report"]["trial"], fashion["report"]["epoch"], fashion["config"], fashion["data_fingerprint"]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise broken("was not written by fashion-sweep", repr(error)) from None
    return dict(fashion)


def check_checkpoint(run: Run, winner: Ranked, path: Path) -> None:
    """Raise CheckpointError unless the header says that it is the winner's trial, epoch, configuration and data."""
    header = read_header(path)
    origin = run.trials[winner.trial].origin
    expected = {
        "trial": (origin[1] if origin else winner.trial, header["report"]["trial"]),
        "epoch": (winner.epoch, header["report"]["epoch"]),
        "configuration": (placeless(winner.config), placeless(header["config"])),
        "data fingerprint": (run.manifest["data_fingerprint"], header["data_fingerprint"]),
    }
    for what, (wanted, found) in expected.items():
        if wanted != found:
            rule = f"belongs to another {what} than the record says, {str(wanted)[:80]}"
            raise CheckpointError(str(Problem(str(path), rule, str(found)[:80], "The file was replaced or renamed")))


def promote(run: Run, winner: Ranked | None = None) -> Path:
    """Copy the winner's weights to best/model.safetensors and write best/model.json; returns `best/`.

    The folder is made beside its place and renamed, so that it is whole or absent. Raises RunError when there is
    nothing to promote, CheckpointError when the checkpoint is missing, damaged or not the recorded one.
    """
    winner = winner or best(run)
    source = run.checkpoint_path(winner.trial, winner.epoch)
    require_own(run.path)
    lock = FileLock(run.path / "best.lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise RunError(
            str(Problem(str(run.best_dir), f"another process has been promoting for {LOCK_SECONDS:g} s"))
        ) from None
    try:
        check_checkpoint(run, winner, source)
        for leftover in run.path.glob(".best.*"):  # of a promotion that was killed; the lock says that none runs
            _remove(leftover)
        fresh = Path(tempfile.mkdtemp(prefix=".best.", dir=run.path))
        try:
            fresh.chmod(0o755)
            digest, size = _whole(run, source, fresh / WEIGHTS)
            write_atomic(fresh / "model.json", _model_json(run, winner, digest, size))
            if run.best_dir.exists():
                os.rename(run.best_dir, fresh.with_name(fresh.name + ".old"))
            os.rename(fresh, run.best_dir)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync_folder(run.path)
        for replaced in run.path.glob(".best.*"):
            _remove(replaced)
    finally:
        lock.release()
    return run.best_dir


def _remove(path: Path) -> None:
    """A folder, or the file that somebody had put in its place. (No symbolic link: `require_own` has refused those.)"""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _whole(run: Run, source: Path, target: Path) -> tuple[str, int]:
    """Write the winner's weights to `target`; a probe's checkpoint holds its heads alone, its backbone lies beside."""
    header = read_header(source)
    if "backbone" not in header:
        return _copy(source, target)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save  # numpy only here, where it is needed

    backbone = run.path / "trials" / Path(str(header["backbone"])).name
    if not backbone.is_file():
        fix = "Restore the file, or train that trial again"
        raise CheckpointError(str(Problem(str(backbone), "the frozen backbone is missing", fix=fix)))
    tensors: dict[str, Any] = {}
    for path in (backbone, source):
        try:
            tensors |= load_file(path)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            rule = "must be a whole safetensors file"
            fix = "Restore the file, or train that trial again"
            raise CheckpointError(str(Problem(str(path), rule, str(error), fix))) from error
    content = save(tensors, {"fashion": json.dumps(header)})
    write_atomic(target, content)
    return hashlib.sha256(content).hexdigest(), len(content)


def _copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy and fsync; returns the sha256 of what was written and its size in bytes."""
    digest = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
        write.flush()
        os.fsync(write.fileno())
        return digest.hexdigest(), write.tell()


def _model_json(run: Run, winner: Ranked, digest: str, size: int) -> bytes:
    manifest = run.manifest
    content = {
        "format": FORMAT,
        "run": run.name,
        "trial": winner.trial,
        "epoch": winner.epoch,
        "config": winner.config,
        "attributes": [{"name": entry["name"], "classes": list(entry["classes"])} for entry in manifest["attributes"]],
        "data_fingerprint": manifest["data_fingerprint"],
        "metrics": metrics_to_json(winner.metrics),
        "label_counts": manifest["label_counts"],
        "weights": {"file": WEIGHTS, "sha256": digest, "bytes": size},
        "versions": {"fashion-sweep": manifest.get("code_version", ""), **manifest.get("packages", {})},
        "promoted": now(),
    }
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"
