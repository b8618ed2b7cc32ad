"""The predict step: from a promoted model to validated submission files, here or for a run in a bucket."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.bucket.address import Address
from fashion.bucket.store import Store
from fashion.data.contents import default_cache_dir
from fashion.data.images import Progress
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack, pack_folder
from fashion.data.remote.local_copy import DataRoot, on_this_machine
from fashion.errors import CheckpointError, DataError, Problem
from fashion.prediction.predict import Predictions, accuracy, predict
from fashion.prediction.promoted import DESCRIPTION, Promoted, load_promoted, require_attributes
from fashion.prediction.submission import (
    ARCHIVE_NAME,
    TEXT_NAME,
    collapsed_heads,
    validate_probabilities,
    validate_submission,
    write_probabilities,
    write_submission,
)
from fashion.storage.working_copy import push_folder, working_copy

PROBABILITIES_NAME = "probabilities.parquet"


@dataclass(frozen=True)
class PredictionInput:
    """What to predict: a split of the data set at `root`, which may be in a bucket, or every image below `folder`."""

    root: DataRoot | None = None
    split: str = "test"
    folder: Path | None = None


@dataclass(frozen=True)
class Written:
    """What `predict_into` wrote, and what is to be said of it. `accuracy` is None where the images have no labels."""

    folder: Path
    images: int
    accuracy: float | None
    warnings: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in (TEXT_NAME, ARCHIVE_NAME, PROBABILITIES_NAME)]


def predict_into(
    promoted: Path,
    source: PredictionInput,
    folder: Path,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Predict `source` with the model in `promoted`. `progress(done, total)` is called for images read and predicted.

    Writes `prediction.txt`, `prediction.txt.zip` and the probabilities into `folder`. All three are read back and
    validated before any of them appears there.

    Raises:
        CheckpointError: the promoted directory is incomplete or damaged, or belongs to other attributes.
        DataError: the images can't be read, or there is no such split.
        StorageError: the data set's bucket can't be read.
        SubmissionError: what was written is not a valid submission, because of a full or failing disk.
    """
    model, meta = load_promoted(promoted, device)
    images = _images(source, meta, cache_dir, progress)
    found = predict(model, meta, images.pixels, images.names, device=device, progress=progress)
    names_and_classes = [(attribute.name, attribute.classes) for attribute in meta.attributes]
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(found, names_and_classes, meta.class_counts, scratch)
        folder.mkdir(exist_ok=True)
        for path in scratch.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    heads, class_names = zip(*names_and_classes, strict=True)
    warnings = collapsed_heads(found.classes, meta.class_counts, heads, class_names)
    scored = None if images.labels is None else accuracy(found, images.labels)
    return Written(folder, len(found.names), scored, tuple(warnings))


@dataclass(frozen=True)
class _Images:
    """Pixels of the images to predict, their names (those of a pack if None), and their labels (N, heads) if known."""

    pixels: NDArray[np.uint8] | Pack
    names: list[str] | None
    labels: NDArray[np.int64] | None


def _images(source: PredictionInput, meta: Promoted, cache_dir: Path | None, progress: Progress | None) -> _Images:
    """The images of `source`, resized as the model was trained."""
    data = meta.config.data
    if source.folder is not None:
        names, pixels = pack_folder(source.folder, data.resize, data.fit, data.interpolation, progress)
        return _Images(pixels, names, None)
    assert source.root is not None, "a split belongs to a data set"
    root = on_this_machine(
        source.root,
        cache_dir if cache_dir is not None else default_cache_dir().absolute(),
        [(data.resize, data.fit, data.interpolation)],
        (source.split,),
        progress=None if progress is None else lambda _, done, total: progress(done, total),
    )
    dataset = read_dataset(root)
    require_attributes(meta, dataset.attributes, str(source.root))
    if source.split not in dataset.splits:
        place, fix = f"{source.root}/split/{source.split}.txt", f"It has {', '.join(dataset.splits)}"
        raise DataError("The data set has no such split:", [Problem(place, "is missing", fix=fix)])
    pack = Pack.open_or_build(
        dataset, source.split, data.resize, data.fit, data.interpolation, cache_dir, progress=progress
    )
    return _Images(pack, None, pack.labels)


def predict_here(
    promoted: Path | Address,
    source: PredictionInput,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Predict in this process, on its GPU if it has one: `predict_into`, or `predict_in_bucket` for a run in a bucket.

    Raises what these raise.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(promoted, Address):
        return predict_in_bucket(promoted, source, folder.name, device, progress)
    return predict_into(promoted, source, folder, None, device, progress)


def predict_in_bucket(
    bucket: Address,
    source: PredictionInput,
    name: str,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """`predict_into` for a run in a bucket, on any machine.

    Uses the model that is promoted there. Writes to predictions/NAME both there (the archive last) and in this
    machine's working copy. Raises what `predict_into` raises, and StorageError.
    """
    copy = working_copy(bucket)
    fetch_promoted(bucket, copy / "best")
    written = predict_into(copy / "best", source, copy / "predictions" / name, None, device, progress)
    push_folder(bucket, written.folder, last=ARCHIVE_NAME)
    return written


def fetch_promoted(bucket: Address, folder: Path) -> None:
    """Make `folder` equal to what is promoted in the bucket, fetching it only if it differs.

    Raises CheckpointError where nothing is promoted.
    """
    store = Store(bucket)
    there = {each.name.rpartition("/")[2]: each for each in store.objects("best")}
    if DESCRIPTION not in there:
        fix = "Promote a run's winner first: fashion-sweep best"
        raise CheckpointError(Problem(str(bucket / "best" / DESCRIPTION), "is missing", fix=fix))
    description = store.get(f"best/{DESCRIPTION}")
    path = folder / DESCRIPTION
    same = path.is_file() and path.read_bytes() == description
    if same and all(
        (folder / name).is_file() and (folder / name).stat().st_size == each.size for name, each in there.items()
    ):
        return
    path.unlink(missing_ok=True)
    for name in sorted(there, key=lambda name: name == DESCRIPTION):  # last, as it says that the folder is whole
        store.fetch(f"best/{name}", folder / name)


def fetch_predictions(bucket: Address, name: str, written: Written) -> Written:
    """Fetch what another machine wrote into this machine's working copy. Returns `written` with the folder here."""
    here = replace(written, folder=working_copy(bucket) / "predictions" / name)
    for path in here.files:
        Store(bucket).fetch(f"predictions/{name}/{path.name}", path)
    return here


def _write(
    found: Predictions, attributes: list[tuple[str, tuple[str, ...]]], class_counts: tuple[int, ...], folder: Path
) -> None:
    submission = write_submission(found.classes, folder)
    table = write_probabilities(folder / PROBABILITIES_NAME, found.names, attributes, found.probabilities)
    for path in (submission.text, submission.archive):
        validate_submission(path, len(found.names), class_counts, expected=found.classes)
    validate_probabilities(table, found.names, np.asarray(found.classes))
