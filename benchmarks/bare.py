"""The limit: bare training and validation steps on one resident batch, in one process of one thread on each core.

    python -m benchmarks.bare FILE              (see `child.module`)

All cores are busy with the same at once, because that is how a sweep uses them: a lone thread may run faster. Training
takes the faster of fp32 and bf16 (where the CPU has it), each in both memory layouts; validation is fp32, as a metric
should be, in the faster layout and batch size.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from benchmarks.child import arguments_of, side_by_side
from benchmarks.plain import Network, head_loss
from fashion.model.precision import computes_bf16

WARM_UP = 3  # steps that are not counted
VALIDATION_BATCHES = (16, 32, 64)
WAIT = 300.0  # seconds for the other processes


def train_steps(given: dict[str, Any], layout: torch.memory_format, bf16: bool) -> float:
    """Seconds an image."""
    model = Network(tuple(given["class_counts"]), 0.2).to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    images, targets = _batch(given, given["batch_size"], layout)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = model(images)
        loss = head_loss([output.float() for output in outputs], targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    seconds: float = _time(step, given["steps"]) / given["batch_size"]
    return seconds


def validation_steps(given: dict[str, Any], layout: torch.memory_format, size: int) -> float:
    """Seconds an image."""
    model = Network(tuple(given["class_counts"]), 0.0).to(memory_format=layout).eval()
    images, _ = _batch(given, size, layout)
    with torch.inference_mode():
        return _time(lambda: model(images), given["steps"]) / size


def _batch(given: dict[str, Any], size: int, layout: torch.memory_format) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(size, 3, given["side"], given["side"]).contiguous(memory_format=layout)
    return images, torch.stack([torch.randint(count, (size,)) for count in given["class_counts"]], dim=1)


def _time(step: Callable[[], Any], steps: int) -> float:
    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def worker(number: int, given: dict[str, Any], together: Barrier) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layouts = (torch.contiguous_format, torch.channels_last)
    precisions = (False, True) if computes_bf16(torch.device("cpu")) else (False,)
    found: dict[str, list[float]] = {"train": [], "validate": []}
    for layout in layouts:
        for bf16 in precisions:
            together.wait(WAIT)
            found["train"].append(train_steps(given, layout, bf16))
        for size in VALIDATION_BATCHES:
            together.wait(WAIT)
            found["validate"].append(validation_steps(given, layout, size))
    (Path(given["folder"]) / f"bare-{number}.json").write_text(json.dumps(found))


def main() -> None:
    given = arguments_of()
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(given["cores"])
    processes = [context.Process(target=worker, args=(number, given, together)) for number in range(given["cores"])]
    side_by_side(processes)


def fastest(folder: Path, cores: int) -> dict[str, float]:
    """Seconds an image on one core, "train" and "validate": the variant with the lowest mean over the cores."""
    found = [json.loads((folder / f"bare-{number}.json").read_text()) for number in range(cores)]
    return {
        kind: min(statistics.fmean(variant) for variant in zip(*(each[kind] for each in found), strict=True))
        for kind in ("train", "validate")
    }


if __name__ == "__main__":
    main()
