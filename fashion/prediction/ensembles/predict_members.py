"""Prediction with an ensemble: one member after the other predicts all pictures as it sees them, a piece at a time, and
the pieces are put together while they are written. So memory holds one network, and what is interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fashion.errors import CheckpointError, DataError, Problem
from fashion.prediction.ensembles.promoted_ensemble import PromotedEnsemble
from fashion.prediction.pictures import Pictures, PredictionInput, pictures_of
from fashion.prediction.pieces import Piece, Pieces, predict_pieces
from fashion.prediction.promoted import load_promoted

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class EnsemblePieces:
    """The predictions of all members together, piece by piece, each as large as the first member's. It may be iterated
    several times."""

    ensemble: PromotedEnsemble
    members: tuple[Pieces, ...]

    def __iter__(self) -> Iterator[Piece]:
        rows = self.members[0].rows
        for parts in zip(*(resliced(pieces, rows) for pieces in self.members), strict=True):
            classes, probabilities = self.ensemble.together([part.probabilities for part in parts])
            problems = {row: why for part in reversed(parts) for row, why in part.problems.items()}
            yield Piece(parts[0].names, classes, probabilities, dict(sorted(problems.items())))


def resliced(pieces: Iterable[Piece], rows: int) -> Iterator[Piece]:
    """The same predictions in pieces of so many rows, the last of which may have fewer."""
    waiting: Piece | None = None
    for piece in pieces:
        waiting = piece if waiting is None else _joined(waiting, piece)
        while len(waiting.names) >= rows:
            yield _rows(waiting, 0, rows)
            waiting = _rows(waiting, rows, len(waiting.names))
    if waiting is not None and waiting.names:
        yield waiting


def _joined(first: Piece, second: Piece) -> Piece:
    return Piece(
        first.names + second.names,
        np.concatenate([first.classes, second.classes]),
        tuple(np.concatenate(heads) for heads in zip(first.probabilities, second.probabilities, strict=True)),
        {**first.problems, **{len(first.names) + row: why for row, why in second.problems.items()}},
    )


def _rows(piece: Piece, start: int, stop: int) -> Piece:
    return Piece(
        piece.names[start:stop],
        piece.classes[start:stop],
        tuple(head[start:stop] for head in piece.probabilities),
        {row - start: why for row, why in piece.problems.items() if start <= row < stop},
    )


def pictures_of_members(
    ensemble: PromotedEnsemble, source: PredictionInput, cache_dir: Path | None, progress: Progress | None
) -> tuple[Pictures, ...]:
    """The pictures as each member was trained on them. What is done about one that can't be decoded is the first
    member's, unless `source` says it.

    Raises what `pictures_of` raises, and DataError where the members, which may be of runs that read the data set in
    different ways, do not see the same pictures.
    """
    source = replace(source, on_error=source.on_error or ensemble.members[0].config.data.on_error)
    found = tuple(pictures_of(source, member, cache_dir, progress) for member in ensemble.members)
    for name, each in zip(ensemble.descriptions, found, strict=True):
        if list(each.names) != list(found[0].names):
            rule = f"must see the pictures that {ensemble.descriptions[0]} sees"
            got = f"{len(each.names)} instead of {len(found[0].names)}, or in another order"
            raise DataError("The members do not see the same pictures:", [Problem(name, rule, got)])
    return found


def predict_members(
    directory: Path,
    ensemble: PromotedEnsemble,
    pictures: Sequence[Pictures],
    folder: Path,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> EnsemblePieces:
    """Predict each piece of each member that `folder` does not hold yet. progress: is told of all members' pictures.

    Raises what `load_promoted` and `predict_pieces` raise.
    """
    pieces = []
    for place, (name, own) in enumerate(zip(ensemble.descriptions, pictures, strict=True)):
        model, meta = load_promoted(directory, device, name)
        if meta.attributes != ensemble.attributes:
            raise CheckpointError(Problem(str(directory / name), "was replaced meanwhile"))
        told = None if progress is None else _shifted(progress, place, len(pictures))
        pieces.append(predict_pieces(model, meta, meta.weights_digest, own, folder, device, told))
    return EnsemblePieces(ensemble, tuple(pieces))


def _shifted(progress: Progress, place: int, members: int) -> Progress:
    return lambda done, total: progress(place * total + done, members * total)
