"""The layers hold: Ray in eleven modules, the loop without it, and light commands that load neither Ray nor torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fashion"
MAY_IMPORT_RAY = {
    "cluster", "room", "sweep", "engine", "trial", "slot", "mailbox", "predict_job", "doctor_job", "submit", "capacity",
}  # fmt: skip
# No torch here, not even inside a function: they serve commands that must start at once, or run beside any torch.
NO_TORCH = {
    "errors", "config", "deaths", "settings", "fields", "space", "spec", "spec_parse", "spec_rules", "spec_schema", "spec_docs",
    "yaml_lines", "cluster_file", "address", "store_client", "store", "lease", "segments", "stored", "mirror", "journal", "excerpt", "recorded", "record", "manifest", "run", "runs", "best", "attempt", "uploads", "schedulers", "submission", "report", "live", "display", "results",
    "search", "extend", "doctor", "doctor_bucket", "doctor_folder", "doctor_spec", "cli", "cli_spec", "cli_results", "cli_progress", "cli_doctor", "data.layout", "data.lists", "data.scan", "data.check", "data.stats",
    "data.contents", "data.demo", "data.pack", "data.images", "data.packed", "data.bucket", "data.fetch", "data.remote", "data.push", "model.table", "daemons", "scaling", "spot", "cli_spot", "entrypoint", "follow", "watch", "cli_submit",
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def modules() -> dict[str, Path]:
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}


def test_every_module_named_here_exists() -> None:
    assert set(modules()) >= MAY_IMPORT_RAY | NO_TORCH


def test_only_eleven_modules_import_ray() -> None:
    found = {name for name, path in modules().items() if any(i.split(".")[0] == "ray" for i in imports(path))}
    assert found == MAY_IMPORT_RAY


@pytest.mark.parametrize("name", sorted(NO_TORCH))
def test_light_modules_do_not_import_torch(name: str) -> None:
    heavy = {i for i in imports(modules()[name]) if i.split(".")[0] in ("torch", "torchvision", "timm", "tensorboardX")}
    assert not heavy


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "loss", "metrics", "optim", "checkpoint"])
def test_the_loop_knows_nothing_of_the_sweep(name: str) -> None:
    above = {f"fashion.{other}" for other in MAY_IMPORT_RAY | {"recorder", "prepare", "display", "cli"}}
    assert not above & set(imports(modules()[name]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["doctor", "--help"], ["ls"], ["check", "sweeps/report.yaml"]]
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


# From the bottom up; a module imports from its own row and those above it in this list, never from those below.
ROWS = {
    "the spec": "errors address store_client store recorded record config settings deaths space fields yaml_lines spec_parse spec_rules spec_schema spec_docs spec "
    "model.table daemons scaling spot cluster_file entrypoint",
    "the record": "journal lease segments manifest run runs schedulers excerpt best attempt submission",
    "the data": "data.contents data.packed data.lists data.scan data.images data.layout data.check data.stats data.demo data.pack data.bucket data.fetch data.remote data.push stored",
    "torch's parts": "data.augment data.batches model.tiny model.backbone model.weights model.build model.summary loss metrics optim "
    "checkpoint",
    "the loop": "evaluate features feed precision speed memory uploads saving agreed within train task predict predictions",
    "what is shown": "report live display follow watch results tensorboard",
    "the sweep without Ray": "mirror search extend prepare reuse recorder doctor_folder doctor_bucket doctor doctor_spec doctor_torch",
    "Ray": "cluster room mailbox slot trial engine sweep predict_job doctor_job submit capacity",
    "the command line": "cli cli_run cli_results cli_predict cli_progress cli_spec cli_data cli_model cli_doctor cli_spot cli_submit",
}
ROW = {name: number for number, names in enumerate(ROWS.values()) for name in names.split()}


def own_imports(path: Path) -> Iterator[str]:
    """The package's modules that `path` imports, inside functions too; `from fashion import run` names `run`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        yield from (name.removeprefix("fashion.") for name in names if name.startswith("fashion."))


@pytest.mark.parametrize("name", [name for name in modules() if not name.endswith("__init__")])
def test_imports_go_down(name: str) -> None:
    assert name in ROW, f"give {name} a row"
    above = {other for other in own_imports(modules()[name]) if ROW.get(other, 0) > ROW[name]}
    assert not above
