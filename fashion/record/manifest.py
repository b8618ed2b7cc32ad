"""A run directory's `manifest.json`: spec, code and package versions, and whether this version can read the run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fashion.errors import Problem, RunError
from fashion.files import parse
from fashion.record.validate import manifest_problem

# Format 2 added notes of what happened to a trial; 3 where each attempt ran, the validation labels and the models'
# sizes. A run of an earlier format is read as it is, and has this format once a sweep goes on with it.
FORMAT = 3
READABLE = (1, 2, FORMAT)
REQUIRED = ("format", "name", "created", "spec", "data_fingerprint", "attributes", "label_counts")
PACKAGES = ("torch", "torchvision", "timm", "ray", "numpy", "pillow", "pyarrow", "safetensors")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the run directory `path`. Raises RunError where there is none, or for an unknown format."""
    file = path / "manifest.json"
    try:
        manifest = parse(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RunError(Problem(str(path), "is not a run directory", "no manifest.json")) from None
    except ValueError as error:
        raise RunError(Problem(str(file), "not valid JSON", str(error))) from None
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        newer = isinstance(found, int) and found > FORMAT
        by = f" (written by fashion-sweep {manifest['code_version']})" if newer and "code_version" in manifest else ""
        fix = (
            "Use that version or a newer one"
            if newer
            else "Give the sweep another name, or use the version that wrote it"
        )
        rule = f"this version reads run formats {READABLE[0]} to {FORMAT}"
        raise RunError(Problem(str(file), rule, f"{found!r}{by}", fix))
    if missing := [key for key in REQUIRED if key not in manifest]:
        raise RunError(Problem(str(file), "lacks keys", ", ".join(missing)))
    if wrong := manifest_problem(manifest):
        raise RunError(Problem(f"{file} {wrong[0]}", wrong[1], json.dumps(manifest[wrong[0]])[:60]))
    return manifest


def folds_of(manifest: Mapping[str, Any]) -> int | None:
    """The number of folds that a run's train and val are in; None where it is of a train and a val of their own."""
    form = manifest.get("data_form")
    folds = form.get("folds") if isinstance(form, Mapping) else None
    return int(folds) if isinstance(folds, str) and folds.isdecimal() else None


def versions_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The versions under which a run began, of the code ("fashion-sweep") and of the packages."""
    return {"fashion-sweep": str(manifest.get("code_version", "")), **manifest.get("packages", {})}


def changed_versions(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Those of this process that differ from the manifest's; empty text for a package that has gone."""
    before, now = versions_of(manifest), {"fashion-sweep": code_version(), **package_versions()}
    return {name: now.get(name, "") for name in {**before, **now} if now.get(name, "") != before.get(name, "")}


def versions_in_words(manifest: Mapping[str, Any], changed: Mapping[str, str]) -> str:
    """Versions that differ from the manifest's: "torch 2.13.0 instead of 2.12.0, timm 1.0.22 instead of none"."""
    before = versions_of(manifest)
    return ", ".join(f"{name} {now or 'none'} instead of {before.get(name) or 'none'}" for name, now in changed.items())


@cache
def code_version() -> str:
    """The package's version and a digest of its source files, since the code determines a trial's numbers, too."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for source in sorted(package.rglob("*.py")):
        digest.update(str(source.relative_to(package)).encode() + b"\0" + source.read_bytes())
    return f"{importlib.metadata.version('fashion-sweep')}+{digest.hexdigest()[:12]}"


def package_versions() -> dict[str, str]:
    """Versions of those installed packages that a trial's numbers depend on, read without importing them."""
    found = {name: _installed(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def _installed(name: str) -> str | None:
    """The version of an installed package. One by one, since reading what all packages are called takes a second."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
