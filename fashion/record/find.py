"""The run directories of a storage folder: all of them, or the one that is meant."""

from __future__ import annotations

import difflib
from pathlib import Path

from fashion.errors import Problem, RunError


def run_paths(storage: str | Path) -> list[Path]:
    """The run directories in `storage`, the one with the latest activity first; empty when there are none."""
    found = [
        place.parent for place in Path(storage).glob("*/journal.jsonl") if (place.parent / "manifest.json").is_file()
    ]
    visible = [path for path in found if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: (path / "journal.jsonl").stat().st_mtime_ns, reverse=True)


def find_path(storage: str | Path, name: str | None = None) -> Path:
    """The directory of the run of that name (or path); without a name of the one with the latest activity.

    Raises RunError, with the nearest names.
    """
    if name is not None and (Path(name) / "manifest.json").is_file():
        return Path(name)
    paths = run_paths(storage)
    names = [path.name for path in paths]
    if not paths:
        raise RunError(Problem(str(storage), "holds no runs", fix="Start one: fashion-sweep run SPEC"))
    if name is None:
        return paths[0]
    if name in names:
        return paths[names.index(name)]
    near = difflib.get_close_matches(name, names, n=1)
    fix = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names[:10])}"
    raise RunError(Problem(str(storage), "holds no such run", repr(name), fix))
