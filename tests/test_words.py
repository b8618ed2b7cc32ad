"""One word for one thing: no two classes of the package share a name, and no name that it hands out is a folder's."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import fashion

PACKAGE = Path(__file__).parents[1] / "fashion"


def classes() -> dict[str, list[str]]:
    """Name of a class -> the modules that define it, private classes and those inside of others included."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(str(path.relative_to(PACKAGE)))
    return found


def test_no_two_classes_share_a_name() -> None:
    assert {name: places for name, places in classes().items() if len(places) > 1} == {}


def test_no_name_that_is_handed_out_is_a_module() -> None:
    """`fashion.run` would be the module or the function, depending on what was imported before."""
    handed_out = set(getattr(fashion, "__all__", ()))
    below = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not handed_out & below
