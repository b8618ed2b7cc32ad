"""Which precision, memory layout and compilation train fastest here: measured once in a few steps, and kept on disk.

bf16, channels_last and torch.compile help one backbone and hurt another, and differ by device, image size and torch
release, so no table can know. A trial asks `choose`; the first on a machine measures, the others read its finding. On a
GPU it says, too, how much memory a step takes: what does not fit into the trial's share of the GPU is not chosen.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import platform
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fashion.config.trial import TrialConfig
from fashion.errors import ResourcesError
from fashion.files import KernelLock, write_atomic
from fashion.model.backbones import row
from fashion.model.classifier import build_model
from fashion.model.network import complete_row
from fashion.model.parts.cut import map_shape
from fashion.model.precision import Setting, computes_bf16

FORMAT_VERSION = 5
ROUNDS = 4
# More rounds while the two fastest settings are this close: at most this many, and this many seconds in all.
CLOSE, MOST_ROUNDS, LONGEST = 1.2, 16, 4.0
# A setting that takes this many times as long as the fastest is measured no further: it would cost more than it tells.
FAR = 3.0
# Any setting but the usual one must be faster by this much: a choice should not depend on noise.
MARGIN = 1.05
# The mean loss of the measured steps may differ from fp32's by this share. (Their last losses may differ by more where
# batches are small and weights random: ResNet-50's by 5 % on 3 images.)
TOLERANCE = 0.03
# Pixels of a measured batch on a CPU, where an image costs the same in a small batch as in a large one.
CPU_PIXELS = 530_000


@dataclass(frozen=True)
class Measured:
    """`seconds` a training step (the median) and of the `first` one, which compiles; the mean `loss` over the steps
    that all settings have made; on a GPU the most memory that a step needed, in GB. All infinite for a setting that ran
    out of memory."""

    seconds: float
    first: float
    loss: float
    peak_gb: float = 0.0


def choose(
    config: TrialConfig, class_counts: tuple[int, ...], device: torch.device, folder: Path, steps: int
) -> Setting:
    """The setting that trains `steps` steps fastest, of those that `train.precision`, `layout` and `compile` allow.

    Measured only where they leave a choice. The finding is kept in `folder`, keyed by everything that it depends on.
    bf16 is taken only if the loss over a few steps is fp32's to a few per cent, compilation only if it pays for itself.

    Raises ResourcesError when no setting fits into the memory that this process may use on its GPU.
    """
    allowed = candidates(config, device)
    automatic = config.train.compile == "auto" and config.train.mode != "probe" and can_compile(device)
    if len(allowed) == 1 and not automatic:
        return allowed[0]
    key = _key(config, device, allowed, automatic)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"speed-{digest}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with KernelLock(f"{path}.lock"):
        found = _read(path)
        if found is None:
            found = measure(config, class_counts, device, allowed)
            best = fastest(found)
            if automatic and best is not None:
                # Measured once more, in turn with its compiled self: the machine may be busier than it was.
                found |= measure(config, class_counts, device, [best, replace(best, compile="default")])
            settings = [{**asdict(setting), **asdict(measured)} for setting, measured in found.items()]
            write_atomic(path, json.dumps({**key, "settings": settings}, indent=2).encode())
    choice = fastest(found, steps)
    if choice is None:
        raise ResourcesError(
            f"resources.gpus_per_worker: a training step of {config.model.backbone} at {key['side']} px with "
            f"{key['batch_size']} images does not fit into {key['memory_gb']:g} GB, this trial's share of the GPU. "
            "Lower train.batch_size or data.crop, or raise resources.gpus_per_worker."
        )
    return choice


def candidates(config: TrialConfig, device: torch.device) -> list[Setting]:
    """What is allowed and can run here, the usual setting first; where `train.compile` is auto, before compilation."""
    train = config.train
    if train.precision == "auto":
        precisions = [False, True] if train.mode != "probe" and computes_bf16(device) else [False]
    else:
        precisions = [train.precision == "bf16"]
    layouts = [True, False] if train.layout == "auto" else [train.layout == "channels_last"]
    if train.mode == "probe":
        layouts = layouts[:1]  # a few small matrices: nothing to choose
    mode = "none" if train.compile == "auto" else train.compile
    found = [Setting(bf16, last, mode) for bf16 in precisions for last in layouts]
    # Tensor cores and oneDNN's bf16 kernels prefer channels_last; a fourth candidate would not repay its measurement.
    found = [setting for setting in found if len(found) < 4 or setting != Setting(True, False, mode)]
    usual = Setting(device.type == "cuda", True, mode)
    return sorted(found, key=lambda setting: setting != usual)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs here: a C++ compiler for a CPU, Triton for a GPU."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def fastest(found: dict[Setting, Measured], steps: float = math.inf) -> Setting | None:
    """The usual setting (the first), unless another is clearly faster and its loss is right. A compiled one must make
    up for its compilation within `steps` steps. None when none could run."""
    able = {setting: measured for setting, measured in found.items() if math.isfinite(measured.seconds)}
    if not able:
        return None
    precise = [measured.loss for setting, measured in able.items() if not setting.bf16]
    reference = precise[0] if precise else next(iter(able.values())).loss
    sound = {s: m for s, m in able.items() if math.isclose(m.loss, reference, rel_tol=TOLERANCE)} or able
    usual = next(iter(sound))

    def cost(setting: Setting) -> float:
        measured = sound[setting]
        once = 0.0 if setting.compile == "none" else measured.first
        return measured.seconds + once / steps

    best = min(sound, key=cost)
    return best if cost(best) * MARGIN < cost(usual) else usual


def measure(
    config: TrialConfig, class_counts: tuple[int, ...], device: torch.device, allowed: Iterable[Setting]
) -> dict[Setting, Measured]:
    """A few training steps of each setting, in turn: ROUNDS of them, or more while it is not plain which is fastest."""
    side = config.data.training_side
    count = config.train.batch_size
    if device.type == "cpu":
        count = min(count, max(2, CPU_PIXELS // side**2))
    found: dict[Setting, Measured] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        running: dict[Setting, Iterator[float]] = {}
        for setting in allowed:
            steps = _steps(config, class_counts, device, setting, count, side)
            try:
                found[setting] = _first(steps, device)
                running[setting] = steps
            except torch.OutOfMemoryError:
                found[setting] = Measured(math.inf, math.inf, math.inf, math.inf)
        seconds: dict[Setting, list[float]] = {setting: [] for setting in running}
        losses = {setting: [found[setting].loss] for setting in running}
        begun = time.perf_counter()
        for number in range(MOST_ROUNDS):
            if number >= ROUNDS and (not _close(seconds) or time.perf_counter() - begun > LONGEST):
                break
            for setting, steps in running.items():
                started = time.perf_counter()
                losses[setting].append(next(steps))
                seconds[setting].append(time.perf_counter() - started)
            least = min(map(statistics.median, seconds.values()), default=0.0)
            running = {s: steps for s, steps in running.items() if statistics.median(seconds[s]) <= FAR * least}
    # Of the steps that all have made: losses fall from step to step, and a slow setting has made few.
    shared = min(map(len, losses.values()), default=0)
    for setting in seconds:
        middle, mean = statistics.median(seconds[setting]), statistics.fmean(losses[setting][:shared])
        found[setting] = replace(found[setting], seconds=middle, loss=mean)
    return found


def _close(seconds: dict[Setting, list[float]]) -> bool:
    """Whether it is not yet plain which of the two fastest is the faster."""
    medians = sorted(map(statistics.median, seconds.values()))
    return len(medians) > 1 and medians[1] < CLOSE * medians[0]


def _first(steps: Iterator[float], device: torch.device) -> Measured:
    """The first step: it builds the model, makes buffers and chooses kernels, so its time counts for nothing else."""
    held = 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated(device)  # taken by the other settings' models
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    loss = next(steps)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) - held if device.type == "cuda" else 0
    return Measured(seconds, seconds, loss, peak / 1e9)


def _steps(
    config: TrialConfig, class_counts: tuple[int, ...], device: torch.device, setting: Setting, count: int, side: int
) -> Iterator[float]:
    """Training steps from the same weights on the same random images (a tail's: maps), without end; the loss of
    each."""
    torch.manual_seed(0)
    # Without dropout: compiled code draws other random numbers, and the losses are to be compared.
    certain = config.model.model_copy(update={"dropout": 0.0, "drop_path": 0.0})
    whole = build_model(certain, class_counts)
    shape: tuple[int, ...] = (3, side, side)
    if config.train.mode == "tail":
        cut = config.train.freeze_stages
        shape = map_shape(complete_row(row(config.model.backbone)), side, cut)
        whole.without_stages(cut)
    model = setting.arrange(whole, device)
    model.freeze(config.train)
    images = torch.rand(count, *shape).sub_(0.5).to(device)
    targets = torch.randint(0, min(class_counts), (count,)).to(device)
    if setting.channels_last and images.ndim == 4:
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    net = setting.compiled(model)
    while True:
        yield _step(net, images, targets, setting, optimizer)


def _step(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, setting: Setting, optimizer: torch.optim.Optimizer
) -> float:
    with setting.autocast(images.device):
        logits = model(images)
    loss = torch.stack([F.cross_entropy(head.float(), targets) for head in logits]).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()  # waits for the device


def _key(config: TrialConfig, device: torch.device, allowed: list[Setting], automatic: bool) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    memory = 0.0
    if on_gpu:  # what this process may use of it
        share = torch.cuda.get_per_process_memory_fraction(device)
        memory = torch.cuda.get_device_properties(device).total_memory * share / 1e9
    return {
        "format": FORMAT_VERSION,
        "backbone": config.model.backbone,
        "side": config.data.training_side,
        "batch_size": config.train.batch_size,
        "frozen": [config.train.freeze_backbone, config.train.freeze_stages],
        **({"mode": "tail"} if config.train.mode == "tail" else {}),
        "allowed": [str(setting) for setting in allowed],
        "compile": automatic,
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "memory_gb": round(memory, 3),
        "threads": 0 if on_gpu else torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The CPU's model and its vector instructions, as far as torch distinguishes them."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()}"


def _read(path: Path) -> dict[Setting, Measured] | None:
    try:
        rows = json.loads(path.read_text())["settings"]
        found = {
            Setting(bool(row["bf16"]), bool(row["channels_last"]), str(row["compile"])): Measured(
                *(float(row[name]) for name in ("seconds", "first", "loss", "peak_gb"))
            )
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, or not readable: measured (again)
    return found or None
