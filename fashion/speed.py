"""Which precision and memory layout train fastest here: measured once in a few steps, and kept on disk.

bf16 and channels_last help one backbone and hurt another, and differ by device, image size and torch release, so no
table can know. A trial asks `choose`; the first on a machine measures, the others read its finding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn
from torch.nn import functional as F

from fashion.config import TrialConfig
from fashion.journal import write_atomic
from fashion.model.build import build_model

ROUNDS = 4
# Another than the usual setting must be faster by this much: a choice should not turn on noise.
MARGIN = 1.08
# The loss after the measured steps may differ from fp32's by this share.
TOLERANCE = 0.03
# Pixels of a measured batch on a CPU, where an image costs the same in a small batch as in a large one.
CPU_PIXELS = 200_000


@dataclass(frozen=True)
class Setting:
    """How a trial's training steps are computed."""

    bf16: bool
    channels_last: bool

    def __str__(self) -> str:
        return f"{'bf16' if self.bf16 else 'fp32'} {'channels_last' if self.channels_last else 'nchw'}"


def choose(config: TrialConfig, class_counts: tuple[int, ...], device: torch.device, folder: Path) -> Setting:
    """The fastest setting that `train.precision` and `train.layout` allow; measured only where they leave a choice.

    The finding is kept in `folder`, keyed by everything that it depends on. bf16 is taken only if the loss after a few
    steps is fp32's to a few per cent.
    """
    allowed = candidates(config, device)
    if len(allowed) == 1:
        return allowed[0]
    key = _key(config, device, allowed)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"speed-{digest}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        found = _read(path, allowed)
        if found is None:
            seconds, losses = measure(config, class_counts, device, allowed)
            found = fastest(allowed, seconds, losses)
            content = {
                **key,
                "seconds_per_step": {str(setting): seconds[setting] for setting in allowed},
                "loss": {str(setting): losses[setting] for setting in allowed},
                "choice": str(found),
            }
            write_atomic(path, json.dumps(content, indent=2).encode())
    return found


def candidates(config: TrialConfig, device: torch.device) -> list[Setting]:
    """What is allowed and can run here, the usual setting first."""
    train = config.train
    has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.backends.mkldnn.is_available()
    if train.precision == "auto":
        precisions = [False] if train.mode == "probe" or not has_bf16 else [False, True]
    else:
        precisions = [train.precision == "bf16"]
    layouts = [True, False] if train.layout == "auto" else [train.layout == "channels_last"]
    if train.mode == "probe":
        layouts = layouts[:1]  # a few small matrices: nothing to choose
    found = [Setting(bf16, last) for bf16 in precisions for last in layouts]
    # Tensor cores and oneDNN's bf16 kernels want channels_last; a fourth candidate would not be worth its measurement.
    found = [setting for setting in found if len(found) < 4 or setting != Setting(True, False)]
    usual = Setting(device.type == "cuda", True)
    return sorted(found, key=lambda setting: setting != usual)


def fastest(allowed: list[Setting], seconds: dict[Setting, float], losses: dict[Setting, float]) -> Setting:
    """The usual setting (the first), unless another is clearly faster and its loss is right."""
    right = {setting: losses[setting] for setting in allowed if not setting.bf16} or losses
    reference = next(iter(right.values()))
    sound = [s for s in allowed if math.isclose(losses[s], reference, rel_tol=TOLERANCE)]
    if not sound:
        return allowed[0]
    usual = sound[0]
    best = min(sound, key=lambda setting: seconds[setting])
    return best if seconds[best] * MARGIN < seconds[usual] else usual


def measure(
    config: TrialConfig, class_counts: tuple[int, ...], device: torch.device, allowed: list[Setting]
) -> tuple[dict[Setting, float], dict[Setting, float]]:
    """Median seconds a training step of each setting, measured in turn, and its loss after the last of them."""
    side = config.data.train_crop or config.data.crop
    count = config.train.batch_size
    if device.type == "cpu":
        count = min(count, max(2, CPU_PIXELS // side**2))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        steps = {setting: _steps(config, class_counts, device, setting, count, side) for setting in allowed}
        seconds: dict[Setting, list[float]] = {setting: [] for setting in allowed}
        losses: dict[Setting, float] = {}
        for number in range(ROUNDS + 1):
            for setting in allowed:
                started = time.perf_counter()
                losses[setting] = next(steps[setting])
                if number:  # the first step makes buffers and chooses kernels
                    seconds[setting].append(time.perf_counter() - started)
    return {setting: statistics.median(values) for setting, values in seconds.items()}, losses


def _steps(
    config: TrialConfig, class_counts: tuple[int, ...], device: torch.device, setting: Setting, count: int, side: int
) -> Iterator[float]:
    """Training steps from the same weights on the same random images, without end; the loss of each."""
    torch.manual_seed(0)
    model = build_model(config.model, class_counts).to(device)
    model.freeze(config.train)
    images = torch.rand(count, 3, side, side).sub_(0.5).to(device)
    targets = torch.randint(0, min(class_counts), (count,)).to(device)
    if setting.channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    for step in itertools.count():
        torch.manual_seed(step)  # every setting drops the same features
        yield _step(model, images, targets, setting, optimizer)


def _step(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, setting: Setting, optimizer: torch.optim.Optimizer
) -> float:
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=setting.bf16):
        logits = model(images)
    loss = torch.stack([F.cross_entropy(head.float(), targets) for head in logits]).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()  # waits for the device


def _key(config: TrialConfig, device: torch.device, allowed: list[Setting]) -> dict[str, Any]:
    return {
        "backbone": config.model.backbone,
        "side": config.data.train_crop or config.data.crop,
        "batch_size": config.train.batch_size,
        "frozen": [config.train.freeze_backbone, config.train.freeze_stages],
        "allowed": [str(setting) for setting in allowed],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The CPU's model and its vector instructions, as far as torch distinguishes them."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()}"


def _read(path: Path, allowed: list[Setting]) -> Setting | None:
    try:
        choice = json.loads(path.read_text())["choice"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not ours: measured (again)
    return next((setting for setting in allowed if str(setting) == choice), None)
