"""What `submit` sends to a cluster: one command line for its head, with the spec's text inside. Nothing else travels:
data, code and credentials are the cluster's own."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from fashion.bucket.address import is_address
from fashion.errors import Problem, SpecError
from fashion.spec.fields import show
from fashion.spec.sweep_spec import SweepSpec

BEGINS = "fashion-sweep's output begins"  # the first line of it
WEIGHTS_FILES = (".safetensors", ".pth", ".pt")
LARGEST = 120_000  # bytes: a shell gets all of it as one word, and Linux takes 128 KiB in one


def entrypoint(
    text: str, spec: SweepSpec, overrides: Sequence[str] = (), trials: str | None = None, fresh: bool = False,
    folder: str | None = None,
) -> str:  # fmt: skip
    """The shell command that runs the spec on the head. `text` is the YAML of which, with `overrides`, `spec` was made.
    Relative paths start in `folder` of the head's; the job's own folder is a passing one.

    Raises SpecError for paths that mean nothing there, and for a spec that is too long.
    """
    problems = [*_folder_problem(folder), *([] if folder else _relative(spec))]
    if problems:
        raise SpecError(f"{spec.name} can't be submitted:", problems)
    words = ["fashion-sweep", "run", "-", "--json", "--recorded", "--name", spec.name]
    words += [word for override in overrides for word in ("--set", override)]
    if folder and not is_address(spec.storage) and not spec.storage.startswith("~"):  # so that it says where the run is
        words += ["--storage", str(PurePosixPath(folder) / spec.storage)]
    words += ["--trials", trials] if trials is not None else []
    words += ["--fresh"] if fresh else []
    end = f"END-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    lines = [
        f"echo {shlex.quote(BEGINS)}",
        *(
            [f"cd {shlex.quote(folder)} || {_refuse(f'--folder {folder}: the head of the cluster has none')}"]
            if folder
            else []
        ),
        "fashion-sweep --version || "
        + _refuse("fashion-sweep is not on the PATH with which Ray was started on the head"),
        f"exec {shlex.join(words)} <<'{end}'",
        text if text.endswith("\n") else f"{text}\n",
    ]
    command = "\n".join(lines) + end
    if len(command.encode()) > LARGEST:
        problem = Problem(
            "the spec", f"must be at most {LARGEST:,} bytes to be submitted", f"{len(text.encode()):,}",
            "Copy it to the cluster and run it there",
        )  # fmt: skip
        raise SpecError(f"{spec.name} can't be submitted:", [problem])
    return command


def _refuse(text: str) -> str:
    return f"{{ echo {shlex.quote(f'Error: {text}.')} >&2; exit 2; }}"


def _folder_problem(folder: str | None) -> Iterator[Problem]:
    if folder is not None and not (folder.startswith("/") and folder.isprintable()):
        yield Problem("--folder", "must be an absolute path on the cluster", repr(folder), "For example /mnt/fashion")


def _relative(spec: SweepSpec) -> Iterator[Problem]:
    """Relative paths in the spec, where no folder says what they are relative to."""
    form = spec.to_json()
    places = [("storage", spec.storage, ("/", "~")), ("data.root", form["data"]["root"], ("/", "~"))]
    # Not the name of a field that they depend on, such as model.backbone.
    files = [text for text in _texts(form["model"]["weights"]) if PurePosixPath(text).suffix in WEIGHTS_FILES]
    places += [("model.weights", text, ("/", "~")) for text in files]
    # A name of a field, without a slash, may be what it depends on.
    taught = [text for text in _texts(form["train"].get("teacher")) if "/" in text or text.endswith(".parquet")]
    places += [("train.teacher", text, ("/", "~")) for text in taught]
    for name, value, absolute in places:
        if not is_address(value) and not value.startswith(absolute):
            yield Problem(
                name, "must be an absolute path on the cluster, or a bucket's address", show(value),
                "Say where relative paths start there: --folder FOLDER",
            )  # fmt: skip


def _texts(value: Any) -> Iterator[str]:
    """The strings in a value of JSON, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
