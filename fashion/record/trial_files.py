"""The files in a trial's folder: their names, and what a checkpoint's header says.

A safetensors file begins with a length and a JSON header, so neither torch nor safetensors is needed to read that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fashion.errors import CheckpointError, Problem
from fashion.files import parse

LAST = "last.pt"
PREVIOUS = "last-previous.pt"
CLAIM = ".writer"  # the mark of the process whose checkpoints count
MICRO_BATCHES = "micro-batches.json"  # into how many parts the trial splits its batches after it ran out of memory
ERROR = "error.txt"  # the traceback with which it failed
EVENTS = "tb"
PROGRESS = "progress.json"  # how far it has come in its current epoch
OF_BEST = re.compile(r"(?:best|val)-(\d{4,})\.(?:safetensors|parquet)")
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit


def read_header(path: Path) -> dict[str, Any]:
    """The JSON under "fashion" in a safetensors file's metadata.

    Raises CheckpointError for a missing, foreign or truncated file.
    """

    def broken(rule: str, value: str = "", fix: str = "Restore the file, or train that trial again") -> CheckpointError:
        return CheckpointError(Problem(str(path), rule, value, fix))

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
        fix = "If the sweep was killed, run the same command again to go on"
        raise broken("the checkpoint is missing", fix=fix) from None
    except ValueError as error:
        raise broken("is no safetensors file", str(error)) from None
    if not isinstance(header, dict):
        raise broken("is no safetensors file", "a header that is no JSON object")
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


def folder_name(number: int) -> str:
    """A trial's folder, relative to the run's: trials/0007."""
    return f"trials/{number:04d}"


def event_folders(run: Path, number: int) -> list[Path]:
    """The folders with a trial's TensorBoard events: in the run's `tb`, named after what was sampled for the trial, so
    that TensorBoard shows that as the run's name. Up to version 0.1.0 it was `tb` in the trial's own folder."""
    name = f"{number:04d}"
    found = [run / EVENTS / name, *(run / EVENTS).glob(f"{name} *"), run / folder_name(number) / EVENTS]
    return [folder for folder in found if folder.is_dir()]


def event_files(run: Path, number: int) -> list[Path]:
    """The files in those folders."""
    return sorted(path for folder in event_folders(run, number) for path in folder.glob("*"))


def events_by_trial(run: Path) -> dict[int, list[Path]]:
    """The same of every trial that has any, with one look at each folder."""
    found: dict[int, list[Path]] = {}
    for path in sorted([*(run / EVENTS).glob("*/*"), *run.glob(f"trials/*/{EVENTS}/*")]):
        number = (path.parent.parent if path.parent.name == EVENTS else path.parent).name.partition(" ")[0]
        if number.isdigit():
            found.setdefault(int(number), []).append(path)
    return found


def best_name(epoch: int) -> str:
    """The file of the weights of a trial's best epoch."""
    return f"best-{epoch:04d}.safetensors"


def predictions_name(epoch: int) -> str:
    """The file of that epoch's class probabilities for each validation image."""
    return f"val-{epoch:04d}.parquet"


def best_path(folder: Path, epoch: int) -> Path:
    return folder / best_name(epoch)


def predictions_path(folder: Path, epoch: int) -> Path:
    return folder / predictions_name(epoch)


def epoch_of(name: str) -> int | None:
    """The epoch to which a file of a best epoch belongs; None for any other file."""
    found = OF_BEST.fullmatch(name)
    return int(found[1]) if found else None


def kept_epochs(names: Iterable[str]) -> list[int]:
    """The epochs whose weights are among the files of a trial's folder, in order."""
    found = (epoch_of(name) for name in names if name.endswith(".safetensors"))
    return sorted(epoch for epoch in found if epoch is not None)


def prune(folder: Path, keep: set[int]) -> None:
    """Remove the best weights and predictions of every epoch that is not in `keep`."""
    for path in folder.glob("*"):
        epoch = epoch_of(path.name)
        if epoch is not None and epoch not in keep and not path.is_dir():
            path.unlink(missing_ok=True)
