"""An epoch's files, written in a thread while the next epoch trains; its report is handed out when they are on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fashion import checkpoint
from fashion.config import TrialConfig
from fashion.model.build import MultiHeadClassifier
from fashion.model.weights import ResolvedWeights
from fashion.record import EpochReport


@dataclass(frozen=True)
class Best:
    """What is kept of the best epoch so far: its weights with what describes them, and its validation predictions."""

    state: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    images: list[str]
    attributes: list[str]
    probabilities: list[np.ndarray]


@dataclass(frozen=True)
class _Waiting:
    report: EpochReport
    written: Future[None] | None
    best: bool


class Saver:
    """Holds at most one report whose files are being written. Without a folder (ranks other than 0) it writes none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.waiting: _Waiting | None = None

    def save(self, report: EpochReport, last: Mapping[str, Any], best: Best | None) -> None:
        """Begin to write the epoch's files, as the tensors are now: training may go on changing them.

        `last` is the state to resume from, `best` what is kept if this is the best epoch so far.
        """
        written = None
        if self.folder is not None:
            weights, device = (best.state if best else {}), _device_of(last)
            copies = _copied({"last": last, "weights": weights}, {})
            copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
            written = self.thread.submit(_write, self.folder, report.epoch, copies, copied, best)
        self.waiting = _Waiting(report, written, best is not None)

    def delivered(self, wait: bool) -> Iterator[EpochReport]:
        """The report that was saved last, once, when its files are on disk. Raises what writing them raised."""
        waiting = self.waiting
        if waiting is None or not (wait or waiting.written is None or waiting.written.done()):
            return
        self.waiting = None
        if waiting.written is not None:
            waiting.written.result()
        yield waiting.report
        # Only now is the report recorded, and with it the claim that this epoch's weights are the best.
        if waiting.best and self.folder is not None:
            checkpoint.prune(self.folder, {waiting.report.epoch})

    def close(self) -> None:
        """Let what is being written end."""
        self.thread.shutdown()


def set_backbone_aside(
    model: MultiHeadClassifier, config: TrialConfig, weights: ResolvedWeights, folder: Path | None
) -> str:
    """Take the frozen backbone off a probe's model, which is fed its features.

    Returns the name of the file in `folder` that keeps it for all trials with the same weights, so that a promoted model
    can be made whole; written unless it is there, or `folder` is None.
    """
    key = weights.sha256[:12] if weights.sha256 else f"seed-{config.seed}"
    name = f"backbone-{re.sub(r'[^A-Za-z0-9_.]', '-', config.model.backbone)}-{key}.safetensors"
    if folder is not None and not (folder / name).exists():
        state = {f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}
        checkpoint.save_weights(folder / name, state, {"format": checkpoint.FORMAT})
    model.without_backbone()
    return name


def _write(
    folder: Path, epoch: int, copies: dict[str, Any], copied: torch.cuda.Event | None, best: Best | None
) -> None:
    if copied is not None:
        copied.synchronize()
    if best is not None:
        predictions = checkpoint.predictions_path(folder, epoch)
        checkpoint.save_predictions(predictions, best.images, best.attributes, best.probabilities)
        checkpoint.save_weights(checkpoint.best_path(folder, epoch), copies["weights"], best.meta)
    checkpoint.save_last(folder, copies["last"])


def _copied(value: Any, known: dict[tuple[Any, ...], torch.Tensor]) -> Any:
    """The same with all tensors copied to the host; from a GPU without waiting, in the order of its work. One that occurs
    twice (the best weights are the model's, where there is no average of them) is copied once."""
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


def _device_of(state: Mapping[str, Any]) -> torch.device:
    """Where the state's tensors are, which is one device."""
    model: Mapping[str, torch.Tensor] = state["model"]
    return next((tensor.device for tensor in model.values()), torch.device("cpu"))
