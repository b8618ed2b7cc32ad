"""Everything that can fail before a trial starts, done once and without Ray: data, weights, image caches."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fashion.bucket.address import Address
from fashion.config import TrialConfig
from fashion.data.contents import default_cache_dir
from fashion.data.layout import Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.data.remote.local_copy import DataRoot, on_this_machine, parse_root
from fashion.model.classifier import build_model
from fashion.model.weights import ResolvedWeights, resolve_weights
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec
from fashion.storage.working_copy import Held, push_manifest
from fashion.sweep.described import described, found_in, record_findings, record_val_labels
from fashion.sweep.extend import continue_with, known_run, run_path
from fashion.training.features import open_features

# label, done, total
Progress = Callable[[str, int, int], None]

# Under optuna configurations are not known beforehand; this many draws show what they can be made of.
OPTUNA_DRAWS = 300


@dataclass(frozen=True)
class Prepared:
    """What trials will read: the data set, its folder on this machine as an absolute path, and the weights per
    (backbone, weights). address: of a data set that is in a bucket, whose copy on this machine `root` then is."""

    dataset: Dataset
    root: Path
    cache_dir: Path
    weights: Mapping[tuple[str, str], ResolvedWeights]
    address: Address | None = None

    @property
    def source(self) -> DataRoot:
        """The data set as trials are told of it, on whatever machine."""
        return self.root if self.address is None else self.address


def prepare(spec: SweepSpec, progress: Progress, begun: Sequence[TrialConfig] = ()) -> Prepared:
    """Read the data, resolve all weights and build the caches that this spec's trials need, and those `begun` before
    the spec was edited.

    Raises:
        DataError, WeightsError: with everything that is wrong, before any trial starts.
        StorageError: the data set is in a bucket that can't be read.
    """
    configs = [*possible_trials(spec), *begun]
    cache_dir = default_cache_dir().absolute()
    forms = sorted({(c.data.resize, c.data.fit, c.data.interpolation) for c in configs})
    source = parse_root(configs[0].data.root)
    root = on_this_machine(source, cache_dir, forms, progress=progress)
    dataset = read_dataset(root)
    dataset.fingerprint(partial(progress, "contents of all images"))
    weights: dict[tuple[str, str], ResolvedWeights] = {}
    for config in configs:
        key = (config.model.backbone, config.model.weights)
        if key not in weights:
            weights[key] = resolve_weights(config.model, partial(progress, "weights"))
    for backbone, stages in sorted(
        {(c.model.backbone, c.train.freeze_stages) for c in configs if c.train.freeze_stages}
    ):
        with torch.device("meta"):  # refused now, and not by each of its trials
            build_model(configs[0].model.model_copy(update={"backbone": backbone}), (2,)).freeze_stages(stages)
    packs: dict[tuple[int, str, str], list[Pack]] = {}
    for resize, fit, interpolation in forms:
        packs[resize, fit, interpolation] = [
            Pack.open_or_build(
                dataset, split, resize, fit, interpolation, cache_dir,
                progress=partial(progress, f"{split} images at {resize} px"), verify=True,
            )
            for split in ("train", "val")
        ]  # fmt: skip
    probes = {(c.data, c.model.backbone, c.model.weights): c for c in configs if c.train.mode == "probe"}
    for config in probes.values():
        resolved = weights[config.model.backbone, config.model.weights]
        # A backbone of random weights is one trial's own: that trial computes its features.
        if resolved.sha256:
            for pack in packs[config.data.resize, config.data.fit, config.data.interpolation]:
                label = f"{pack.metadata['split']} features of {config.model.backbone} at {config.data.crop} px"
                open_features(pack, config, resolved, _device(), partial(progress, label))
    return Prepared(dataset, root, cache_dir, weights, source if isinstance(source, Address) else None)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def possible_trials(spec: SweepSpec) -> list[TrialConfig]:
    """Every configuration of a random or grid sweep; for optuna a wide sample of its space."""
    if not spec.search.adaptive:
        return [spec.trial(number) for number in range(spec.total_trials)]
    return [spec.drawn(number) for number in range(OPTUNA_DRAWS)]


def open_run(spec: SweepSpec, prepared: Prepared, bucket: Held | None = None) -> tuple[Run, bool]:
    """The sweep's run directory, made now or found. Returns (run, whether it was there before).

    bucket: the run in its bucket, which this process holds; None when the storage is a folder.

    Raises:
        RunError: the directory belongs to another spec (`continue_with` says what may differ), or its data set has
            changed.
    """
    dataset, path = prepared.dataset, run_path(spec)
    models = partial(described, prepared.weights, dataset.class_counts)
    if path.exists():
        run = known_run(spec)
        continue_with(run, spec, prepared.source, dataset.fingerprint(), models)
        record_val_labels(run, dataset, bucket)
        record_findings(run, dataset)
        if bucket is not None:
            push_manifest(bucket.store, path)
        return run, True
    manifest = {
        "spec": spec.to_json(),
        "data_root": str(prepared.source),
        "data_fingerprint": dataset.fingerprint(),
        "attributes": [{"name": a.name, "classes": list(a.classes)} for a in dataset.attributes],
        "label_counts": {name: _label_counts(dataset, name) for name in ("train", "val")},
        "models": models(),
        "findings": found_in(dataset),
    }
    if bucket is None:
        run = Run.create(spec.storage, spec.name, manifest)
        record_val_labels(run, dataset)
        return run, False
    run = Run.create(path.parent, path.name, {"name": spec.name, "id": uuid.uuid4().hex, **manifest})
    run.kept_at(str(bucket.address))
    record_val_labels(run, dataset, bucket)
    push_manifest(bucket.store, path)
    return run, False


def _label_counts(dataset: Dataset, split: str) -> list[list[int]]:
    labels = dataset.splits[split].labels
    assert labels is not None, "read_dataset refuses train and val without labels"
    return [np.bincount(labels[:, head], minlength=k).tolist() for head, k in enumerate(dataset.class_counts)]
