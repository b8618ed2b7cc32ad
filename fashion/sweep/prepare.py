"""Everything that can fail before a trial starts, done once and without Ray: weights, image caches, the run itself."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fashion.bucket.address import Address
from fashion.config.data import AS_WRITTEN, LabelReading
from fashion.config.model import ModelConfig
from fashion.config.trial import TrialConfig
from fashion.data.cache.use import note_user
from fashion.data.layout import Dataset
from fashion.data.lists import LABELLED
from fashion.data.remote.local_copy import DataRoot
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import every, together
from fashion.storage.working_copy import Held, push_manifest
from fashion.sweep.described import found_in, labels_of, moved_images, record_findings, record_val_labels
from fashion.sweep.extend import continue_with, known_run, run_path
from fashion.sweep.models.known_models import KnownModels
from fashion.sweep.models.teachers import read_teachers
from fashion.sweep.read_data import DataRead, Progress, read_data
from fashion.training.distillation.soft_labels import SoftLabels

WEIGHTS = ("model.backbone", "model.weights")


@dataclass(frozen=True)
class Prepared:
    """What trials will read: the data set, its folder on this machine as an absolute path, and the weights per
    (backbone, weights). address: of a data set that is in a bucket, whose copy on this machine `root` then is.
    follow_links, on_error: as in the spec's data; reading: how its labels are read. teachers: the soft labels of each
    that the spec, or a trial that has begun, names."""

    dataset: Dataset
    root: Path
    cache_dir: Path
    weights: Mapping[tuple[str, str], ResolvedWeights]
    address: Address | None = None
    follow_links: bool = False
    on_error: str = "refuse"
    reading: LabelReading = AS_WRITTEN
    teachers: Mapping[str, SoftLabels] = field(default_factory=dict)

    @property
    def source(self) -> DataRoot:
        """The data set as trials are told of it, on whatever machine."""
        return self.root if self.address is None else self.address


def prepare(
    spec: SweepSpec,
    progress: Progress,
    begun: Sequence[TrialConfig] = (),
    read: DataRead | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Resolve all weights and compute the features and maps that this spec's trials need, and those `begun` before the
    spec was edited. read: the data set with its caches, where that has been read already. say: is told what the maps
    take before they are computed.

    Raises WeightsError and what `read_data`, `read_teachers` and `plan_maps` raise, with everything that is wrong,
    before any trial starts.
    """
    read = read or read_data(spec, progress, begun)
    dataset, cache_dir = read.dataset, read.cache_dir
    weights: dict[tuple[str, str], ResolvedWeights] = {}
    asked = [each["train.teacher"] for each in together(spec, ("train.teacher",), every)]
    asked += [config.train.teacher for config in begun]
    teachers = read_teachers([str(value) for value in asked if value is not None], dataset, say)
    known = KnownModels(cache_dir)
    named = [(str(each["model.backbone"]), str(each["model.weights"])) for each in together(spec, WEIGHTS, every)]
    for key in (*named, *((config.model.backbone, config.model.weights) for config in begun)):
        if key not in weights:
            model = ModelConfig(backbone=key[0], weights=key[1])
            weights[key] = known.weights(model, partial(progress, "weights"))
    known.save()
    used = {pack.path for packs in read.packs.values() for pack in packs}
    if any(config.train.mode == "tail" for config in read.configs):
        from fashion.training.tail.plan import plan_maps  # here, since it takes torch

        plan = plan_maps(read.configs, read.packs, weights, spec.resources.maps_gb, _device())
        plan.compute(_device(), progress, say)
        used |= {file.path for file in plan.files}
    used |= _compute_features(read, weights, progress)
    for path in used:
        if path.parent == cache_dir and path.exists():
            note_user(path, str(run_path(spec).absolute()))
    address = read.source if isinstance(read.source, Address) else None
    data = read.configs[0].data
    return Prepared(
        dataset, read.root, cache_dir, weights, address, data.follow_links, data.on_error, data.label_reading, teachers
    )


def _compute_features(
    read: DataRead, weights: Mapping[tuple[str, str], ResolvedWeights], progress: Progress
) -> set[Path]:
    """Compute the features that trials train on, or that their heads begin with. Returns their files."""
    seen: dict[tuple[object, ...], TrialConfig] = {}
    for config in read.configs:
        if config.train.mode == "probe" or config.train.init_heads == "probe":
            cut = config.train.freeze_stages if config.train.mode == "tail" else 0
            model, train = config.model, config.train
            seen[config.data, model.backbone, model.weights, train.mode, cut, train.precision] = config
    used = set[Path]()
    for config in seen.values():
        resolved = weights[config.model.backbone, config.model.weights]
        if not resolved.sha256:
            continue  # a backbone of random weights is one trial's own: that trial computes its features
        from fashion.training.features import open_features, open_or_compute, served_files  # here: they take torch

        packs = read.packs[config.data.form]
        for split, pack in zip(LABELLED, (packs[0], packs[-1]), strict=True):
            told = partial(progress, f"{split} features of {config.model.backbone} at {config.data.crop} px")
            if config.train.mode == "probe":
                open_features(pack, config, resolved, _device(), told, split)
            elif split == "train":
                open_or_compute(pack, config, resolved, False, _device(), told, split)
            used |= served_files(pack, config, resolved, _device(), split)
    return used


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def open_run(spec: SweepSpec, prepared: Prepared, bucket: Held | None = None) -> tuple[Run, bool]:
    """The sweep's run directory, made now or found. Returns (run, whether it was there before).

    bucket: the run in its bucket, which this process holds; None when the storage is a folder.

    Raises:
        RunError: the directory belongs to another spec (`continue_with` says what may differ), or its data set has
            changed.
    """
    dataset, path = prepared.dataset, run_path(spec)
    taught_by = {value: labels.sha256 for value, labels in prepared.teachers.items()}

    def models() -> list[dict[str, Any]]:
        known = KnownModels(prepared.cache_dir)
        features: Any = {name: spec.fixed[f"model.{name}"] for name in ("feature_stages", "feature_stats")}
        named = [ModelConfig(backbone=backbone, weights=kind, **features) for backbone, kind in prepared.weights]
        found = known.described(named, dataset.class_counts)
        known.save()
        return found

    if path.exists():
        run = known_run(spec)
        moved = partial(moved_images, run, dataset)
        continue_with(run, spec, prepared.source, dataset.fingerprint(), models, moved, taught_by)
        record_val_labels(run, dataset, bucket)
        record_findings(run, dataset)
        if bucket is not None:
            push_manifest(bucket.store, path)
        return run, True
    manifest = {
        "spec": spec.to_json(),
        "data_root": str(prepared.source),
        "data_fingerprint": dataset.fingerprint(),
        "data_form": dataset.described(),
        "splits": {name: len(split) for name, split in dataset.as_listed.splits.items()},
        **labels_of(dataset),
        "models": models(),
        "findings": found_in(dataset),
        "teachers": taught_by,
    }
    if dataset.skipped:
        manifest["skipped_images"] = dataset.skipped_counts()
    if bucket is None:
        run = Run.create(path.parent, path.name, manifest)
        record_val_labels(run, dataset)
        return run, False
    run = Run.create(path.parent, path.name, {"name": spec.name, "id": uuid.uuid4().hex, **manifest})
    run.kept_at(str(bucket.address))
    record_val_labels(run, dataset, bucket)
    push_manifest(bucket.store, path)
    return run, False


def discard(run: Run) -> None:
    """Remove a run directory that was made for a sweep which could not start. One with a trial in it stays."""
    if not run.trials:
        shutil.rmtree(run.path)
