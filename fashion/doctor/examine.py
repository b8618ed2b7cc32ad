"""What a sweep needs of a machine, examined in seconds: `fashion-sweep doctor`. Imports neither Ray nor torch.

`examine` looks at the machine on which it runs, `compare` at what must be the same on all machines.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.cluster.ray_folder import folder_above
from fashion.config.data import AS_WRITTEN, LabelReading
from fashion.data.contents import default_cache_dir
from fashion.data.forms.table import scan_layout
from fashion.data.lists import LABELLED, listed_images
from fashion.doctor.bucket import Bucket, examine_bucket
from fashion.doctor.diagnosis import HERE, ClockOffset, Diagnosis
from fashion.doctor.folder import Folder, examine_folder
from fashion.errors import Problem, ResourcesError
from fashion.files import visible_gpus
from fashion.record.manifest import code_version, package_versions

# Seconds. NTP keeps a clock right to milliseconds. A report carries the time of the machine that made it, and object
# stores refuse requests whose time is minutes off.
MOST_SKEW = 1.0
TORCH_PATIENCE = 60.0  # seconds; importing torch alone takes five on a busy machine


@dataclass(frozen=True)
class Weights:
    """A file of weights that trials start from.

    `size` is its bytes on the machine with the command, None where it is not there. `url` is where `run` would download
    it from. `refused` says why it can't be had, and `fix` what to do then.
    """

    name: str
    path: str
    size: int | None = None
    url: str = ""
    refused: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Request:
    """What one node is examined for. Paths are absolute: the trials of a sweep are handed the same ones on every node.

    `joined` is true for a node of a cluster that somebody else has started. `gpus` is the number that Ray offers there;
    None asks the GPU driver. `reading` is how the data set's labels are read.
    """

    node: str = HERE
    folders: tuple[Folder, ...] = ()
    data_root: Path | None = None
    buckets: tuple[Bucket, ...] = ()
    weights: tuple[Weights, ...] = ()
    joined: bool = False
    gpus: int | None = None
    reading: LabelReading = AS_WRITTEN


@dataclass(frozen=True)
class Node:
    """What is compared between nodes. `clock` is its clock's offset from the first node's, None if unmeasured."""

    name: str
    versions: Mapping[str, str]
    clock: ClockOffset | None = None


def examine(request: Request) -> list[Diagnosis]:
    """Look at everything that `request` names, on the machine where this runs."""
    found = [_token(request), _gpus(request)]
    if not request.joined:
        found.append(_ray_files(request))
    if request.data_root is not None:
        found += _data(request.node, request.data_root, request.reading)
    for bucket in request.buckets:
        found += examine_bucket(request.node, bucket)
    found += [_weights(request, weights) for weights in request.weights]
    folders = list(request.folders)
    # Fingerprints and predictions are kept in the node's own cache folder, which its environment may put somewhere
    # else.
    own = default_cache_dir().absolute()
    if own not in [folder.path for folder in folders]:
        folders.append(Folder("cache", own, "set FASHION_CACHE for Ray on this node to another folder"))
    for folder in folders:
        found += examine_folder(request.node, folder)
    return found


def compare(nodes: Sequence[Node]) -> list[Diagnosis]:
    """Every node must have the versions of the first, the machine with the command, and agree with its clock."""
    first, found = nodes[0], []
    for node in nodes:
        for name in sorted({*first.versions, *node.versions}, key=list({**first.versions, **node.versions}).index):
            wanted, value = (each.versions.get(name, "not installed") for each in (first, node))
            ok = value == wanted
            fix = "" if ok else _install(name, wanted, first.name)
            # On one machine there is nothing to compare.
            rule = "installed" if len(nodes) == 1 else "the same on all nodes"
            rule += "" if ok else f", {wanted} on {first.name}"
            found.append(Diagnosis("version", node.name, ok, Problem(name, rule, value, fix)))
        if node.clock is not None:
            ok = node.clock.may_be_within(MOST_SKEW)
            rule = f"within {MOST_SKEW:g} s of the clock of {first.name}"
            fix = "" if ok else "Let NTP set both clocks (chrony, systemd-timesyncd)"
            found.append(Diagnosis("clock", node.name, ok, Problem("clock", rule, node.clock.describe(3), fix)))
    return found


def _install(package: str, version: str, node: str) -> str:
    """How to make a node's version the same as that of `node`."""
    if package == "fashion-sweep":
        return f"Install the sources of {node} there: their digest is {version.partition('+')[2]}"
    if package == "python":
        return f"Make that node's environment anew with Python {version}"
    return f"Install {package} {version} there, with the constraints.txt of the other nodes"


def versions() -> dict[str, str]:
    """Versions on this machine of everything that a trial's numbers depend on."""
    return {"python": platform.python_version(), "fashion-sweep": code_version(), **package_versions()}


def _token(request: Request) -> Diagnosis:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    # `run` starts Ray with a token unless told otherwise. `ray start` and its workers take the mode from the
    # environment.
    ok = mode.lower() == "token" or (not mode and not request.joined)
    fix = "" if ok else "Unset RAY_AUTH_MODE, or set it to token"
    if not ok and request.joined:
        fix = (
            "Put the same token into ~/.ray/auth_token of every node, and set RAY_AUTH_MODE=token for each `ray start`"
        )
    value = f"RAY_AUTH_MODE {f'is {mode}' if mode else 'is not set'}"
    return Diagnosis("token", request.node, ok, Problem("Ray", "lets nobody in without the token", value, fix))


def _ray_files(request: Request) -> Diagnosis:
    """Is there a folder for the files of the Ray that `run` starts, with short enough a path for its sockets?"""
    try:
        folder, told = folder_above()
    except ResourcesError as error:
        (problem,) = error.problems
        return Diagnosis("ray-files", request.node, False, problem)
    rule = "a folder for its files, whose path is short enough for sockets"
    return Diagnosis("ray-files", request.node, True, Problem("Ray", rule, told or str(folder)))


def _gpus(request: Request) -> Diagnosis:
    offered, by = (request.gpus, "Ray offers") if request.gpus is not None else (visible_gpus(), "the driver has")
    rule = "torch sees the GPUs that " + ("Ray offers" if request.gpus is not None else "the driver has")
    if not offered:
        return Diagnosis("gpu", request.node, True, Problem("GPU", rule, "none here"))
    answer, failed = ask_torch()
    names = answer.get("gpus", [])
    if len(names) >= offered:
        value = f"{len(names)}: {', '.join(dict.fromkeys(names))}"
        return Diagnosis("gpu", request.node, True, Problem("GPU", rule, value))
    said = failed or "; ".join(answer["warnings"]) or f"built for {answer['built_for'] or 'the CPU alone'}"
    fix = "Install a build of torch that fits this machine's GPU driver, or a newer driver"
    return Diagnosis("gpu", request.node, False, Problem("GPU", rule, f"{len(names)}, {by} {offered}: {said}", fix))


def ask_torch(backbones: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """The answer of `fashion.doctor.torch_probe`, and a reason where there is none.

    It runs in a process of its own: a torch that fails to import is to be diagnosed, and a process that has asked for
    GPUs keeps hold of them.
    """
    paths = [path or os.getcwd() for path in sys.path]  # it finds the modules that this process would
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fashion.doctor.torch_probe"], input=json.dumps(list(backbones)), text=True,
            capture_output=True, timeout=TORCH_PATIENCE, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {}, f"torch did not answer within {TORCH_PATIENCE:g} s"
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        return {}, f"torch does not work: {said[-1]}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer, ""


def _data(node: str, root: Path, reading: LabelReading) -> list[Diagnosis]:
    """Are the labels there, and their images (in the challenge's layout the last of each list)? `data check` decodes
    all images."""
    place, rule = f"data.root {root}", "a data set that can be read: its labels, and the images they name"
    wrong, counts = [], []
    if not os.path.isdir(root / "split"):
        scan = scan_layout(root, reading=reading)
        fix = "Put the data set there, the same on every node, or set data.root to its folder or label file"
        if scan.problems:
            first = scan.problems[0][1]
            more = f", and {len(scan.problems) - 1:,} more problems" if len(scan.problems) > 1 else ""
            value = f"{first.value or first.rule} at {first.place}{more}"
            return [Diagnosis("data", node, False, Problem(place, rule, value, first.fix or fix))]
        told = ", ".join(f"{split} {len(images):,} images" for split, images in scan.images.items())
        return [Diagnosis("data", node, True, Problem(place, rule, f"{scan.form}, {told}"))]
    for split in LABELLED:
        try:
            images = listed_images(root, split)
            counts.append(f"{split} {len(images):,} images")
            if not images:
                wrong.append(f"no image in split/{split}.txt")
            elif not os.path.isfile(root / images[-1]):
                wrong.append(f"{images[-1]}, the last line of split/{split}.txt, is no file")
            with open(root / "split" / f"{split}_attr.txt", "rb"):
                pass
        except OSError as error:
            wrong.append(f"{error.filename}: {error.strerror}")
        except ValueError as error:
            wrong.append(f"split/{split}.txt: {error}")
    if not wrong:
        return [Diagnosis("data", node, True, Problem(place, rule, ", ".join(counts)))]
    fix = "Put the data set there, the same on every node, or set data.root to its folder"
    return [Diagnosis("data", node, False, Problem(place, rule, value, fix)) for value in wrong]


def _weights(request: Request, weights: Weights) -> Diagnosis:
    place, rule, fix = f"model.weights {weights.name}", "a file that can be read", weights.fix
    readable = os.path.isfile(weights.path) and os.access(weights.path, os.R_OK)
    size = os.path.getsize(weights.path) if readable else None
    if readable and weights.size in (None, size):
        return Diagnosis("weights", request.node, True, Problem(place, rule, f"{weights.path}, {size or 0:,} bytes"))
    if weights.url and not weights.refused and not request.joined:
        return Diagnosis(
            "weights", request.node, True, Problem(place, rule, f"not here yet; `run` will download {weights.url}")
        )
    if request.joined and weights.path and (weights.url or weights.size is not None):
        # `run` downloads for its own machine alone: the other nodes must find the file under the same path.
        fix = f"Put {weights.url or f'the file of {HERE}'} at {weights.path} on every node"
    if readable:
        rule, value = f"the file of {HERE}, {weights.size:,} bytes", f"{weights.path}, {size:,} bytes"
    elif os.path.exists(weights.path):
        value = f"{weights.path}, which is not readable"
    else:
        value = weights.refused if not weights.path or not request.joined else ""
        value = value or f"{weights.path}, which is not there"
    return Diagnosis("weights", request.node, False, Problem(place, rule, value, fix))
