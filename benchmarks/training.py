"""Training steps of the report's loop, of ours and of the bare limit, measured in turn in one process.

Ours is the real `fashion.training.loop.fit` on a real image cache. Its `on_step` hook is where the others take their
turns: after each block of our steps they do a block each, and the clock starts again when they are done. On a CPU a
block is one step, so that a drift of the machine's speed hits all alike. Nothing of ours is left out but the first step
of an epoch, which
waits for the first images, and what follows the last: validation and checkpoint. While the others take their turns our
next batch (one, no more) is gathered, as it would be during the step before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.case import Case
from benchmarks.original import ReportModel, training_step
from benchmarks.rows import Row, median_ratio, medians
from fashion.data.batches import Worker, steps_per_epoch
from fashion.model.backbones import row
from fashion.model.classifier import build_model
from fashion.model.network import make_backbone
from fashion.model.precision import Setting, computes_bf16
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit

REPORT, OURS, LIMIT = "the report's loop", "ours", "bare limit"
SETTINGS = [Setting(bf16, last) for bf16 in (False, True) for last in (False, True)]
TRIES = 2  # timed blocks of each setting, to find the limit's
CLOSE = 1.05  # settings this near to the fastest stay in: two short measurements don't tell them apart


@dataclass
class Measured:
    """Images/s of each contender, one figure a round, and what ours and the limit were computed in."""

    figures: dict[str, list[float]] = field(default_factory=lambda: {REPORT: [], OURS: [], LIMIT: []})
    ours: str = ""
    limit: str = ""


def measure(
    case: Case, data: TrainingData, folder: Path, device: torch.device, rounds: int, block: int = 1,
    compiled: str = "none",
) -> Measured:  # fmt: skip
    """`rounds` rounds of `block` steps; an epoch of `data` must have more than `block` steps. `folder` is for fit's
    files."""
    settings = [setting for setting in SETTINGS if computes_bf16(device) or not setting.bf16]
    bare = {setting: bare_step(case, data.class_counts, device, setting) for setting in settings}
    bare = close_to_fastest(bare, block, device)
    others = {REPORT: report_step(case, data.class_counts, device), **{str(each): step for each, step in bare.items()}}
    seconds: dict[str, list[float]] = {OURS: [], **{name: [] for name in others}}
    timed(others[REPORT], block, device)
    started = 0.0

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal started
        if step > 1 and (step - 1) % block == 0:
            synchronize(device)
            seconds[OURS].append((time.perf_counter() - started) / block)
            names = list(others) if len(seconds[OURS]) % 2 else list(others)[::-1]
            for name in names:
                seconds[name].append(timed(others[name], block, device))
        elif step > 1:
            return
        synchronize(device)
        started = time.perf_counter()

    an_epoch = (steps_per_epoch(len(data.train), case.batch) - 1) // block
    config = case.config(math.ceil(rounds / an_epoch), compiled)
    setting = ""
    for report in fit(
        TrialInputs(config, data, ResolvedWeights("none"), folder, worker=Worker(device=device), on_step=on_step)
    ):
        setting = report.setting
    figures = {name: [case.batch / value for value in values] for name, values in seconds.items()}
    limit = max((str(each) for each in bare), key=lambda name: medians(figures)[name])
    return Measured({REPORT: figures[REPORT], OURS: figures[OURS], LIMIT: figures[limit]}, setting, limit)


def rows_of(
    benchmark: str, case: Case, found: Measured, over_report: float | None = None, of_limit: float | None = None
) -> list[Row]:
    """The three contenders' rows. ratio: ours' is to the report's loop, that in the limit's row ours to the limit.
    `over_report` and `of_limit` are what is wanted of the two."""
    middle = medians(found.figures)
    gain, share = (median_ratio(found.figures, OURS, other) for other in (REPORT, LIMIT))

    def wanted(ratio: float, least: float | None) -> tuple[str | None, bool | None]:
        return (None, None) if least is None else (f"ratio >= {least:g}", ratio >= least)

    return [
        Row(benchmark, f"{case}: {REPORT}", middle[REPORT], "images/s"),
        Row(benchmark, f"{case}: {OURS} ({found.ours})", middle[OURS], "images/s", gain, *wanted(gain, over_report)),
        Row(benchmark, f"{case}: {LIMIT} ({found.limit})", middle[LIMIT], "images/s", share, *wanted(share, of_limit)),
    ]


def report_step(case: Case, class_counts: Sequence[int], device: torch.device) -> Callable[[], None]:
    """The report's step on resident images."""
    torch.manual_seed(0)
    model = ReportModel(*make_backbone(row(case.backbone), case.model.drop_path), class_counts).to(device)
    step = training_step(model, device)
    images, targets = resident_batch(case, class_counts, device)
    return lambda: step(images, targets)


def bare_step(case: Case, class_counts: Sequence[int], device: torch.device, setting: Setting) -> Callable[[], None]:
    """Forward, backward and optimiser on one resident batch, and nothing else."""
    torch.manual_seed(0)
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    model = setting.arrange(build_model(case.model, class_counts), device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-5, fused=True)
    images, targets = resident_batch(case, class_counts, device)
    images = images.to(memory_format=layout)

    def step() -> None:
        with setting.autocast(device):
            outputs = model(images)
        losses = [F.cross_entropy(output.float(), targets[:, head]) for head, output in enumerate(outputs)]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).mean().backward()
        optimizer.step()

    return step


def resident_batch(case: Case, class_counts: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(case.batch, 3, case.side, case.side)
    return images.to(device), torch.stack([torch.randint(k, (case.batch,)) for k in class_counts], dim=1).to(device)


def close_to_fastest(
    steps: dict[Setting, Callable[[], None]], block: int, device: torch.device
) -> dict[Setting, Callable[[], None]]:
    """Those that may be the fastest, after a few blocks of each in turn; the first of each warms up."""
    if device.type == "cuda":  # what our loop sets, and so what the limit may have
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    taken = [{setting: timed(step, block, device) for setting, step in steps.items()} for _ in range(1 + TRIES)]
    least = {setting: min(round_[setting] for round_ in taken[1:]) for setting in steps}
    return {setting: step for setting, step in steps.items() if least[setting] <= CLOSE * min(least.values())}


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds a step, over `count` of them."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    return (time.perf_counter() - started) / count


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
