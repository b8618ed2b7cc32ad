"""What would fail in every trial of a kind, found before any starts: by the rules of the spec where they tell, by
building the backbone where only that tells, once for each distinct shape.

`run` refuses what is found here, and `check` reports it. Torch is loaded only where it is needed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion.bucket.address import is_address
from fashion.cluster.growth import workers_that_fit
from fashion.config import LabelReading
from fashion.data.lists import listed_images
from fashion.errors import Problem, ResourcesError
from fashion.model import backbones
from fashion.spec.fields import show
from fashion.spec.settings import ResourcesConfig
from fashion.spec.space import Distribution, Scalar
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import every, extremes, together
from fashion.spec.trials.relations import FROZEN

Progress = Callable[[str, int, int], None]  # label, done, total
OPENED_BY = ("model.backbone", "train.batch_size", "train.mode")
SHAPED_BY = (
    "model.backbone", "data.crop", "data.train_crop", "data.crop_cells", "train.batch_size", "model.feature_norm",
    *FROZEN,
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What decides whether a model can be trained on images at all.

    trained: side in pixels of the training input, None for a probe, which never sees it. evaluated: side of the crop.
    alone: whether some worker's share of a batch is a single image. frozen: how many of the backbone's first stages
    are frozen, None for all of it. norm: whether the pooled features are normalised by batch. crop_cells: of a tail,
    which is cut behind its frozen stages, None for any other mode.
    """

    backbone: str
    trained: int | None
    evaluated: int
    alone: bool
    frozen: int | None
    norm: bool
    crop_cells: int | None = None


def foreseen(spec: SweepSpec, train_images: int | None, progress: Progress) -> list[Problem]:
    """Everything that is sure to fail some trial, given the number of training images where it is known.

    Raises UserError where timm has no network of a name that is asked for, or is missing; without the data set nobody
    asks whether it is missing here.
    """
    workers = spec.resources.workers
    if train_images is not None and train_images < workers:
        rule = f"must be at most {train_images}, the number of training images: each worker trains on its share"
        return [Problem("resources.workers", rule, str(workers))]
    shapes = sorted(_shapes(spec, train_images), key=repr)
    if train_images is None and importlib.util.find_spec("timm") is None:
        shapes = [shape for shape in shapes if not shape.backbone.startswith(backbones.TIMM_PREFIX)]
    found: dict[tuple[str, str], Problem] = {}
    built = any(shape.backbone.startswith(backbones.TIMM_PREFIX) for shape in shapes)
    for number, shape in enumerate(shapes):
        if built:  # which takes seconds
            progress("sizes that backbones take", number, len(shapes))
        for problem in _problems(shape, workers, train_images):
            found.setdefault((problem.place, problem.rule), problem)
    if built:
        progress("sizes that backbones take", len(shapes), len(shapes))
    return [*found.values()]


def foreseen_here(spec: SweepSpec, progress: Progress) -> list[Problem]:
    """As `foreseen`, and where the data set is on this machine also what `run` would lack here: the weights' files and
    the GPUs."""
    root = spec.fixed["data.root"]
    assert isinstance(root, str), "data.root is never sampled"
    reading = LabelReading(*(spec.fixed[f"data.{name}"] for name in LabelReading._fields))  # type: ignore[arg-type]
    images = _train_images(root, bool(spec.fixed["data.follow_links"]), reading)
    found = foreseen(spec, images, progress)
    if images is None:
        return found
    found += [
        Problem("model.weights", "there is no such file", show(each["model.weights"]))
        for each in together(spec, ("model.weights",), every)
        if each["model.weights"] not in ("none", "imagenet")
        and not os.path.isfile(os.path.expanduser(str(each["model.weights"])))
    ]
    try:
        require_machine(spec.resources)
    except ResourcesError as error:
        found += error.problems
    return found


def require_machine(resources: ResourcesConfig, address: str | None = None) -> None:
    """Raise ResourcesError where Ray, started on this machine, could never place a trial's workers. Nothing is said of
    a cluster, which is asked once it is joined."""
    if address or os.environ.get("RAY_ADDRESS") or "RAY_OVERRIDE_RESOURCES" in os.environ:
        return
    needs = {"CPU": float(resources.cpus_per_worker)}
    have = {"CPU": float(os.cpu_count() or 1)}  # Ray counts fewer where a container has less
    if isinstance(resources.gpus_per_worker, float | int) and resources.gpus_per_worker > 0:
        import torch

        needs["GPU"], have["GPU"] = float(resources.gpus_per_worker), float(torch.cuda.device_count())
    if workers_that_fit([have], needs) < resources.workers:
        asked, there = (", ".join(f"{number:g} {kind}" for kind, number in each.items()) for each in (needs, have))
        raise ResourcesError(
            Problem(
                "resources",
                f"a trial needs {resources.workers} worker(s) of {asked}; this machine has {there}",
                fix="Lower resources.workers, cpus_per_worker or gpus_per_worker (0 trains on CPU), or run on a "
                "cluster (--address)",
            )
        )


def _train_images(root: str, follow_links: bool, reading: LabelReading) -> int | None:
    """The number of training images of a data set on this machine; None where it is not at hand or can't be read,
    which `data check` tells."""
    if is_address(root):
        return None
    folder = Path(os.path.expanduser(root))
    if (folder / "split").is_dir():
        try:
            return len(listed_images(folder, "train"))
        except (OSError, ValueError):
            return None
    if not folder.exists():
        return None
    from fashion.data.forms.table import scan_layout  # here, since arrays take a while to load

    scan = scan_layout(folder, follow_links, reading)
    return None if scan.problems else len(scan.images["train"])


def _shapes(spec: SweepSpec, train_images: int | None) -> Iterator[Shape]:
    """The shapes of the sweep's models that the rules of the spec leave open, each once."""
    ends = extremes(spec.expressions)

    def values(name: str, distribution: Distribution) -> Sequence[Scalar]:
        least_decides = name.startswith("train.batch_size")
        return ends(name, distribution) if least_decides else every(name, distribution)

    seen: set[Shape] = set()
    if not any(_open(each, spec.resources.workers, train_images) for each in together(spec, OPENED_BY, ends)):
        return
    for each in together(spec, SHAPED_BY, values):
        size = int(each["train.batch_size"] or 0)
        share = min(size, train_images if train_images is not None else size) // spec.resources.workers
        probe = each["train.mode"] == "probe"
        shape = Shape(
            backbone=str(each["model.backbone"]),
            trained=None if probe else int(each["data.train_crop"] or each["data.crop"] or 0),
            evaluated=int(each["data.crop"] or 0),
            alone=share < 2,
            frozen=None if probe or each["train.freeze_backbone"] else int(each["train.freeze_stages"] or 0),
            norm=each["model.feature_norm"] == "batch",
            crop_cells=int(each["data.crop_cells"] or 0) if each["train.mode"] == "tail" else None,
        )
        if shape not in seen:
            seen.add(shape)
            yield shape


def _open(each: Mapping[str, Scalar], workers: int, train_images: int | None) -> bool:
    """Whether the rules of the spec may leave it open whether such a model can be trained."""
    if each["train.mode"] == "tail":
        return True
    size = int(each["train.batch_size"] or 0)
    in_table = not str(each["model.backbone"]).startswith(backbones.TIMM_PREFIX)
    return not in_table or min(size, train_images if train_images is not None else size) < 2 * workers


def _problems(shape: Shape, workers: int, train_images: int | None) -> Iterator[Problem]:
    row = backbones.row(shape.backbone)
    if shape.alone and shape.norm:
        yield _of_one(workers, train_images, "with feature_norm: batch: batch normalisation needs two images")
    if shape.crop_cells is not None and shape.frozen:
        uncut = [*_uncut(shape)]
        yield from uncut
        if uncut:
            return
    if row.native_size:
        smallest = shape.trained is not None and shape.frozen is not None and shape.trained < row.least_side_alone
        if not (shape.alone and smallest):
            return  # the rest is in the rules of the spec
    yield from _tried(shape, workers, train_images)


def _uncut(shape: Shape) -> Iterator[Problem]:
    """Why a tail can't be cut off."""
    from fashion.model.network import complete_row
    from fashion.training.tail.cut import why_not_cut

    assert shape.frozen is not None, "a tail's backbone is never frozen as a whole"
    row = complete_row(backbones.row(shape.backbone))
    if reason := why_not_cut(row, shape.evaluated, shape.frozen, shape.crop_cells or 0):
        rule = f"{row.name} can't be cut there at {shape.evaluated} px ({reason})"
        fix = "Cut elsewhere (`fashion-sweep model` lists the stages), or use train.mode: full"
        yield Problem("train.freeze_stages", rule, str(shape.frozen), fix)


def _tried(shape: Shape, workers: int, train_images: int | None) -> Iterator[Problem]:
    """What building the backbone tells."""
    from fashion.model.network import complete_row, meta_backbone, stages_of
    from fashion.model.sizes import why_it_fails

    row = complete_row(backbones.row(shape.backbone))
    stages = [name for name, _ in stages_of(meta_backbone(row)[0])]
    if shape.frozen is not None and shape.frozen >= len(stages):
        rule = f"must be less than the number of the backbone's stages ({', '.join(stages)})"
        yield Problem("train.freeze_stages", rule, str(shape.frozen))
        return
    for field, side, training in (("crop", shape.evaluated, False), ("train_crop", shape.trained, True)):
        if side is None or (training and side == shape.evaluated):
            continue
        if reason := why_it_fails(row, side, training=training, frozen_stages=shape.frozen):
            rule = f"{row.name} can't take images of {side} x {side} pixels ({reason})"
            yield Problem(f"data.{field}", rule, str(side), f"Its own size is {row.native_size}")
            return
    if shape.alone and shape.trained is not None and shape.frozen is not None:
        side = shape.trained
        if why_it_fails(row, side, 1, True, shape.frozen):
            why = (
                f"for {row.name} at {side} pixels: its batch normalisation sees a single value per channel of one image"
            )
            yield _of_one(workers, train_images, why)


def _of_one(workers: int, train_images: int | None, why: str) -> Problem:
    each = f" for each of {workers} workers" if workers > 1 else ""
    if train_images is not None and train_images < 2 * workers:
        rule = f"a batch has at most all {train_images} training images, and needs two{each} {why}"
        return Problem("train.batch_size", rule, fix="Add images" + (", or lower resources.workers" if each else ""))
    return Problem("train.batch_size", f"must be at least {2 * workers}, two images{each}, {why}")
