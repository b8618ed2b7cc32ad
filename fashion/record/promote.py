"""Promoting the winner to `best/`, from the run directory alone.

Neither Ray nor torch is needed, since weights are copied as bytes. Only a probe needs safetensors, to join its heads
with its backbone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fashion.errors import CheckpointError, Problem, RunError
from fashion.files import (
    KernelLock,
    new_folder,
    now,
    parse,
    rename_folder,
    require_own,
    sync,
    sync_folder,
    write_atomic,
)
from fashion.record.cards.model_card import NAME as CARD
from fashion.record.cards.model_card import model_card
from fashion.record.cards.refit_words import unseen
from fashion.record.manifest import versions_of
from fashion.record.ranking import Ranked, best
from fashion.record.run import Run
from fashion.record.trial import metrics_to_json, placeless, trained_on_val
from fashion.record.trial_files import read_header

FORMAT = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
LOCK_SECONDS = 60.0


def check_checkpoint(run: Run, winner: Ranked, path: Path) -> None:
    """Raise CheckpointError unless the header names the winner's trial, epoch, configuration and data."""
    header = read_header(path)
    origin = run.trials[winner.trial].origin
    expected = {
        "trial": (origin[1] if origin else winner.trial, header["report"]["trial"]),
        "epoch": (winner.epoch, header["report"]["epoch"]),
        "configuration": (placeless(winner.config), placeless(header["config"])),
        "data fingerprint": (run.manifest["data_fingerprint"], header["data_fingerprint"]),
    }
    for what, (wanted, found) in expected.items():
        if wanted != found and not (what == "configuration" and _same_trial(wanted, found)):
            rule = f"belongs to another {what} than the record says, {str(wanted)[:80]}"
            raise CheckpointError(Problem(str(path), rule, str(found)[:80], "The file was replaced or renamed"))


def _same_trial(one: Any, other: Any) -> bool:
    """Whether two recorded configurations, whose plain forms differ, mean the same: one may lack a field that versions
    after it have added."""
    from fashion.config.trial import same_anywhere  # pydantic only here, where it is needed: `best` must start at once

    return same_anywhere(one, other)


def promote(run: Run, winner: Ranked | None = None) -> Path:
    """Copy the winner's weights to best/model.safetensors, and write best/model.json and the card beside it. Returns
    `best/`.

    The folder is whole or absent at any moment. Raises RunError where
    there is nothing to promote, CheckpointError where the checkpoint is missing, damaged or not the recorded one.
    """
    winner = winner or best(run)
    source = run.checkpoint_path(winner.trial, winner.epoch)
    with replacing(run, run.best_dir.name, WEIGHTS, lambda: check_checkpoint(run, winner, source)) as fresh:
        description = write_model(run, winner, fresh, WEIGHTS, DESCRIPTION)
        write_atomic(fresh / CARD, model_card(run.manifest, description).encode(errors="backslashreplace"))
    return run.best_dir


@contextmanager
def replacing(run: Run, name: str, last_gone: str, check: Callable[[], None]) -> Iterator[Path]:
    """A new folder, which takes the place of the run's folder `name` when the block ends. It is made under another name
    and then renamed, so that `name` is whole or absent. last_gone: of the files that were there the last to go, where
    a folder can't be renamed. check: is called first, while no other process promotes.

    Raises RunError where another process keeps promoting, and what `check` and the block raise; all stays as it was
    then.
    """
    target = run.path / name
    require_own(run.path)
    lock = KernelLock(run.path / "best.lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except TimeoutError:
        raise RunError(Problem(str(target), f"another process has been promoting for {LOCK_SECONDS:g} s")) from None
    try:
        check()
        for leftover in run.path.glob(f".{name}.*"):  # left by a killed promotion: the lock says that none is running
            _remove(leftover)
        fresh = new_folder(target)
        try:
            yield fresh
            if target.exists():
                rename_folder(target, fresh.with_name(fresh.name + ".old"), last=last_gone)
            rename_folder(fresh, target, last=DESCRIPTION)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync_folder(run.path)
        for replaced in run.path.glob(f".{name}.*"):
            _remove(replaced)
    finally:
        lock.release()


def write_model(run: Run, winner: Ranked, folder: Path, weights: str, description: str) -> dict[str, Any]:
    """Write a trial's whole weights and what is to be said of them into a folder, under these names. Returns what the
    description says.

    Raises CheckpointError where a file is missing or damaged.
    """
    digest, size = _whole(run, run.checkpoint_path(winner.trial, winner.epoch), folder / weights)
    said = _description(run, winner, weights, digest, size)
    write_atomic(folder / description, json.dumps(said, indent=2, allow_nan=False).encode() + b"\n")
    return said


def promoted(run: Run) -> tuple[int, int] | None:
    """The trial and the epoch of what `best/` holds; None where it holds nothing whole."""
    try:
        content = parse((run.best_dir / DESCRIPTION).read_bytes())
        return (content["trial"], content["epoch"]) if (run.best_dir / WEIGHTS).is_file() else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: it will be written anew


def _remove(path: Path) -> None:
    """Remove a folder, or a file in its place. It is no symbolic link, since `require_own` refuses those."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _whole(run: Run, source: Path, target: Path) -> tuple[str, int]:
    """Write the winner's whole weights to `target`. Returns their SHA-256 and their size in bytes.

    A probe's checkpoint holds only its heads. The backbone is in a file beside it, and is joined with them.
    """
    header = read_header(source)
    if "backbone" not in header:
        return _copy(source, target)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save  # imported here, since only probes need numpy

    backbone = run.path / "trials" / Path(str(header["backbone"])).name
    if not backbone.is_file():
        fix = "Restore the file, or train that trial again"
        raise CheckpointError(Problem(str(backbone), "the frozen backbone is missing", fix=fix))
    tensors: dict[str, Any] = {}
    for path in (backbone, source):
        try:
            tensors |= load_file(path)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            rule = "must be a whole safetensors file"
            fix = "Restore the file, or train that trial again"
            raise CheckpointError(Problem(str(path), rule, str(error), fix)) from error
    if folds := header["config"]["data"].get("folds"):
        tensors = _with_backbone_in_each(tensors, folds)
    content = save(tensors, {"fashion": json.dumps(header)})
    write_atomic(target, content)
    return hashlib.sha256(content).hexdigest(), len(content)


def _with_backbone_in_each(tensors: dict[str, Any], folds: int) -> dict[str, Any]:
    """The backbone, which all folds' models share, under the names that it has in each of them."""
    backbone = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    each = {f"folds.{fold}.{name}": tensor for fold in range(folds) for name, tensor in backbone.items()}
    return {**{name: tensor for name, tensor in tensors.items() if name not in backbone}, **each}


def _copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy and fsync a file. Returns the SHA-256 of its content and its size in bytes."""
    digest = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
        write.flush()
        sync(write.fileno(), target)
        return digest.hexdigest(), write.tell()


def _versions(run: Run, number: int) -> dict[str, str]:
    """Under which the trial was trained; where that changed on the way, at its end."""
    *_, changed = run.trials[number].each_versions()
    return {name: version for name, version in {**versions_of(run.manifest), **changed}.items() if version}


def _description(run: Run, winner: Ranked, weights: str, digest: str, size: int) -> dict[str, Any]:
    """What model.json says."""
    manifest = run.manifest
    return {
        "format": FORMAT,
        "run": run.name,
        "trial": winner.trial,
        "epoch": winner.epoch,
        "config": winner.config,
        "attributes": [
            {key: entry[key] for key in ("name", "classes", "multi_label") if key in entry}
            for entry in manifest["attributes"]
        ],
        "data_fingerprint": manifest["data_fingerprint"],
        "metrics": metrics_to_json(unseen(winner.metrics, trained_on_val(winner.config))),
        "label_counts": manifest["label_counts"],
        "weights": {"file": weights, "sha256": digest, "bytes": size},
        "versions": _versions(run, winner.trial),
        "promoted": now(),
    }
