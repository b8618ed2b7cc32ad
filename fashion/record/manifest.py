"""A run directory's `manifest.json`: what was asked, by which code and versions, and whether this version can read it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from fashion.errors import Problem, RunError
from fashion.files import parse
from fashion.record.validate import manifest_problem

# 2: notes of what happened to a trial. 3: where each attempt ran, the validation labels and the models' sizes. A run of an
# earlier format has none of them; it is read as it is, and is of this format once a sweep goes on with it.
FORMAT = 3
READABLE = (1, 2, FORMAT)
REQUIRED = ("format", "name", "created", "spec", "data_fingerprint", "attributes", "label_counts")
PACKAGES = ("torch", "torchvision", "timm", "ray", "numpy", "pillow", "pyarrow", "safetensors")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the run directory `path`. Raises RunError when it is none, or was written by another format."""
    place = path / "manifest.json"
    try:
        manifest = parse(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RunError(Problem(str(path), "is not a run directory", "no manifest.json")) from None
    except ValueError as error:
        raise RunError(Problem(str(place), "not valid JSON", str(error))) from None
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
        raise RunError(Problem(str(place), rule, f"{found!r}{by}", fix))
    if missing := [key for key in REQUIRED if key not in manifest]:
        raise RunError(Problem(str(place), "lacks keys", ", ".join(missing)))
    if wrong := manifest_problem(manifest):
        raise RunError(Problem(f"{place} {wrong[0]}", wrong[1], json.dumps(manifest[wrong[0]])[:60]))
    return manifest


def code_version() -> str:
    """The package's version and a digest of its source files: trials are a function of the code, too."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for source in sorted(package.rglob("*.py")):
        digest.update(str(source.relative_to(package)).encode() + b"\0" + source.read_bytes())
    return f"{importlib.metadata.version('fashion-sweep')}+{digest.hexdigest()[:12]}"


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, read without importing them, as far as installed."""
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions() if distribution.name}
    return {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
