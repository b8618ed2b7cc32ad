"""Images per second of two threads beside other work: OpenMP's threads as the command has them wait, and as torch does.

An EfficientNet-Lite0 with random weights at 160 px, 16 images at a time, on two cores: forward passes, and forward and
backward ones. Beside it none, one or two processes that do nothing but keep a core busy. Each contender is a process of
its own, since the variable is read when torch is imported.

value: the median over rounds; ratio: to torch's default, of the same round.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import child
from benchmarks.rows import Row, in_turn, median_ratio, medians
from fashion.cli.main import share_cores

SIDE, BATCH, THREADS = 160, 16, 2
DEFAULT, OURS = "torch's default", "as the command sets it"
PASSES = ("forward", "training")
MOST_BUSY = 2


def run(full: bool, data: Path) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="beside-") as name, child.cores(THREADS):
        for busy in range(MOST_BUSY + 1):
            speeds: dict[str, dict[str, list[float]]] = {kind: {DEFAULT: [], OURS: []} for kind in PASSES}
            contenders = {
                contender: partial(measured, Path(name), 5.0 if full else 2.0, busy, contender, speeds)
                for contender in (DEFAULT, OURS)
            }
            in_turn(contenders, 5 if full else 2)
            for kind, figures in speeds.items():
                what = f"{kind} beside {busy} busy {'process' if busy == 1 else 'processes'}"
                values, ratio = medians(figures), median_ratio(figures, OURS, DEFAULT)
                rows.append(Row("beside", f"{what}: {DEFAULT}", values[DEFAULT], "images/s"))
                rows.append(Row("beside", f"{what}: {OURS}", values[OURS], "images/s", ratio))
    return rows


def measured(
    folder: Path, seconds: float, busy: int, contender: str, speeds: dict[str, dict[str, list[float]]]
) -> float:
    """Add the images per second of each kind of pass to `speeds`; returns the first."""
    with tempfile.TemporaryDirectory(dir=folder) as notes, keep_busy(busy):
        child.module("beside", {"seconds": seconds, "contender": contender, "notes": notes}, folder)
        (noted,) = child.notes(notes)
    for kind in PASSES:
        speeds[kind][contender].append(noted[kind])
    return float(noted[PASSES[0]])


@contextmanager
def keep_busy(count: int) -> Iterator[None]:
    """Inside, `count` processes compute without end."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(seconds: float, contender: str, notes: str) -> None:
    if contender == OURS:
        share_cores()
    import torch  # here: it reads the variable

    from fashion.model.backbones import row
    from fashion.model.network import make_backbone

    torch.set_num_threads(THREADS)
    network = make_backbone(row("efficientnet_lite0"))[0].to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            network(images)

    def train() -> None:
        network(images).mean().backward()
        network.zero_grad()

    network.eval()
    forwards = speed(forward, seconds)
    network.train()
    child.note(notes, forward=forwards, training=speed(train, seconds))


def speed(step: Callable[[], None], seconds: float) -> float:
    """Images per second, of as many steps as fit."""
    step()
    started, steps = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < seconds:
        step()
        steps += 1
    return BATCH * steps / taken


if __name__ == "__main__":
    measure(**child.arguments_of())
