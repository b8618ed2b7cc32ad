"""Which maps a sweep's trials need, what they take on the disk and in time: known before any are computed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from fashion.config.data import Form
from fashion.config.trial import TrialConfig
from fashion.data.batches import Normalization, Worker, eval_batches
from fashion.data.cache.arrays import Unfinished
from fashion.data.cache.entries import LIMIT, limit
from fashion.data.contents import require_room
from fashion.data.lists import LABELLED
from fashion.data.pack import Pack
from fashion.errors import Problem, ResourcesError
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.model.parts.cut import maps_behind
from fashion.model.precision import Setting
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.evaluate import evaluation_batch_size
from fashion.training.tail import maps
from fashion.training.tail.passes import frozen_model, precisions

# A pass of this many batches, after one that counts for nothing, says how long all will take.
TIMED_BATCHES = 2


@dataclass(frozen=True)
class MapFile:
    """One file of maps: those of one view of a split, which any trial of `config`'s preprocessing, backbone and cut
    needs."""

    path: Path
    pack: Pack
    config: TrialConfig
    weights: ResolvedWeights
    mirrored: bool
    bf16: bool
    size: int

    @property
    def shared(self) -> bool:
        """Whether several trials may need it: a backbone of random weights is one trial's own, which computes it."""
        return bool(self.weights.sha256)

    @cached_property
    def computed(self) -> bool:
        """Whether the file was there, and whole, when this was first asked."""
        return maps.is_computed(self.path, len(self.pack))

    @cached_property
    def begun(self) -> Unfinished | None:
        """What an interrupted process has left of it."""
        return maps.unfinished(self.path, self.pack, self.config)

    @cached_property
    def left(self) -> int:
        """How many images are to be computed, of a file that is missing."""
        return len(self.pack) - (self.begun.done() if self.begun is not None else 0)

    @property
    def cut(self) -> int:
        return self.config.train.freeze_stages

    @property
    def together(self) -> tuple[object, ...]:
        """Files that are alike in this differ in the cut alone, and are computed in one pass."""
        described = maps.described(self.pack, self.config, self.weights, self.mirrored, self.bf16)
        return tuple(value for name, value in described.items() if name != "cut")


@dataclass(frozen=True)
class MapPlan:
    """All files of maps that a sweep needs, each once."""

    files: tuple[MapFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> list[MapFile]:
        return [file for file in self.files if not file.computed]

    def compute(self, device: str, progress: Callable[[str, int, int], None], say: Callable[[str], None]) -> None:
        """Compute the files that several trials share and that are missing, after saying what that takes. Raises as
        `open_or_compute_maps`."""
        shared = [file for file in self.missing if file.shared]
        if not shared:
            return
        passes: dict[tuple[object, ...], list[MapFile]] = defaultdict(list)
        for file in shared:
            passes[file.together].append(file)
        say(self.sentence(shared, seconds_of(passes.values(), device)))
        for files in passes.values():
            first, configs = files[0], [file.config for file in files]
            told = partial(progress, label(files))
            maps.compute_maps(first.pack, configs, first.weights, first.mirrored, device, told, first.bf16)

    def sentence(self, shared: Sequence[MapFile], seconds: float) -> str:
        """What is to be computed, for people."""
        size = sum(file.size for file in shared) / 1e9
        took = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        count = f"{len(shared)} file{'s' if len(shared) > 1 else ''}"
        rest = f" of the sweep's {len(self.files)} ({self.size / 1e9:.2g} GB)" if len(shared) < len(self.files) else ""
        return f"Maps for train.mode: tail: {count}{rest} to compute, {size:.2g} GB, about {took}; all trials use them."


def plan_maps(
    configs: Iterable[TrialConfig],
    packs: Mapping[Form, Sequence[Pack]],
    weights: Mapping[tuple[str, str], ResolvedWeights],
    limit_gb: float,
    device: torch.device | str = "cpu",
) -> MapPlan:
    """The maps that these trials need. packs: the labelled splits in each form. device: where those that are missing
    are to be computed. Nothing is computed here.

    Raises ResourcesError where they take more than `limit_gb`, BlockedError where the disk has no room for those that
    are missing.
    """
    found: dict[Path, MapFile] = {}
    for config in configs:
        if config.train.mode != "tail":
            continue
        resolved = weights[config.model.backbone, config.model.weights]
        used = packs[config.data.form]
        for split, pack in zip(LABELLED, (used[0], used[-1]), strict=True):
            allowed = precisions(config, split, device)
            for mirrored in maps.views_of(config, split):
                bf16 = maps.serving(pack, config, resolved, mirrored, allowed)
                path = maps.maps_path(pack, config, resolved, mirrored, bf16)
                if path not in found:
                    size = maps.maps_size(pack, config)
                    found[path] = MapFile(path, pack, config, resolved, mirrored, bf16, size)
    plan = MapPlan(tuple(found.values()))
    most, place = limit_gb * 1e9, "resources.maps_gb"
    if (whole := limit()) is not None and whole < most:
        most, place = whole, LIMIT
    if plan.size > most:
        cuts = len({_cut(file) for file in found.values()})
        what = f"the maps of {cuts} cut{'s' if cuts > 1 else ''}"
        rule = f"{what} take {plan.size / 1e9:.3g} GB in {plan.files[0].path.parent}"
        fix = "Raise it, cut behind later stages, or try fewer cuts (train.freeze_stages), backbones or sizes"
        raise ResourcesError(Problem(place, rule, f"{most / 1e9:g}", fix))
    if new := [file for file in plan.missing if file.begun is None]:  # one that was begun has its room already
        require_room("The cache of maps", sum(file.size for file in new), new[0].path.parent)
    return plan


def label(files: Sequence[MapFile]) -> str:
    """What one pass computes, for people."""
    first, cuts = files[0], sorted(file.cut for file in files)
    what = f"{'mirrored ' if first.mirrored else ''}{first.pack.metadata['split']} maps"
    where = f"stage{'s' if len(cuts) > 1 else ''} {', '.join(map(str, cuts))}"
    return f"{what} of {first.config.model.backbone} at {first.config.data.crop} px, cut behind {where}"


def seconds_of(passes: Iterable[Sequence[MapFile]], device: str) -> float:
    """About how long these passes take, from a few batches of each backbone, size, last cut and precision."""
    speeds: dict[tuple[object, ...], float] = {}
    total = 0.0
    for files in passes:
        last = max(files, key=lambda file: file.cut)
        alike = *_cut(last), last.bf16
        if alike not in speeds:
            speeds[alike] = _seconds_an_image(last, device)
        total += max(file.left for file in files) * speeds[alike]
    return total


def _cut(file: MapFile) -> tuple[str, int, int]:
    return file.config.model.backbone, file.config.data.crop, file.cut


@torch.inference_mode()
def _seconds_an_image(file: MapFile, device: str) -> float:
    config, worker = file.config, Worker(device=torch.device(device))
    model = frozen_model(config, file.weights, worker.device)
    channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
    size = evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    begun, count = time.perf_counter(), 0
    some = file.pack.images[: size * (1 + TIMED_BATCHES)]
    for number, batch in enumerate(eval_batches(some, config.data, channels, size, worker)):
        with Setting(file.bf16, channels_last=True).autocast(worker.device):
            maps_behind(model.backbone, [file.cut], batch.images)[0].sum().item()  # waits for the device
        if number == 0:
            begun = time.perf_counter()
        else:
            count += len(batch.images)
    return (time.perf_counter() - begun) / max(count, 1)
