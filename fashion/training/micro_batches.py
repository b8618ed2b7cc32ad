"""A training step that does not fit into memory: the same global batch in smaller parts, and a note that says so.

A trial that ran out of memory would do so again. It goes on from its last checkpoint with twice as many micro-batches,
whose gradients add up to those of the whole batch. What differs is batch normalisation: it sees one micro-batch at a
time, so that its statistics, and with them the numbers, are not those of whole batches. Each report's `setting` says
so.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from fashion.data.batches import Worker
from fashion.errors import FashionError
from fashion.files import write_atomic
from fashion.record.trial_files import MICRO_BATCHES

# Logits (n, k_h) of each head and targets (n, columns) -> losses (n,).
Criterion = Callable[[Sequence[Tensor], Tensor], Tensor]
# Batch normalisation needs two images.
SMALLEST = 2
# A CPU's allocator and some CUDA libraries raise a plain RuntimeError.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


class OutOfMemory(FashionError):  # noqa: N818 (what happened to a trial, no mistake of anyone's)
    """A training step did not fit into memory. `parts` is the number of micro-batches to go on with, 0 when none is
    left to try."""

    def __init__(self, text: str, parts: int) -> None:
        super().__init__(text)
        self.parts = parts

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[str, int]]:
        return type(self), (str(self), self.parts)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def noted_parts(folder: Path) -> int:
    """The number of micro-batches that the trial in `folder` splits a batch into: 1 unless it ran out of memory."""
    path = folder / MICRO_BATCHES
    return int(json.loads(path.read_bytes())["micro_batches"]) if path.exists() else 1


def in_words(parts: int) -> str:
    """What is appended to a report's `setting`."""
    return f", {parts} micro-batches" if parts > 1 else ""


@contextmanager
def smaller_next_time(folder: Path, epoch: int, parts: int, batch_size: int, worker: Worker) -> Iterator[None]:
    """Make what runs out of memory in the block an OutOfMemory, after noting in `folder` how to go on.

    Whichever worker it happens to notes it: all have taken the same number of parts.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        share = batch_size // worker.world_size
        more = 2 * parts if share // (2 * parts) >= SMALLEST else 0
        text = f"epoch {epoch}: out of memory with {share // parts} images at a time"
        text += f", it goes on with {more} micro-batches" if more else ", and fewer can't be trained on"
        if more:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / MICRO_BATCHES, json.dumps({"micro_batches": more}).encode())
        raise OutOfMemory(
            f"{text} ({str(error).splitlines()[0] if str(error) else type(error).__name__})", more
        ) from error


def free(device: torch.device) -> None:
    """Give back what a failed trial held. Call it outside of the `except` block, whose exception holds the frames."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def add_gradients(
    net: nn.Module,
    criterion: Criterion,
    images: Tensor,
    targets: Tensor,
    scale: float,
    parts: int,
    autocast: Callable[[], AbstractContextManager[None]],
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Add the gradients of `scale` times the summed loss of this worker's images (n, 3, T, T), in `parts` parts.

    Returns, detached, the logits (n, k_h) of each head and the losses (n,). Workers exchange gradients once, in the
    last part, so that they may take different numbers of parts.
    """
    parts = max(1, min(parts, len(images) // SMALLEST))
    outputs: list[tuple[tuple[Tensor, ...], Tensor]] = []
    pieces = list(zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True))
    for number, (some, their_targets) in enumerate(pieces, start=1):
        with ExitStack() as stack:
            if number < parts:
                stack.enter_context(getattr(net, "no_sync", nullcontext)())  # of DistributedDataParallel
            with autocast():
                logits = net(some)
            losses = criterion(tuple(head.float() for head in logits), their_targets)
            (losses.sum() * scale).backward()
        if parts == 1:
            return tuple(head.detach() for head in logits), losses.detach()
        # Copies: a captured CUDA graph writes the next part's outputs to the same place.
        outputs.append((tuple(head.detach().clone() for head in logits), losses.detach().clone()))
    heads = zip(*(logits for logits, _ in outputs), strict=True)
    return tuple(torch.cat(head) for head in heads), torch.cat([losses for _, losses in outputs])
