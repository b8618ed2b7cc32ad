"""A process's descendants, found in /proc, so that a test can kill exactly the one it means to."""

from __future__ import annotations

from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """Process id -> title, of all processes below `pid`. Ray gives its processes titles such as
    "ray::RayTrainWorker"."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything, parentheses too: look behind the last one.
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # it ended in the meantime
            continue
    found, level = {}, {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found.update({child: title(child) for child in level})
    return found


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
