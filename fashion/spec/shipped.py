"""The sweeps that come with the package: what each answers, and a copy of one for the user to run and edit.

A checkout keeps them in its `sweeps/`. A wheel carries the same files beside this module (setup.py puts them there).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fashion.errors import Problem, SpecError, nearest

INSTALLED = Path(__file__).parent / "sweeps"
CHECKOUT = Path(__file__).parents[2] / "sweeps"
# Each sweep's own comment says `fashion-sweep run sweeps/NAME.yaml`, so a copy goes where that command finds it.
FOLDER = Path("sweeps")
FIRST = FOLDER / "quickstart.yaml"


@dataclass(frozen=True)
class ShippedSweep:
    """One sweep that comes with the package; `question` and `cost` are what the comment at its top says."""

    name: str
    question: str
    cost: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")


def shipped_sweeps() -> tuple[ShippedSweep, ...]:
    """All of them, by name. Empty where the package was installed without its sweeps."""
    folder = INSTALLED if INSTALLED.is_dir() else CHECKOUT
    return tuple(_read(path) for path in sorted(folder.glob("*.yaml")))


def shipped_sweep(name: str) -> ShippedSweep:
    """The sweep of that name, with or without `.yaml`. Raises SpecError, with the nearest name."""
    wanted = name.removesuffix(".yaml")
    known = {sweep.name: sweep for sweep in shipped_sweeps()}
    if wanted not in known:
        fix = nearest(wanted, list(known), f"There are: {', '.join(known) or 'none'}")
        raise SpecError("There is nothing to copy:", [Problem("NAME", "must be a shipped sweep", repr(name), fix)])
    return known[wanted]


def copy_sweep(name: str, target: str | Path | None = None) -> Path:
    """Copy the sweep of that name to `target`, by default sweeps/NAME.yaml in the working folder; returns the target.

    Raises SpecError if there is no such sweep, or if something is at the target already, which stays as it is.
    """
    sweep = shipped_sweep(name)
    copy = FOLDER / f"{sweep.name}.yaml" if target is None else Path(os.path.expanduser(target))
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("x", encoding="utf-8") as stream:  # x: never over another file, nor through a link
            stream.write(sweep.text)
    except FileExistsError as error:
        fix = "Nothing is overwritten: name another file with --to FILE"
        place = str(error.filename or copy)
        raise SpecError("Nothing was copied:", [Problem(place, "is there already", fix=fix)]) from None
    return copy


def first_command() -> str:
    """What to type for a first sweep: depends on whether the working folder has the quickstart's spec."""
    command = f"fashion-sweep run {FIRST}"
    return command if FIRST.is_file() else f"fashion-sweep sweeps copy {FIRST.stem} && {command}"


def _read(path: Path) -> ShippedSweep:
    """The sweep with what its comment says: first a question, and the cost behind `Cost:`."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    question, cost = re.match(r"[^?]*\?", comment), re.search(r"Cost: (.*)", comment)
    return ShippedSweep(path.stem, question.group() if question else "", cost.group(1) if cost else "", path)
