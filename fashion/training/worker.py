"""One trial as a worker carries it out: opens the data, iterates the loop of `training.loop`. Knows nothing of Ray."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from fashion.bucket.address import Address
from fashion.config.data import Form, LabelReading
from fashion.config.trial import TrialConfig
from fashion.data.batches import Worker
from fashion.data.layout import read_unchanged
from fashion.data.pack import Pack
from fashion.data.remote.fetch import Progress
from fashion.data.remote.local_copy import DataRoot, on_this_machine
from fashion.data.splits.joined import JOINED, joined_pack
from fashion.errors import BlockedError, DataError, FashionError, StorageError
from fashion.files import write_atomic
from fashion.model.precision import imitated
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial_files import ERROR, LAST, PROGRESS, folder_name
from fashion.storage.trial_objects import Attempt, opened
from fashion.training import checkpoint, micro_batches
from fashion.training.feed import TrainingData, with_cached
from fashion.training.loop import TrialInputs, train_trial
from fashion.training.task import Note, Task, TrialEvent, require_code

PROGRESS_SECONDS = 1.0
LARGEST_ERROR = 100_000  # bytes of a kept traceback


def trial_reports(
    task: Task,
    worker: Worker,
    leaves: Callable[[], bool] = lambda: False,
    threads: Callable[[], int] | None = None,
    require_wanted: Callable[[], None] = lambda: None,
) -> Generator[TrialEvent, None, None]:
    """The trial's reports on this worker, notes and heartbeats. Its progress within an epoch is noted beside its
    checkpoints. `leaves()` says that this machine will be taken away, `threads()` before each epoch how many threads
    compute it. `require_wanted()` is called after each step, and may raise GeneratorExit.

    Raises:
        Leaving: after `leaves()`; another machine can go on from what was trained until then.
        OutOfMemory: one of several workers had too little memory; the group has to be made anew to go on. (A worker
        that
            is alone goes on here.)
        BlockedError: the data set has changed or can't be had here, the disk refuses a file, the bucket does not
            answer any more, or this process has other code than the driver.
    """
    require_code(task.code)
    torch.set_num_threads(task.threads)
    task.folder.mkdir(parents=True, exist_ok=True)
    fetched = fetch_data(task)
    if fetched and worker.rank == 0:
        yield Note(fetched)
    data = training_data(
        task.data_root, task.data_fingerprint, task.config, task.weights, task.cache_dir, worker.device
    )
    if task.teacher is not None:
        data = replace(data, soft_labels=task.teacher.of(data.train.names))
    note = _ProgressNote(task.folder) if worker.rank == 0 else _no_note

    def after_step(epoch: int, step: int, steps: int) -> None:
        require_wanted()
        note(epoch, step, steps)

    with ExitStack() as stack:
        attempt, mended = None, checkpoint.Mended()
        if worker.rank == 0:
            if told := imitated(task.config.train.precision, worker.device):
                yield Note(told)
            stack.enter_context(checkpoint.claimed(task.folder))
            stack.enter_context(_left_clean(task))
            mended = checkpoint.mend_last(task.folder)
            if mended.told:
                yield Note(mended.told)
            if task.bucket is not None:
                attempt = yield from _begin(task)
        inputs = TrialInputs(
            task.config, data, task.weights, task.folder, task.number, worker, mended.best_epoch, mended.best_loss,
            attempt, leaves, threads, after_step,
        )  # fmt: skip
        while True:
            try:
                yield from train_trial(inputs)
                return
            except micro_batches.OutOfMemory as error:
                if not error.parts or worker.world_size > 1:
                    raise
                told = str(error)
            micro_batches.free(worker.device)
            yield Note(told)


def fetch_data(task: Task) -> str:
    """Bring the data set to this machine. Returns a note if it was fetched only now, else an empty text. Raises
    BlockedError if it can't be brought."""
    fetched: list[int] = []

    def note(label: str, done: int, total: int) -> None:
        if label.startswith("fetching"):
            fetched[:] = [total]

    begun, data = time.monotonic(), task.config.data
    _on_this_machine(task.data_root, task.data_fingerprint, data.form, task.cache_dir, data.label_reading, note)
    return f"fetched the data set, {fetched[0]} MB in {time.monotonic() - begun:.0f} s" if fetched else ""


def _on_this_machine(
    root: DataRoot,
    fingerprint: str,
    form: Form,
    cache_dir: Path,
    reading: LabelReading,
    progress: Progress | None = None,
) -> Path:
    try:
        return on_this_machine(root, cache_dir, [form], fingerprint=fingerprint, progress=progress, reading=reading)
    except (DataError, StorageError) as error:
        # The driver has read it: what is wrong is this machine's way there, or has been changed in the bucket since.
        raise BlockedError(f"the data set can't be had on {platform.node()}: {error}") from error


def _begin(task: Task) -> Generator[Note, None, Attempt]:
    """An attempt that goes on from the furthest state, be it in the bucket or left on this machine."""
    assert task.bucket is not None, "asked where there is one"
    attempt = Attempt(task.bucket, task.number, task.folder)

    def standing(path: Path) -> tuple[int, int]:
        return checkpoint.standing(path, task.config, task.data_fingerprint)

    yield from map(Note, attempt.begin(standing, task.folder / LAST))
    return attempt


@contextmanager
def _left_clean(task: Task) -> Iterator[None]:
    """When the trial ends within the block, its files are in the bucket, and are removed here: not on the driver's
    machine, which looks after its own, and not when the trial fails, since it may go on here."""
    try:
        yield
    except GeneratorExit:  # stopped
        _clean(task)
        raise
    _clean(task)


def _clean(task: Task) -> None:
    drivers = (task.folder.parents[1] / "journal.jsonl").exists()
    if task.bucket is not None and not drivers and checkpoint.holds_claim(task.folder):
        shutil.rmtree(task.folder, ignore_errors=True)


def training_data(
    root: DataRoot,
    fingerprint: str,
    config: TrialConfig,
    weights: ResolvedWeights,
    cache_dir: Path,
    device: torch.device,
) -> TrainingData:
    """The packs of a trial, and a probe's features or a tail's maps, memory-mapped. A warm process keeps them open
    between trials."""
    how = (config.data.follow_links, config.data.on_error, config.data.label_reading)
    data = _packs(root, fingerprint, config.data.form, *how, cache_dir)
    if config.train.fit_on == JOINED:
        data = replace(data, train=joined_pack(data.train, data.val, cache_dir))
    return with_cached(data, config, weights, device)


@lru_cache(maxsize=4)
def _packs(
    root: DataRoot,
    fingerprint: str,
    form: Form,
    follow_links: bool,
    on_error: str,
    reading: LabelReading,
    cache_dir: Path,
) -> TrainingData:
    folder = _on_this_machine(root, fingerprint, form, cache_dir, reading)
    dataset = read_unchanged(folder, fingerprint, follow_links, on_error, reading)
    packs = [Pack.open_or_build(dataset, split, *form, cache_dir=cache_dir) for split in dataset.packed_splits]
    return TrainingData(packs[0], packs[-1], dataset.attributes, fingerprint, folds=dataset.folds)


def _no_note(epoch: int, step: int, steps: int) -> None:
    """Of a worker other than rank 0."""


class _ProgressNote:
    """Writes `progress.json` ({epoch, step, steps}) at most once a second, for the display."""

    def __init__(self, folder: Path) -> None:
        self.path, self.written = folder / PROGRESS, 0.0

    def __call__(self, epoch: int, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self.written < PROGRESS_SECONDS:
            return
        self.written = now
        temporary = self.path.with_suffix(".tmp")
        with suppress(OSError):  # a full disk is told by what has to be written
            temporary.write_text(json.dumps({"epoch": epoch, "step": step, "steps": steps}))
            os.replace(temporary, self.path)


def bounded(text: bytes) -> bytes:
    """A traceback without its middle where it is longer than LARGEST_ERROR bytes: a message may hold a whole array."""
    if len(text) <= LARGEST_ERROR:
        return text
    half = LARGEST_ERROR // 2
    return text[:half] + f"\n[{len(text) - 2 * half} bytes left out]\n".encode() + text[-half:]


def describe_failure(task: Task, error: BaseException) -> str:
    """Keep the whole traceback in the trial's folder, and in the bucket; return the one line that the record holds."""
    text = bounded("".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    if isinstance(error, FashionError):
        return str(error)
    location: Path | Address = task.folder / ERROR
    task.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(task.folder / ERROR, text)
    if task.bucket is not None:
        with suppress(StorageError):  # then it is on this machine alone, and the line says where
            opened(task.bucket).put(f"{folder_name(task.number)}/{ERROR}", text)
            location = task.bucket / folder_name(task.number) / ERROR
    return f"{type(error).__name__}: {error} (traceback: {location})"
