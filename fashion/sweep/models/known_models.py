"""What has been found out about backbones and weights, kept in the cache folder: the same again needs no torch.

To load torch, build a network and check a file of weights takes longer than a short sweep's first epoch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fashion.config.model import ModelConfig
from fashion.config.names import asks_timm
from fashion.files import parse, write_atomic
from fashion.model import backbones
from fashion.model.pretrained.resolved_weights import ResolvedWeights, joined_weights
from fashion.record.manifest import code_version, package_versions

Progress = Callable[[int, int], None]  # bytes done, of all

FILE = "models.json"
# Where the libraries look for weights, and keep them.
PLACES = ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")


class KnownModels:
    """The sizes of backbones, and the files of weights that were found whole and of their network.

    What is known holds for this version of the code and of the packages, and for a file as long as it has the size and
    the time of its last change. A trial checks the contents once more when it loads them.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.path = cache_dir / FILE
        self._of = {
            "fashion-sweep": code_version(), **package_versions(), "places": [os.environ.get(name) for name in PLACES],
        }  # fmt: skip
        self._sizes: dict[str, dict[str, Any]] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._changed = False
        # A file that is missing, damaged or another version's says nothing.
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = parse(self.path.read_bytes())
            if found["of"] == self._of:
                self._sizes, self._files = dict(found["sizes"]), dict(found["files"])

    def weights(self, model: ModelConfig, progress: Progress | None = None) -> ResolvedWeights:
        """What `pretrained.weights.resolve_weights` says, which is asked for what is not known. Raises like it."""
        listed = not asks_timm(model.backbone)
        if model.weights == "none" and (listed or model.backbone in self._sizes):
            backbones.row(model.backbone)
            return ResolvedWeights("none")
        if backbones.row(model.backbone).parts:
            return joined_weights(model, partial(self.weights, progress=progress))
        key = json.dumps([model.backbone, os.path.abspath(model.weights) if _is_path(model) else model.weights])
        if (known := self._files.get(key)) and known["file"] == _looks(Path(known["path"])):
            return ResolvedWeights("file" if _is_path(model) else "imagenet", Path(known["path"]), known["sha256"])

        from fashion.model.pretrained.weights import resolve_weights

        found = resolve_weights(model, progress)
        if found.path is not None and found.sha256 is not None:
            entry = {"path": str(found.path), "file": _looks(found.path), "sha256": found.sha256}
            self._files[key], self._changed = entry, True
        return found

    def described(self, models: Iterable[ModelConfig], class_counts: Sequence[int]) -> list[dict[str, Any]]:
        """Of each backbone and its weights its parameters, and those of the backbone's stages in order of the forward
        pass. class_counts: how many classes each attribute has; heads are linear, with a bias."""
        said = []
        wanted = {(model.backbone, model.weights): model for model in models}
        for (backbone, weights), model in sorted(wanted.items()):
            size = self._size(model)
            heads = sum((size["features"] + 1) * count for count in class_counts)
            said.append(
                {
                    "backbone": backbone,
                    "weights": weights,
                    "parameters": size["parameters"] + heads,
                    "backbone_parameters": size["parameters"],
                    "head_parameters": heads,
                    "stages": size["stages"],
                }
            )
        return said

    def _size(self, model: ModelConfig) -> dict[str, Any]:
        stages = " ".join(map(str, model.feature_stages))
        key = f"{model.backbone} {stages} {model.feature_stats}" if stages else model.backbone
        if key not in self._sizes:
            from fashion.model.summary import backbone_size

            self._sizes[key], self._changed = backbone_size(model), True
        return self._sizes[key]

    def save(self) -> None:
        """Keep what was found out. Where the folder can't be written to, it will be found out again."""
        if not self._changed:
            return
        content = {"of": self._of, "sizes": self._sizes, "files": self._files}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(content).encode())
            self._changed = False


def _is_path(model: ModelConfig) -> bool:
    return model.weights not in ("none", "imagenet")


def _looks(path: Path) -> list[int] | None:
    """What a file shows without being read: its size and the time of its last change, in nanoseconds."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
