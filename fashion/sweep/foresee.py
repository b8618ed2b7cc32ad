"""What would fail in every trial of a kind, found before any starts: by the rules of the spec where they tell, by
building the backbone where only that tells, once for each distinct shape.

`run` refuses what is found here, and `check` reports it. Torch is loaded only where it is needed.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.bucket.address import is_address
from fashion.cluster.growth import workers_that_fit
from fashion.config.data import LabelReading
from fashion.config.model import ModelConfig
from fashion.config.names import asks_timm
from fashion.data.lists import LABELLED, Looking, listed_images, looking_with
from fashion.errors import Problem, ResourcesError, UserError, WeightsError
from fashion.model import backbones
from fashion.spec.fields import show
from fashion.spec.settings import ResourcesConfig
from fashion.spec.space import Distribution, Scalar
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import every, extremes, together
from fashion.spec.trials.relations import FROZEN, least_training_side

Progress = Callable[[str, int, int], None]  # label, done, total
OPENED_BY = ("model.backbone", "train.batch_size", "train.mode")
SHAPED_BY = (
    "model.backbone", "data.crop", "data.train_crop", "data.train_crop_from", "data.crop_cells", "train.batch_size",
    "model.feature_norm", *FROZEN,
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What decides whether a model can be trained on images at all.

    trained: least side in pixels of the training input, None for a probe, which never sees it. evaluated: side of the
    crop. alone: whether some worker's share of a batch is a single image. frozen: how many of the backbone's first
    stages are frozen, None for all of it. norm: whether the pooled features are normalised by batch. crop_cells: of a
    tail, which is cut behind its frozen stages, None for any other mode.
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
        shapes = [shape for shape in shapes if not asks_timm(shape.backbone)]
    found = {(problem.place, problem.rule): problem for problem in _without_maps(spec)}
    built = any(asks_timm(shape.backbone) for shape in shapes)
    for number, shape in enumerate(shapes):
        if built:  # which takes seconds
            progress("sizes that backbones take", number, len(shapes))
        for problem in _problems(shape, workers, train_images):
            found.setdefault((problem.place, problem.rule), problem)
    if built:
        progress("sizes that backbones take", len(shapes), len(shapes))
    return [*found.values()]


def _without_maps(spec: SweepSpec) -> Iterator[Problem]:
    """Those of `model.feature_stages` that are no stages with maps, of each backbone."""
    if not spec.fixed["model.feature_stages"]:
        return
    from fashion.model.parts.stage_features import feature_count  # here, since it takes torch

    for each in together(spec, ("model.backbone",), every):
        name = str(each["model.backbone"])
        if asks_timm(name) and importlib.util.find_spec("timm") is None:
            continue
        stages: Any = spec.fixed["model.feature_stages"]
        try:
            feature_count(backbones.row(name), ModelConfig(backbone=name, feature_stages=stages))
        except UserError as error:
            yield from error.problems


def foreseen_here(spec: SweepSpec, progress: Progress) -> list[Problem]:
    """As `foreseen`, and where the data set is on this machine also what `run` would lack here: a list of images or a
    label file that can be read, weights' files that hold the backbone's weights, and GPUs."""
    root = spec.fixed["data.root"]
    assert isinstance(root, str), "data.root is never sampled"
    reading = LabelReading(*(spec.fixed[f"data.{name}"] for name in LabelReading._fields))  # type: ignore[arg-type]
    follow = bool(spec.fixed["data.follow_links"])
    images, found = _train_images(root, follow, reading, looking_with(progress))
    found += foreseen(spec, images, progress)
    if images is None:
        return found
    found += _weights_files(spec)
    found += _teachers(spec)
    try:
        require_machine(spec.resources)
    except ResourcesError as error:
        found += error.problems
    return found


def _weights_files(spec: SweepSpec) -> list[Problem]:
    """What is wrong with the weights' files that the spec names. Torch reads each, once for each backbone."""
    problems = []
    for each in together(spec, ("model.backbone", "model.weights"), every):
        backbone, weights = str(each["model.backbone"]), str(each["model.weights"])
        if weights in ("none", "imagenet"):
            continue
        if not os.path.isfile(os.path.expanduser(weights)):
            problems.append(Problem("model.weights", "there is no such file", show(weights)))
            continue
        from fashion.model.pretrained.weights import resolve_weights

        try:
            resolve_weights(ModelConfig(backbone=backbone, weights=weights))
        except WeightsError as error:
            problems += error.problems
    return list(dict.fromkeys(problems))


def _teachers(spec: SweepSpec) -> Iterator[Problem]:
    """What is wrong with the teachers that the spec names. Whether they know all training images is seen when those are
    read."""
    for each in together(spec, ("train.teacher",), every):
        if each["train.teacher"] is None:
            continue
        from fashion.sweep.models.teachers import teacher_file  # here, since arrays take a while to load

        try:
            teacher_file(str(each["train.teacher"]))
        except UserError as error:
            yield from error.problems or [Problem("train.teacher", str(error))]


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


def _train_images(
    root: str, follow_links: bool, reading: LabelReading, looking: Looking
) -> tuple[int | None, list[Problem]]:
    """The number of training images of a data set on this machine, None where it is not at hand; and why it can't be
    read, as far as its list of training images, or its label file, tells."""
    folder = Path(os.path.expanduser(root))
    if is_address(root) or not folder.exists():
        return None, []
    if (folder / "split").is_dir():
        images = {}
        for split in _read(reading):
            try:
                images[split] = len(listed_images(folder, split))
            except (OSError, ValueError) as error:
                reason = str(error.strerror) if isinstance(error, OSError) else str(error)
                return None, [_unusable(root, f"split/{split}.txt: {reason}")]
        return _of_training(images, reading), []
    from fashion.data.forms.table import scan_layout  # here, since arrays take a while to load

    scan = scan_layout(folder, follow_links, reading, looking)
    if not scan.problems:
        return _of_training({split: len(scan.images[split]) for split in _read(reading)}, reading), []
    first, others = scan.problems[0][1], len(scan.problems) - 1
    return None, [_unusable(root, f"{first}" + (f" (and {others:,} more)" if others else ""))]


def _read(reading: LabelReading) -> Sequence[str]:
    """The splits that a trial trains on, in folds of both or on the first alone."""
    return LABELLED if reading.folds is not None else LABELLED[:1]


def _of_training(images: Mapping[str, int], reading: LabelReading) -> int:
    """How many images one model is trained on, given those of each split."""
    whole = sum(images.values())
    return whole if reading.folds is None else whole * (reading.folds - 1) // reading.folds


def _unusable(root: str, why: str) -> Problem:
    shown = f"'fashion-sweep data check {shlex.quote(root)}' shows everything"
    return Problem("data.root", "must be a data set that can be trained on", f"{root}: {why}", shown)


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
            trained=None if probe else least_training_side(each),
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
    in_table = not asks_timm(str(each["model.backbone"]))
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
    from fashion.model.parts.cut import why_not_cut

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
