"""The house holds: imports go one way between wings, Ray and torch stay in theirs, and light commands load neither.

What is known of the package is read from its folders; only the order of the wings is written down.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fashion"
TESTS = Path(__file__).parent
# From the ground up: a wing, or a module beside the wings, imports what stands before it here and nothing behind it.
ORDER = (
    "errors", "labels", "config", "files",
    "bucket", "schedulers", "statistics", "model", "data", "record", "spec", "storage", "reading", "training",
    "cluster", "prediction", "display", "submit", "doctor", "sweep", "engine", "api", "export", "page", "cli",
    "capacity", "__main__",
)  # fmt: skip
# Wings and modules that may import Ray: no others.
WITH_RAY = (
    "engine", "cluster.session", "cluster.local.start", "cluster.local.spare_cores", "cluster.joining",
    "cluster.placement", "cluster.node_choice",
    "submit.job_server", "doctor.nodes",
)  # fmt: skip
# Wings without torch, not even inside a function: they serve commands that must start at once, or run beside any torch.
WITHOUT_TORCH = (
    "errors", "labels", "config", "files", "bucket", "schedulers", "statistics", "record", "spec", "storage", "reading",
    "display", "submit", "api.locate", "api.recorded_run", "api.tables", "api.validation", "api.sweeps",
    "api.confusions", "export.targets", "export.histories", "export.table_files", "export.optuna_study",
    "export.mlflow_store", "export.wandb_folder", "export.card_file", "page",
)  # fmt: skip
HEAVY = ("torch", "torchvision", "timm")
LARGEST = 12  # modules in a folder


@cache
def modules() -> dict[str, Path]:
    """Name below `fashion` -> file, the packages' own (empty) files left out."""
    names = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
    return {name: path for name, path in names.items() if not name.endswith("__init__")}


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, inside functions too; `from fashion import run` names `fashion.run`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Those of the package's own modules, by their names below it."""
    named = {name.removeprefix("fashion.") for name in imports(path) if name.startswith("fashion.")}
    return {name for name in named if name in modules()}


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_the_order_names_every_wing() -> None:
    assert {name.split(".")[0] for name in modules()} == set(ORDER)


@pytest.mark.parametrize("name", modules())
def test_imports_go_one_way(name: str) -> None:
    rank = ORDER.index(name.split(".")[0])
    assert not {other for other in own_imports(modules()[name]) if ORDER.index(other.split(".")[0]) > rank}


def test_ray_is_imported_where_it_may_be() -> None:
    found = {name for name, path in modules().items() if any(each.split(".")[0] == "ray" for each in imports(path))}
    assert not {name for name in found if not within(name, WITH_RAY)}
    assert not {place for place in WITH_RAY if not any(within(name, (place,)) for name in found)}


@pytest.mark.parametrize("name", [name for name in modules() if within(name, WITHOUT_TORCH)])
def test_light_wings_do_not_import_torch(name: str) -> None:
    heavy = {each for each in imports(modules()[name]) if each.split(".")[0] in HEAVY}
    assert not heavy


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent for path in modules().values())
    assert {str(folder.relative_to(PACKAGE)): n for folder, n in counts.items() if n > LARGEST} == {}


def test_packages_import_nothing() -> None:
    written = [path for path in PACKAGE.rglob("*/__init__.py") if path.read_text().strip()]
    assert not written


def test_tests_mirror_the_wings() -> None:
    wings = {path.parent.name for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    beside = {"support", "servers", "machines", "faults", "benchmarks", "tests"}
    assert {path.parent.name for path in TESTS.rglob("*.py")} <= wings | beside


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_module_imports_another(path: Path) -> None:
    taken = {name for name in imports(path) if name.split(".")[-1].startswith("test_") or ".test_" in name}
    assert not {name for name in taken if name.startswith(("tests.", "test_"))}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["doctor", "--help"], ["ls"], ["sweeps"], ["check", "sweeps/report.yaml"]],
)
def test_light_commands_load_neither_torch_nor_ray(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from fashion.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'torch', 'ray', 'torchvision', 'timm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("[]")
