"""Predictions a piece at a time: memory does not grow with the pictures, and what is interrupted goes on.

Each piece is kept in a file until the whole prediction is written. A file is named after everything that its numbers
depend on, so that a later prediction takes it as it is or not at all. A piece is whole batches, so that each picture is
in the batch that it would be in if all were predicted at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fashion.errors import DataError, Problem
from fashion.files import write_atomic
from fashion.prediction.pictures import Pictures
from fashion.prediction.predict import predict
from fashion.prediction.promoted import Promoted
from fashion.training.evaluate import evaluation_batch_size

FORMAT = 1
LARGEST = 256 << 20  # bytes of pixels in a piece
MOST = 4096  # pictures in a piece: about as much is done twice after an interruption
SHOWN = 100  # pictures that can't be used of which an error tells; further ones are counted


@dataclass(frozen=True, eq=False)
class Piece:
    """The predictions for n pictures that follow one another.

    classes: (n, columns) int64, as `Predictions` has them. probabilities: (n, classes) float32 for each head. problems:
    row -> why that picture has no prediction; its row of classes and probabilities means nothing.
    """

    names: tuple[str, ...]
    classes: NDArray[np.int64]
    probabilities: tuple[NDArray[np.float32], ...]
    problems: dict[int, str]

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(n,): which rows have a prediction."""
        mask = np.ones(len(self.names), np.bool_)
        mask[list(self.problems)] = False
        return mask


@dataclass(frozen=True, eq=False)
class Pieces:
    """All pieces of a prediction, each in a file."""

    names: tuple[str, ...]
    files: tuple[Path, ...]
    rows: int  # of a piece; the last one may have fewer

    def __iter__(self) -> Iterator[Piece]:
        for index, file in enumerate(self.files):
            names = self.names[index * self.rows : (index + 1) * self.rows]
            piece = _read(file, names)
            if piece is None:
                raise OSError(f"{file} was changed while it was in use")
            yield piece


def rows_of_piece(promoted: Promoted, device: torch.device | str) -> int:
    """How many pictures a piece has: whole evaluation batches."""
    data = promoted.config.data
    batch = evaluation_batch_size(promoted.config.train.batch_size, data.crop, device)
    return batch * max(1, min(LARGEST // (batch * data.resize**2 * 3), MOST // batch))


def predict_pieces(
    model: nn.Module,
    promoted: Promoted,
    weights: str,
    pictures: Pictures,
    folder: Path,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Pieces:
    """Predict each piece that `folder` does not hold yet. weights: what identifies the model's.

    Raises DataError listing the pictures that can't be used, unless they are to be skipped; pieces before the first of
    them stay in the folder.
    """
    total, rows = len(pictures.names), rows_of_piece(promoted, device)
    names = tuple(pictures.names)
    files: list[Path] = []
    problems: list[Problem] = []
    for start in range(0, total, rows):
        stop = min(start + rows, total)
        file = folder / f"{_key(promoted, weights, pictures, start, stop, device)}.npz"
        files.append(file)
        piece = _read(file, names[start:stop])
        if piece is None:
            pixels, wrong = pictures.pixels.read(start, stop)
            if wrong and pictures.on_error == "refuse":
                problems += wrong.values()
            if not problems:  # otherwise the others are only looked at, to tell of all at once
                note = None if progress is None else _shifted(progress, start, total)
                found = predict(model, promoted, pixels, names[start:stop], device=device, progress=note)
                said = {row: problem.value or problem.rule for row, problem in wrong.items()}
                piece = Piece(found.names, found.classes, found.probabilities, said)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(file, _content(piece))
        elif piece.problems and pictures.on_error == "refuse":
            rule = "must be a complete image"
            problems += [Problem(piece.names[row], rule, why) for row, why in piece.problems.items()]
        if progress is not None:
            progress(stop, total)
    if problems:
        raise _refused(problems)
    return Pieces(names, tuple(files), rows)


def _shifted(progress: Callable[[int, int], None], start: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: progress(start + done, total)


def _refused(problems: list[Problem]) -> DataError:
    more = len(problems) - SHOWN
    shown = [*problems[:SHOWN], *([Problem("...", f"and {more:,} more")] if more > 0 else [])]
    way = "With --on-error skip such images are left out, and a row for each says why"
    return DataError(f"Images can't be used. {way}:", shown)


def _key(
    promoted: Promoted, weights: str, pictures: Pictures, start: int, stop: int, device: torch.device | str
) -> str:
    """A digest of what the numbers of a piece depend on, to the last bit."""
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else f"{kind}, {torch.get_num_threads()} threads"
    said = [FORMAT, weights, promoted.config.model_dump(mode="json"), name, torch.__version__, start, stop]
    return hashlib.sha256(json.dumps(said).encode() + pictures.pixels.stamp(start, stop)).hexdigest()[:32]


def _content(piece: Piece) -> bytes:
    buffer = io.BytesIO()
    problems = json.dumps(piece.problems).encode()
    heads: dict[str, Any] = {f"head{number}": head for number, head in enumerate(piece.probabilities)}
    np.savez(buffer, classes=piece.classes, problems=np.frombuffer(problems, np.uint8), **heads)
    return buffer.getvalue()


def _read(file: Path, names: tuple[str, ...]) -> Piece | None:
    """A piece that was kept; None where there is none, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as found:
            heads = tuple(found[f"head{number}"] for number in range(len(found.files) - 2))
            problems = {int(row): str(why) for row, why in json.loads(found["problems"].tobytes()).items()}
            piece = Piece(names, found["classes"], heads, problems)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError):
        return None
    return piece if len(piece.classes) == len(names) else None
