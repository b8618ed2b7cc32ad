"""The run directories of a storage folder: all of them, or the one that a name means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from fashion.errors import Problem, RunError


def run_paths(storage: str | Path) -> list[Path]:
    """The run directories in `storage`, the one with the latest activity first; empty if there are none."""
    journals = Path(storage).glob("*/journal.jsonl")
    found = [path.parent for path in journals if (path.parent / "manifest.json").is_file()]
    visible = [path for path in found if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: (path / "journal.jsonl").stat().st_mtime_ns, reverse=True)


def find_path(storage: str | Path, name: str | None = None) -> Path:
    """The directory of the run of this name (or path). Without a name it is the one with the latest activity.

    Raises RunError, with the nearest name, where there is no such run.
    """
    if name is not None and (Path(name) / "manifest.json").is_file():
        return Path(name)
    paths = {path.name: path for path in run_paths(storage)}
    return paths[named_run(str(storage), list(paths), name)]


def named_run(location: str, names: Sequence[str], name: str | None) -> str:
    """The run of this name among the `names` at a location, or the first of them without a name.

    Raises RunError, with the nearest name, where there is no such run.
    """
    if not names:
        raise RunError(Problem(location, "holds no runs", fix="Start one: fashion-sweep run SPEC"))
    if name is None or name in names:
        return name or names[0]
    near = difflib.get_close_matches(name, names, n=1)
    fix = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names[:10])}"
    raise RunError(Problem(location, "holds no such run", repr(name), fix))
