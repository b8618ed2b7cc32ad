"""What a sweep needs of a machine, examined in seconds: `fashion-sweep doctor`. Knows nothing of Ray, and imports no torch.

`examine` looks at the machine on which it runs, `compare` at what must be equal on all of them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.data.contents import default_cache_dir
from fashion.data.lists import LABELLED, LARGEST_LIST
from fashion.doctor.bucket import Bucket, examine_bucket
from fashion.doctor.folder import HERE, Finding, Folder, examine_folder
from fashion.errors import Problem
from fashion.record.manifest import code_version, package_versions

# A machine that is set by NTP is off by milliseconds. Reports carry the time of the machine they were made on, and object
# stores refuse requests whose time is minutes off.
MOST_SKEW = 1.0
TORCH_PATIENCE = 60.0  # seconds; torch alone takes five on a busy machine


@dataclass(frozen=True)
class Weights:
    """A file that trials start from. `size`: its bytes on the machine with the command, if it is there. `url`: from where
    `run` would download it. `refused`: why it can't be had, and `fix` what to do then."""

    name: str
    path: str
    size: int | None = None
    url: str = ""
    refused: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Request:
    """What one node is examined for. Paths are absolute: those that the trials of a sweep are handed, on every node."""

    node: str = HERE
    folders: tuple[Folder, ...] = ()
    data_root: Path | None = None
    buckets: tuple[Bucket, ...] = ()
    weights: tuple[Weights, ...] = ()
    joined: bool = False  # a node of a cluster that somebody else has started
    gpus: int | None = None  # that Ray offers there; None: ask the driver


@dataclass(frozen=True)
class Node:
    """What is compared. `clock`: least and most seconds by which its clock may be ahead of the first node's, if measured."""

    name: str
    versions: Mapping[str, str]
    clock: tuple[float, float] | None = None


def examine(request: Request) -> list[Finding]:
    """Look at everything that `request` names, on the machine where this runs."""
    found = [_token(request), _gpus(request)]
    if request.data_root is not None:
        found += _data(request.node, request.data_root)
    for bucket in request.buckets:
        found += examine_bucket(request.node, bucket)
    found += [_weights(request, weights) for weights in request.weights]
    folders = list(request.folders)
    # Fingerprints and predictions are kept in the node's own cache folder, which its environment may put elsewhere.
    own = default_cache_dir().absolute()
    if own not in [folder.path for folder in folders]:
        folders.append(Folder("cache", own, "set FASHION_CACHE for Ray on this node to another folder"))
    for folder in folders:
        found += examine_folder(request.node, folder)
    return found


def compare(nodes: Sequence[Node]) -> list[Finding]:
    """Versions must be those of the first node, the machine with the command, and clocks agree with its."""
    first, found = nodes[0], []
    for node in nodes:
        for name in sorted({*first.versions, *node.versions}, key=list({**first.versions, **node.versions}).index):
            wanted, value = (each.versions.get(name, "not installed") for each in (first, node))
            ok = value == wanted
            fix = (
                "" if ok else f"Install {name} {wanted} there, with the constraints.txt that the others were made with"
            )
            if name == "fashion-sweep" and not ok:
                fix = f"Install the sources of {first.name} there: their digest is {wanted.partition('+')[2]}"
            if name == "python" and not ok:
                fix = f"Make that node's environment anew with Python {wanted}"
            rule = "the same on all nodes" + ("" if ok else f", {wanted} on {first.name}")
            found.append(Finding("version", node.name, ok, Problem(name, rule, value, fix)))
        if node.clock is not None:
            low, high = node.clock
            ok = low <= MOST_SKEW and high >= -MOST_SKEW  # never a finding for a slow network alone
            value = f"{(low + high) / 2:+.3f} s, give or take {(high - low) / 2:.3f}"
            rule = f"within {MOST_SKEW:g} s of the clock of {first.name}"
            fix = "" if ok else "Let NTP set both clocks (chrony, systemd-timesyncd)"
            found.append(Finding("clock", node.name, ok, Problem("clock", rule, value, fix)))
    return found


def versions() -> dict[str, str]:
    """Of what trials are a function of, on this machine."""
    return {"python": platform.python_version(), "fashion-sweep": code_version(), **package_versions()}


def _token(request: Request) -> Finding:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    # `run` starts Ray with a token unless told otherwise; `ray start` has it from its environment, as its workers have.
    ok = mode.lower() == "token" or (not mode and not request.joined)
    fix = "" if ok else "Unset RAY_AUTH_MODE, or set it to token"
    if not ok and request.joined:
        fix = "Put one token into ~/.ray/auth_token of every node, and set RAY_AUTH_MODE=token for each `ray start`"
    value = f"RAY_AUTH_MODE {f'is {mode}' if mode else 'is not set'}"
    return Finding("token", request.node, ok, Problem("Ray", "lets in who has the token, and nobody else", value, fix))


def _gpus(request: Request) -> Finding:
    offered, by = (
        (request.gpus, "Ray offers") if request.gpus is not None else (_gpus_of_the_driver(), "the driver has")
    )
    rule = "torch sees the GPUs that " + ("Ray offers" if request.gpus is not None else "the driver has")
    if not offered:
        return Finding("gpu", request.node, True, Problem("GPU", rule, "none here"))
    answer, failed = ask_torch()
    names = answer.get("gpus", [])
    if len(names) >= offered:
        value = f"{len(names)}: {', '.join(dict.fromkeys(names))}"
        return Finding("gpu", request.node, True, Problem("GPU", rule, value))
    said = failed or "; ".join(answer["warnings"]) or f"built for {answer['built_for'] or 'the CPU alone'}"
    fix = "Install a build of torch for this machine's GPU driver, or a driver that is new enough for it"
    return Finding("gpu", request.node, False, Problem("GPU", rule, f"{len(names)}, {by} {offered}: {said}", fix))


def _gpus_of_the_driver() -> int:
    """NVIDIA devices that this process may see."""
    there = sum(bool(re.fullmatch("nvidia[0-9]+", name)) for name in os.listdir("/dev")) if os.path.isdir("/dev") else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if visible is None else min(there, len([one for one in visible.split(",") if one not in ("", "-1")]))


def ask_torch(backbones: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """What `fashion.doctor.torch_probe` answers, and why it could not: in a process of its own, since a torch that breaks on
    import is a finding, and since a process that has asked for GPUs keeps hold of them."""
    places = [place or os.getcwd() for place in sys.path]  # it finds what this process would
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fashion.doctor.torch_probe"], input=json.dumps(list(backbones)), text=True,
            capture_output=True, timeout=TORCH_PATIENCE, env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {}, f"torch did not answer within {TORCH_PATIENCE:g} s"
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        return {}, f"torch can't be asked: {said[-1]}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer, ""


def _data(node: str, root: Path) -> list[Finding]:
    """That the folder is there with its lists, and the last image of each: all images are `data check`'s business."""
    place, rule = f"data.root {root}", "a data set that can be read: split/ with its lists, and the images in them"
    wrong, counts = [], []
    if not os.path.isdir(root / "split"):
        wrong.append("no folder split/ there")
    for split in () if wrong else LABELLED:
        try:
            images = listed(root, split)
            counts.append(f"{split} {len(images):,} lines")
            if not images or not os.path.isfile(root / images[-1]):
                wrong.append(f"{images[-1] if images else 'no image'} in split/{split}.txt, and no such file")
            with open(root / "split" / f"{split}_attr.txt", "rb"):
                pass
        except OSError as error:
            wrong.append(f"{error.filename}: {error.strerror}")
        except ValueError as error:
            wrong.append(f"split/{split}.txt: {error}")
    if not wrong:
        return [Finding("data", node, True, Problem(place, rule, ", ".join(counts)))]
    fix = "Put the data set there, the same on every node, or set data.root to where it is"
    return [Finding("data", node, False, Problem(place, rule, value, fix)) for value in wrong]


def listed(root: Path, split: str) -> list[str]:
    """The lines of a split's list, perhaps with a header. Raises OSError or ValueError where it is none."""
    path = root / "split" / f"{split}.txt"
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_LIST:  # reading a pipe would wait for ever
        raise ValueError(f"not a file of at most {LARGEST_LIST:,} bytes")
    return [line.strip() for line in path.read_bytes().decode("utf-8-sig").splitlines() if line.strip()]


def _weights(request: Request, weights: Weights) -> Finding:
    place, rule, fix = f"model.weights {weights.name}", "a file that can be read", weights.fix
    readable = os.path.isfile(weights.path) and os.access(weights.path, os.R_OK)
    size = os.path.getsize(weights.path) if readable else None
    if readable and weights.size in (None, size):
        return Finding("weights", request.node, True, Problem(place, rule, f"{weights.path}, {size or 0:,} bytes"))
    if weights.url and not weights.refused and not request.joined:
        return Finding(
            "weights", request.node, True, Problem(place, rule, f"not here yet, run downloads {weights.url}")
        )
    if request.joined and weights.path and (weights.url or weights.size is not None):
        # The command downloads for the machine where it is typed: others must find the file at the same place.
        fix = f"Put {weights.url or f'the file of {HERE}'} at {weights.path} on every node"
    if readable:
        rule, value = f"the file of {HERE}, {weights.size:,} bytes", f"{weights.path}, {size:,} bytes"
    elif os.path.exists(weights.path):
        value = f"{weights.path}, which is not readable"
    else:
        value = weights.refused if not weights.path or not request.joined else ""
        value = value or f"{weights.path}, which is not there"
    return Finding("weights", request.node, False, Problem(place, rule, value, fix))
