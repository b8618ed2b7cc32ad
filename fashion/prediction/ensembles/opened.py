"""What is in a promoted folder, a model or an ensemble, ready to predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from fashion.prediction.ensembles.predict_members import pictures_of_members, predict_members
from fashion.prediction.ensembles.promoted_ensemble import PromotedEnsemble, read_ensemble
from fashion.prediction.pictures import Pictures, PredictionInput, pictures_of
from fashion.prediction.pieces import Piece, predict_pieces
from fashion.prediction.promoted import Promoted, load_promoted


@dataclass(frozen=True)
class OpenedModel:
    """meta: what is known of the model, or of an ensemble's members together. predict: into a folder for pieces."""

    meta: Promoted | PromotedEnsemble
    pictures: Pictures
    predict: Callable[[Path], Iterable[Piece]]


def opened_for(
    promoted: Path,
    source: PredictionInput,
    cache_dir: Path | None,
    device: torch.device | str,
    progress: Callable[[int, int], None] | None,
) -> OpenedModel:
    """The model, or the ensemble, in a folder, and the pictures of `source` as it sees them.

    Raises CheckpointError where the folder is incomplete or damaged, and what `pictures_of` raises.
    """
    ensemble = read_ensemble(promoted)
    if ensemble is not None:
        each = pictures_of_members(ensemble, source, cache_dir, progress)
        return OpenedModel(
            ensemble, each[0], lambda kept: predict_members(promoted, ensemble, each, kept, device, progress)
        )
    model, meta = load_promoted(promoted, device)
    pictures = pictures_of(source, meta, cache_dir, progress)
    return OpenedModel(
        meta,
        pictures,
        lambda kept: predict_pieces(model, meta, meta.weights_digest, pictures, kept, device, progress),
    )
