"""Reads the tensors of a .safetensors or .pth file, and says of any other file what it is."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fashion.errors import WeightsError

# What a file that is none of weights begins with, and what it then is.
_BEGINNINGS: Mapping[bytes, str] = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself. Fetch it: git lfs pull",
    b"<": "is a web page, not weights: its download went wrong. Download it again",
    b"{": "is JSON, not weights. Name the file that holds the tensors",
    b"\x1f\x8b": "is compressed by gzip. Unpack it first",
    b"\x89HDF": "is an HDF5 file (Keras), not one of PyTorch or safetensors",
}
LARGEST_HEADER = 100_000_000  # bytes, of safetensors
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # torch.save, from 1.6 on and before


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file in file order; nothing but tensors is unpickled.

    A state dict is taken out of the usual wrappers (`state_dict`, `model`), and of a checkpoint of this project the
    backbone alone. Raises WeightsError for a file that is damaged, holds code, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if other := _what_it_is(path):
            raise WeightsError(f"model.weights: {path} {other}") from error
        raise WeightsError(
            f"model.weights: {path} is not a file of plain tensors (pickled code is never executed). "
            "Save the state dict alone, with torch.save(model.state_dict(), ...) or as .safetensors"
        ) from error
    except Exception as error:  # each reader has its own exceptions for a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise WeightsError(f"model.weights: {path} can't be read: {error.strerror}") from error
        reason = f" ({str(error).splitlines()[0]})" if isinstance(error, RuntimeError) and str(error) else ""
        other = _what_it_is(path) or f"is damaged or incomplete{reason}. Download or copy it again"
        raise WeightsError(f"model.weights: {path} {other}") from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"model.weights: {path} holds no state dict (names and tensors)")
    for name, value in loaded.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            form = f"{value.layout}, {value.dtype} on {value.device}"
            raise WeightsError(f"model.weights: {path}: {name} must be a plain tensor of real numbers; got {form}")
    state = {re.sub(r"^((module|_orig_mod)\.)+", "", str(name)): value for name, value in loaded.items()}
    own = {name.removeprefix("backbone."): v for name, v in state.items() if name.startswith("backbone.")}
    return own or state


def _what_it_is(path: Path) -> str:
    """What the file is instead of weights of its suffix, in words, as far as its first bytes tell; empty otherwise."""
    try:
        with path.open("rb") as file:
            begins = file.read(32)
    except OSError:
        return ""
    if not begins:
        return "is empty. Download or copy it again"
    # It begins with the length of its header, which is JSON. (As a length, eight letters are more than any file has.)
    tensors = begins[8:9] == b"{" and int.from_bytes(begins[:8], "little") < LARGEST_HEADER
    by_torch = begins.startswith((_ZIP, _PICKLE))
    for start, words in _BEGINNINGS.items():
        if not tensors and begins.lstrip().startswith(start):
            return words
    if path.suffix == ".safetensors" and by_torch:
        return "was written by torch.save, not by safetensors. Name it .pth"
    if path.suffix != ".safetensors" and tensors:
        return "is a safetensors file. Name it .safetensors"
    if path.suffix != ".safetensors" and not by_torch:
        return "is no file that torch.save has written. Name one, or a .safetensors file"
    return ""
