"""The predict step: from a promoted model to validated files, here or for a run in a bucket."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.bucket.address import Address
from fashion.bucket.store import Store
from fashion.data.layout import split_labels
from fashion.data.lists import MISSING
from fashion.errors import BlockedError, CheckpointError, Problem, RunError
from fashion.files import KernelLock, write_atomic
from fashion.prediction.answer import (
    PROBABILITIES_NAME,
    TABLE_NAME,
    validate_answer_probabilities,
    validate_table,
    write_answer_probabilities,
    write_table,
)
from fashion.prediction.ensembles.opened import opened_for
from fashion.prediction.ensembles.promoted_ensemble import PromotedEnsemble
from fashion.prediction.location import SOURCE_NAME
from fashion.prediction.pictures import Pictures, PredictionInput
from fashion.prediction.pieces import Piece
from fashion.prediction.promoted import DESCRIPTION, Promoted
from fashion.prediction.submission import (
    ARCHIVE_NAME,
    TEXT_NAME,
    collapsed_heads,
    validate_submission,
    write_submission,
)
from fashion.record.trial import TRAINED_ON_VAL
from fashion.storage.working_copy import push_folder, working_copy

__all__ = [
    "PROBABILITIES_NAME", "TABLE_NAME", "PredictionInput", "Written", "fetch_predictions", "fetch_promoted",
    "predict_here", "predict_in_bucket", "predict_into",
]  # fmt: skip

BEST = "best"  # the run's folder of its promoted winner


LOCK = "lock"  # in the folder of pieces


@dataclass(frozen=True)
class Written:
    """What `predict_into` wrote, and what is to be said of it. `accuracy` is None where the images have no labels, and
    `accuracies` has that of each attribute that is labelled somewhere; all are shares in [0, 1] of what is labelled.
    `without` counts the images that have a row and no prediction, since they can't be decoded."""

    folder: Path
    images: int
    accuracy: float | None
    warnings: tuple[str, ...]
    names: tuple[str, ...]
    without: int = 0
    accuracies: Mapping[str, float] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]


def predict_into(
    promoted: Path,
    source: PredictionInput,
    folder: Path,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Predict `source` with the model in `promoted`, a piece at a time. `progress(done, total)` is called for images
    read and predicted.

    Writes predictions.csv, the probabilities, the submission and where it all comes from into `folder`. What is written
    is read back and validated before any of it appears there. If this is interrupted, the pieces that are done wait
    in a hidden folder beside it, and the next call with the same images goes on from there.

    Raises:
        CheckpointError: the promoted directory is incomplete or damaged, or belongs to other attributes.
        DataError: the images can't be read, or there is no such split.
        RunError: another process is predicting into this folder.
        StorageError: the data set's bucket can't be read.
        SubmissionError: what was written is not valid, because of a full or failing disk.
    """
    model = opened_for(promoted, source, cache_dir, device, progress)
    meta, pictures = model.meta, model.pictures
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is not a folder")
    with _pieces_folder(folder) as kept:
        pieces = model.predict(kept)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            written = _write(pieces, pictures, meta, scratch, folder)
            on_val = source.folder is None and source.split == "val"
            if on_val and isinstance(meta, Promoted) and meta.config.train.fit_on != "train":
                seen = f"what the model makes of val says nothing of new images: {TRAINED_ON_VAL}"
                written = replace(written, warnings=(*written.warnings, seen))
            write_atomic(scratch / SOURCE_NAME, _source(source, meta, written))
            folder.mkdir(exist_ok=True)
            for path in scratch.iterdir():
                path.replace(folder / path.name)
            for name in {TEXT_NAME, ARCHIVE_NAME} - set(written.names):
                (folder / name).unlink(missing_ok=True)  # of an earlier prediction, which it would not belong to
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for path in kept.iterdir():
            if path.name != LOCK:  # which is open: NFS would keep it under another name, and the folder with it
                path.unlink()
    return written


@contextmanager
def _pieces_folder(folder: Path) -> Iterator[Path]:
    """Where the pieces for `folder` are kept, while no other process uses it. It goes if it is left empty."""
    kept = folder.with_name(f".{folder.name}.pieces")
    kept.mkdir(exist_ok=True)
    lock = KernelLock(kept / LOCK)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        raise RunError(Problem(str(folder), "another process is predicting into this folder")) from None
    try:
        yield kept
    finally:
        lock.release()
        (kept / LOCK).unlink(missing_ok=True)
        if kept.is_dir() and not any(kept.iterdir()):
            kept.rmdir()


def _write(
    pieces: Iterable[Piece], pictures: Pictures, meta: Promoted | PromotedEnsemble, scratch: Path, folder: Path
) -> Written:
    """Write and validate every file in `scratch`."""
    classes, without, hits, scored = _together(pieces, pictures.labels, sum(each.columns for each in meta.attributes))
    reasons = without > 0
    table, probabilities = scratch / TABLE_NAME, scratch / PROBABILITIES_NAME
    column = pictures.file_column
    write_table(table, meta.attributes, pieces, reasons, column)
    write_answer_probabilities(probabilities, meta.attributes, pieces, reasons, column)
    validate_table(table, meta.attributes, pieces, reasons, column)
    validate_answer_probabilities(probabilities, pieces, meta.multi_label)
    names, warnings = [TABLE_NAME, PROBABILITIES_NAME], list(pictures.notes)
    if reasons:
        lacking = f", and there is no {TEXT_NAME}, which must have a class for each" if pictures.submission else ""
        warnings.append(
            f"{without:,} of {len(pictures.names):,} images can't be decoded: {TABLE_NAME} says why{lacking}"
        )
    elif not pictures.submission:
        pass  # nobody expects one of data in another form than the challenge's
    elif any(meta.multi_label):
        multi = ", ".join(attribute.name for attribute in meta.attributes if attribute.multi_label)
        warnings.append(f"there is no {TEXT_NAME}, which has one class for each attribute: {multi} can have several")
    else:
        submission = write_submission(classes, scratch)
        for path in (submission.text, submission.archive):
            validate_submission(path, len(classes), meta.class_counts, expected=classes)
        names = [TEXT_NAME, ARCHIVE_NAME, *names]
    warnings += _collapsed(classes, meta)
    accuracy = int(hits.sum()) / int(scored.sum()) if scored.any() else None
    accuracies = {
        each.name: float(right.sum() / known.sum())
        for (each, right), (_, known) in zip(
            split_labels(meta.attributes, hits[None]), split_labels(meta.attributes, scored[None]), strict=True
        )
        if known.any()
    }
    return Written(folder, len(pictures.names), accuracy, tuple(warnings), tuple(names), without, accuracies)


def _collapsed(classes: NDArray[np.int64], meta: Promoted | PromotedEnsemble) -> list[str]:
    """`collapsed_heads` of the single-label attributes."""
    heads = [
        (head, each, columns)
        for head, (each, columns) in enumerate(split_labels(meta.attributes, classes))
        if not each.multi_label
    ]
    if not heads:
        return []
    return collapsed_heads(
        np.stack([columns for _, _, columns in heads], axis=1),
        [len(each.classes) for _, each, _ in heads],
        [each.name for _, each, _ in heads],
        [each.classes for _, each, _ in heads],
        None if meta.shares is None else [meta.shares[head] for head, _, _ in heads],
    )


def _together(
    pieces: Iterable[Piece], labels: NDArray[np.int64] | None, columns: int
) -> tuple[NDArray[np.int64], int, NDArray[np.int64], NDArray[np.int64]]:
    """All predicted classes (N, columns), the number of images without a prediction, and for each column how many
    labels were predicted of how many that are known: (classes, without, hits, known), the latter two (columns,)."""
    classes, without, start = [], 0, 0
    hits, scored = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    for piece in pieces:
        there, stop = piece.predicted, start + len(piece.names)
        classes.append(piece.classes[there])
        without += len(piece.problems)
        if labels is not None:
            known = labels[start:stop][there]
            hits += (piece.classes[there] == known).sum(axis=0)
            scored += (known != MISSING).sum(axis=0)
        start = stop
    return np.concatenate(classes), without, hits, scored


def _source(source: PredictionInput, meta: Promoted | PromotedEnsemble, written: Written) -> bytes:
    """What `source.json` says of the prediction beside it."""
    where = {"folder": os.fspath(source.folder)} if source.folder is not None else {"split": source.split}
    said = {
        "source": where,
        "model": meta.identity(),
        "images": written.images,
        "without_prediction": written.without,
    }
    return json.dumps(said, indent=2).encode() + b"\n"


def predict_here(
    promoted: Path | Address,
    source: PredictionInput,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    model: str = BEST,
) -> Written:
    """Predict in this process, on its GPU if it has one: `predict_into`, or `predict_in_bucket` for a run in a bucket.
    model: which of a bucket's promoted folders is meant.

    Raises what these raise, and BlockedError where there is too little memory.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if isinstance(promoted, Address):
            return predict_in_bucket(promoted, source, folder.name, device, progress, model)
        return predict_into(promoted, source, folder, None, device, progress)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise BlockedError(f"There is too little memory for the model and one batch of images: {error}") from error


def predict_in_bucket(
    bucket: Address,
    source: PredictionInput,
    name: str,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    model: str = BEST,
) -> Written:
    """`predict_into` for a run in a bucket, on any machine.

    Uses the model that is promoted there, in the run's folder `model`. Writes to predictions/NAME both there
    (source.json last) and in this machine's working copy. Raises what `predict_into` raises, and StorageError.
    """
    copy = working_copy(bucket)
    fetch_promoted(bucket, copy / model)
    written = predict_into(copy / model, source, copy / "predictions" / name, None, device, progress)
    push_folder(bucket, written.folder, last=SOURCE_NAME)
    return written


def fetch_promoted(bucket: Address, folder: Path) -> None:
    """Make `folder` equal to what is promoted in the bucket's folder of that name, fetching it only if it differs.

    Raises CheckpointError where nothing is promoted.
    """
    store = Store(bucket)
    there = {each.name.rpartition("/")[2]: each for each in store.objects(folder.name)}
    if DESCRIPTION not in there:
        fix = "Promote a run's winner first: fashion-sweep best"
        raise CheckpointError(Problem(str(bucket / folder.name / DESCRIPTION), "is missing", fix=fix))
    description = store.get(f"{folder.name}/{DESCRIPTION}")
    path = folder / DESCRIPTION
    same = path.is_file() and path.read_bytes() == description
    if same and all(
        (folder / name).is_file() and (folder / name).stat().st_size == each.size for name, each in there.items()
    ):
        return
    path.unlink(missing_ok=True)
    for name in sorted(there, key=lambda name: name == DESCRIPTION):  # last, as it says that the folder is whole
        store.fetch(f"{folder.name}/{name}", folder / name)


def fetch_predictions(bucket: Address, name: str, written: Written) -> Written:
    """Fetch what another machine wrote into this machine's working copy. Returns `written` with the folder here."""
    here = replace(written, folder=working_copy(bucket) / "predictions" / name)
    for path in (*here.files, here.folder / SOURCE_NAME):
        Store(bucket).fetch(f"predictions/{name}/{path.name}", path)
    return here
