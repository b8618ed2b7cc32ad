"""An epoch's files are written in a thread while the next epoch trains. Its report is handed out when they are on disk,
or in the bucket where the sweep's storage is one."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fashion.config.trial import TrialConfig
from fashion.data.batches import Worker
from fashion.files import submitted
from fashion.model.classifier import MultiHeadClassifier
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST, best_path, predictions_path, prune
from fashion.storage.trial_upload import AHEAD, Uploads
from fashion.training import checkpoint
from fashion.training.state import TrialState, to_plain
from fashion.training.task import Heartbeat, Note, TrialEvent

# The longest time that a note waits while the loop waits for the bucket.
NOTES_SECONDS = 1.0
# Between two heartbeats of a loop whose reports wait for the bucket: it must not look as if it hung.
ALIVE_SECONDS = 10.0


@dataclass(frozen=True)
class Best:
    """What is kept of the best epoch so far: its weights with what describes them, and its validation predictions."""

    weights: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    images: list[str]
    attributes: list[str]
    probabilities: list[np.ndarray]
    multi_label: Sequence[bool] = ()


@dataclass(frozen=True)
class _Waiting:
    report: EpochReport
    written: Future[None] | None
    best: bool


class Saver:
    """Holds the reports whose files are not yet where they have to be: on disk and, with `uploads`, in the bucket.

    Without uploads that is one report at most; with them the loop is up to AHEAD epochs ahead of the bucket. The files
    are rank 0's; the other workers hold the same reports as rank 0, and hand them out when it does.
    """

    def __init__(self, folder: Path, worker: Worker, uploads: Uploads | None = None) -> None:
        self.folder, self.worker, self.uploads = folder if worker.rank == 0 else None, worker, uploads
        self.ahead = AHEAD if uploads is not None else 0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.waiting: deque[_Waiting] = deque()
        self.heard = time.monotonic()  # when whoever iterates the trial last heard of it

    def save(self, report: EpochReport, last: TrialState, best: Best | None) -> None:
        """Begin to write the epoch's files, as the tensors are now: training may go on changing them.

        `last` is the state to resume from, `best` what is kept if this is the best epoch so far.
        """
        self.waiting.append(_Waiting(report, self._write((report.epoch, 0), last, best), best is not None))

    def save_mid_epoch(self, last: TrialState) -> None:
        """Write a state of a moment within an epoch; returns when it is on disk, and with `uploads` in the bucket,
        too."""
        written = self._write(last.at, last, None)
        if written is not None:
            written.result()
        while self.uploads is not None and not self.uploads.reached(last.at):
            self.uploads.wait(last.at, NOTES_SECONDS)
            time.sleep(0.01)  # a note, which has to wait, would make this a busy loop

    def _write(self, at: tuple[int, int], last: TrialState, best: Best | None) -> Future[None] | None:
        if self.folder is None:
            return None
        if self.waiting and (before := self.waiting[-1].written) is not None:
            before.result()  # a slow disk must not let copies pile up
        device = next((tensor.device for tensor in last.learners[0].model.values()), torch.device("cpu"))
        # Both in one call: what occurs twice is copied once.
        plain, weights = _copied((to_plain(last), best.weights if best is not None else {}), {})
        copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
        return submitted(self.thread, _write, self.folder, at, plain, weights, copied, best, self.uploads)

    def delivered(self, wait: bool = False) -> Iterator[TrialEvent]:
        """Within an epoch: the reports that may be recorded, in order, and notes; with `wait` until the loop may go on.
        Yields nothing if there are several workers, which are not in step here. Raises what writing or uploading
        raised."""
        if self.worker.world_size == 1:
            yield from self._some()
            while wait and self._too_many():
                self._wait_a_little()
                yield from self._some()

    def settled(self, to_the_last: bool = False) -> Iterator[TrialEvent]:
        """The same between epochs, on all workers at once: until the loop may go on, or `to_the_last` report."""
        more = True
        while more:
            more = yield from self._some(to_the_last)
            if more:
                self._wait_a_little()

    def _some(self, to_the_last: bool = False) -> Generator[TrialEvent, None, bool]:
        """Hand out what can be; returns whether more has to be."""
        word = [0, False]
        if self.worker.rank == 0:
            while self.uploads is not None and self.uploads.told:
                yield Note(self.uploads.told.popleft())
            ready = self._ready()
            if ready:
                self.heard = time.monotonic()
            elif self.waiting and time.monotonic() - self.heard > ALIVE_SECONDS:
                self.heard = time.monotonic()
                yield Heartbeat()
            word = [ready, self._too_many(to_the_last, ready)]
        if self.worker.world_size > 1:
            # Only rank 0 knows when its files are safe.
            dist.broadcast_object_list(word, src=0)
        yield from self._hand_out(word[0])
        return bool(word[1])

    def _too_many(self, to_the_last: bool = False, taken: int = 0) -> bool:
        """Whether the loop is further ahead than it may be, once this many reports are handed out."""
        return len(self.waiting) - taken > (0 if to_the_last else self.ahead)

    def _ready(self) -> int:
        """How many of the reports that wait may be handed out. Raises what writing or uploading raised."""
        count = 0
        try:
            while count < len(self.waiting) and self._safe(self.waiting[count]):
                count += 1
        except Exception:
            if not count:
                raise
        return count

    def _safe(self, waiting: _Waiting) -> bool:
        if waiting.written is not None:
            if not waiting.written.done():
                return False
            waiting.written.result()
        return self.uploads is None or self.uploads.reached((waiting.report.epoch, 0))

    def _wait_a_little(self) -> None:
        """Until the first report that waits is safe, or for as long as nobody misses a note."""
        first = self.waiting[0]
        if first.written is not None:
            first.written.result()
        if self.uploads is not None:
            self.uploads.wait((first.report.epoch, 0), NOTES_SECONDS)

    def _hand_out(self, count: int) -> Iterator[EpochReport]:
        """The first `count` waiting reports. When a best epoch's has been taken, earlier best weights are removed."""
        for _ in range(count):
            taken = self.waiting.popleft()
            yield taken.report
            # Only now is the report recorded, and with it the claim that this epoch's weights are the best.
            if taken.best and self.folder is not None:
                later = {each.report.epoch for each in self.waiting if each.best}
                prune(self.folder, {taken.report.epoch} | later)
                if self.uploads is not None:
                    self.uploads.forget_bests(taken.report.epoch)

    def close(self) -> None:
        """Let what is being written end; nothing more is uploaded."""
        if self.uploads is not None:
            self.uploads.close()
        self.thread.shutdown()


def set_backbone_aside(
    model: MultiHeadClassifier, config: TrialConfig, weights: ResolvedWeights, folder: Path | None
) -> str:
    """Take the frozen backbone off a probe's model, which is fed its features, or its first stages off a tail's, which
    is fed their maps.

    Returns the name of the file in `folder` that keeps it for all trials with the same weights, so that a promoted
    model can be made whole; written unless it is there, or `folder` is None.
    """
    key = weights.sha256[:12] if weights.sha256 else f"seed-{config.seed}"
    name = f"backbone-{re.sub(r'[^A-Za-z0-9_.]', '-', config.model.backbone)}-{key}.safetensors"
    if folder is not None and not (folder / name).exists():
        state = {f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}
        checkpoint.save_weights(folder / name, state, {"format": checkpoint.FORMAT})
    if config.train.mode == "tail":
        model.without_stages(config.train.freeze_stages)
    else:
        model.without_backbone()
    return name


def _write(
    folder: Path, at: tuple[int, int], plain: dict[str, Any], weights: dict[str, torch.Tensor],
    copied: torch.cuda.Event | None, best: Best | None, uploads: Uploads | None,
) -> None:  # fmt: skip
    if copied is not None:
        copied.synchronize()
    if best is not None:
        predictions = predictions_path(folder, at[0])
        checkpoint.save_predictions(predictions, best.images, best.attributes, best.probabilities, best.multi_label)
        checkpoint.save_weights(best_path(folder, at[0]), weights, best.meta)
    checkpoint.save_last(folder, plain)
    if uploads is not None:
        uploads.add(at, folder / LAST, best is not None)


def _copied(value: Any, known: dict[tuple[Any, ...], torch.Tensor]) -> Any:
    """The same with all tensors copied to the host; from a GPU without waiting, in the order of its work. One that
    occurs twice (the best weights are the model's, where there is no average of them) is copied once."""
    if isinstance(value, torch.Tensor):
        same = value.data_ptr(), value.dtype, value.shape, value.stride()
        if same not in known:
            known[same] = value.detach().to("cpu", non_blocking=True, copy=True)
        return known[same]
    if isinstance(value, Mapping):
        return {key: _copied(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each, known) for each in value)
    return value
