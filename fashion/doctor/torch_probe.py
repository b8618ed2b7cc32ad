"""What only torch knows, asked by `fashion.doctor.examine` in a process of its own. Nothing is downloaded.

`python -m fashion.doctor.torch_probe` reads a JSON list of backbones from stdin and prints one JSON object: the GPUs
that torch sees, and where each backbone's ImageNet weights are or would be downloaded to.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import torch

from fashion.errors import WeightsError
from fashion.model import backbones
from fashion.model.backbones import BackboneRow
from fashion.model.network import import_timm
from fashion.model.pretrained.weights import hub_path, knock

NETWORK_TIMEOUT = 5  # seconds without an answer


def gpus() -> dict[str, Any]:
    """Names of the GPUs, warnings of torch about them, and what torch was built for: "CUDA 12.8", or nothing."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        # A driver that is too old causes a warning in the first call, and an exception in the next ones.
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [torch.cuda.get_device_name(number) for number in range(count)]
    built = (
        f"CUDA {torch.version.cuda}" if torch.version.cuda else f"HIP {torch.version.hip}" if torch.version.hip else ""
    )
    return {"gpus": names, "warnings": [" ".join(str(each.message).split()) for each in said], "built_for": built}


def weights(row: BackboneRow) -> dict[str, str]:
    """Where the ImageNet weights are: {path, url, refused}.

    `path` is the file, which is there already or once it is downloaded. `url` is set where it is still to be
    downloaded, `refused` where it can't be, and says why.
    """
    try:
        path, url = _torchvision_weights(row) if row.source == "torchvision" else _timm_weights(row)
    except WeightsError as error:
        return {"path": "", "url": "", "refused": str(error)}
    if path and os.path.isfile(path):
        return {"path": path, "url": "", "refused": ""}
    return {"path": path, "url": url, "refused": unreachable(url)}


def _torchvision_weights(row: BackboneRow) -> tuple[str, str]:
    import torchvision

    url = torchvision.models.get_weight(row.weights_name).url
    return str(hub_path(url)), url


def _timm_weights(row: BackboneRow) -> tuple[str, str]:
    timm = import_timm(f"model.backbone: {row.name}")
    known = timm.models.get_pretrained_cfg(row.timm_name)
    if known is None or not (known.hf_hub_id or known.url):
        raise WeightsError(f"timm has no weights for {row.timm_name}")
    if not known.hf_hub_id:
        return str(hub_path(known.url)), known.url
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    name = known.hf_hub_filename or "model.safetensors"
    found = try_to_load_from_cache(known.hf_hub_id, name)
    return found if isinstance(found, str) else "", hf_hub_url(known.hf_hub_id, name)


def unreachable(url: str) -> str:
    """Why the host of `url` does not answer; empty where it does.

    The file itself is not requested, since the hub may want a token that `run` has.
    """
    parts = urlsplit(url)
    said = _silent(f"{parts.scheme}://{parts.netloc}/")
    return f"{url} can't be reached ({said})" if said else ""


@cache
def _silent(host: str) -> str:
    try:
        knock(host, NETWORK_TIMEOUT)
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""


def main() -> None:
    names = json.load(sys.stdin)
    answer = {**gpus(), "weights": {name: weights(backbones.row(name)) for name in names}}
    print(json.dumps(answer))  # the last line: a library may have printed something before


if __name__ == "__main__":
    main()
