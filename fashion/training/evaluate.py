"""One evaluation for training's validation and for prediction, so that both give the same numbers to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from fashion.data.batches import Batch
from fashion.model.metrics import Meter, make_meter

LARGE = 144  # px


def evaluation_batch_size(training_batch_size: int, side: int, device: torch.device | str) -> int:
    """Images of `side` px in an evaluation batch. Prediction must take the same: another size may change the last bit
    of a probability.

    On a GPU twice training's, as without gradients an image takes less memory; on a CPU few, which its caches hold
    (on one thread, images/s at 8, 16 and 32 a batch: EfficientNet-Lite0 at 160 px 109, 88, 73; ResNet-18 at 128 px 86,
    92, 94 and at 64 px 240, 293, 339; MobileNetV3-Small at 128 px 800, 918, 1,061).
    """
    if torch.device(device).type == "cpu":
        return 8 if side >= LARGE else 32
    return max(2 * training_batch_size, 64)


class Evaluation(NamedTuple):
    """meter: exact sums over this rank's labelled images; scores: per head (n, classes) of this rank's shard, as
    `scores` gives them."""

    meter: Meter
    scores: list[torch.Tensor]


@torch.inference_mode()
def scores(model: nn.Module, batch: Batch, multi_label: Sequence[bool] = ()) -> tuple[torch.Tensor, ...]:
    """Per head (n, classes): the log-softmax of a single-label one, the logits of a multi-label one.

    Of several views of each image the mean; that of logits is to sigmoids what that of log-probabilities is to softmax.
    multi_label: which heads are; by default none.
    """
    found: tuple[torch.Tensor, ...] = ()
    for view in (batch.images, *batch.others):
        outputs = model(view)
        scorings = [SCORES[multi] for multi in multi_label or [False] * len(outputs)]
        scored = tuple(score(logits.float()) for score, logits in zip(scorings, outputs, strict=True))
        found = tuple(a + b for a, b in zip(found, scored, strict=True)) if found else scored
    if not batch.others:
        return found
    views = 1 + len(batch.others)
    return tuple(score(total / views) for score, total in zip(scorings, found, strict=True))


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(logits, dim=1)


# Whether a head is multi-label -> its scores from its logits, and its probabilities from its scores.
SCORES: Mapping[bool, Callable[[torch.Tensor], torch.Tensor]] = {False: _log_softmax, True: nn.Identity()}
PROBABILITIES: Mapping[bool, Callable[[torch.Tensor], torch.Tensor]] = {False: torch.exp, True: torch.sigmoid}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    class_counts: tuple[int, ...],
    device: torch.device,
    multi_label: Sequence[bool] = (),
    complete: bool = True,
) -> Evaluation:
    """Evaluate this rank's shard, in fp32 and in evaluation mode. multi_label, complete: as for `make_meter`."""
    was_training = model.training
    model.eval()
    meter = make_meter(class_counts, device, multi_label, complete)
    rows: list[tuple[torch.Tensor, ...]] = []
    for batch in batches:
        outputs = scores(model, batch, multi_label)
        meter.update(outputs, batch.targets)
        rows.append(outputs)
    model.train(was_training)
    heads = (
        [torch.cat(parts) for parts in zip(*rows, strict=True)] if rows else [torch.empty(0, k) for k in class_counts]
    )
    return Evaluation(meter, heads)


def with_rank_0s_buffers(models: Iterable[nn.Module]) -> None:
    """Each worker's batch-norm statistics come from its own shard; all workers must evaluate one model."""
    for model in dict.fromkeys(models):
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def probabilities(heads: Sequence[torch.Tensor], multi_label: Sequence[bool] = ()) -> list[torch.Tensor]:
    """Per head (n, classes) probabilities of `scores`."""
    return [PROBABILITIES[multi](head) for head, multi in zip(heads, multi_label or [False] * len(heads), strict=True)]


def to_probabilities(heads: Sequence[torch.Tensor], multi_label: Sequence[bool] = ()) -> list[np.ndarray]:
    """Per head (n, classes) float32 probabilities on the host."""
    return [head.cpu().numpy().astype(np.float32) for head in probabilities(heads, multi_label)]


def gathered(heads: list[np.ndarray], workers: int) -> list[np.ndarray]:
    """The whole split's rows in file order, on every worker, from each worker's shard, which was dealt out
    round-robin."""
    shards: list[list[np.ndarray]] = [[]] * workers
    dist.all_gather_object(shards, heads)
    return [_interleave([shard[head] for shard in shards]) for head in range(len(heads))]


def _interleave(shards: list[np.ndarray]) -> np.ndarray:
    whole = np.empty((sum(len(shard) for shard in shards), *shards[0].shape[1:]), shards[0].dtype)
    for rank, shard in enumerate(shards):
        whole[rank :: len(shards)] = shard
    return whole


def on_host(batches: Iterable[tuple[torch.Tensor, ...]]) -> Iterator[list[np.ndarray]]:
    """Each batch's tensors as arrays, fetched while the device computes the next batch: nothing waits every step."""
    before: tuple[list[torch.Tensor], torch.cuda.Event | None] | None = None
    for tensors in batches:
        on_gpu = tensors[0].is_cuda
        # From a GPU a non-blocking copy goes to pinned memory; the event tells when it is there.
        copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        copied = torch.cuda.current_stream(tensors[0].device).record_event() if on_gpu else None
        if before is not None:
            yield _arrived(*before)
        before = copies, copied
    if before is not None:
        yield _arrived(*before)


def _arrived(copies: list[torch.Tensor], copied: torch.cuda.Event | None) -> list[np.ndarray]:
    if copied is not None:
        copied.synchronize()
    return [copy.numpy() for copy in copies]
