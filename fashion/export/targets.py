"""The forms into which a run can be exported: one table. A form's module is imported when the form is chosen."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, UserError, refusal

FOLDER = "exports"  # of a run directory: where an export is put unless the user says where

# Called with a label, how much is done, and the total.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Exported:
    """What an export wrote. paths: its files or folders. summary: what they hold, in words. opened_with: the command
    or the call that opens them."""

    paths: tuple[Path, ...]
    summary: str
    opened_with: str = ""


@dataclass(frozen=True)
class Target:
    """One form. about: what the help says of it. writer: "module:function"; the function is called with the run, the
    path and a progress, and returns an Exported. name: the file or folder below `exports/` that it is written to.
    folder: whether that is a folder. needs: the packages that must be installed, and extra: what installs them."""

    about: str
    writer: str
    name: str
    folder: bool = False
    needs: tuple[str, ...] = ()
    extra: str = ""


TARGETS: Mapping[str, Target] = {
    "csv": Target("tables of trials and of epochs, as CSV", "fashion.export.table_files:write_csv", "csv", folder=True),
    "parquet": Target(
        "the same tables, as Parquet", "fashion.export.table_files:write_parquet", "parquet", folder=True
    ),
    "optuna": Target("an Optuna study, in SQLite", "fashion.export.optuna_study:write_study", "optuna.db"),
    "mlflow": Target(
        "an MLflow experiment, in SQLite", "fashion.export.mlflow_store:write_experiment", "mlflow.db",
        needs=("mlflow", "sqlalchemy", "alembic"), extra="mlflow",
    ),
    "wandb": Target(
        "a group of offline runs of Weights & Biases", "fashion.export.wandb_folder:write_runs", "wandb", folder=True,
        needs=("wandb",), extra="wandb",
    ),
    "onnx": Target(
        "the promoted model for ONNX Runtime", "fashion.export.onnx_file:write_onnx", "model.onnx",
        needs=("onnx", "onnxscript", "onnxruntime"), extra="onnx",
    ),
    "torch": Target(
        "the promoted model as a torch.export program", "fashion.export.torch_program:write_program", "model.pt2"
    ),
    "card": Target("the promoted model's card, in Markdown", "fashion.export.card_file:write_card", "README.md"),
}  # fmt: skip


def export(run: RecordedRun, target: str, out: str | Path | None = None, progress: Progress | None = None) -> Exported:
    """Write the run, or the model that is promoted in it, in the form `target`, a name of TARGETS.

    `run` must hold every report. out: the file or folder to write; by default one in the run's folder `exports`. What
    is there of an earlier export of the same run is brought up to date; a second export changes nothing.

    Raises UserError where a package is missing, where `out` can't be written or holds something else, and for a run in
    a bucket without `out`.
    """
    row = TARGETS[target]
    for package in row.needs:
        _require(package, target, row.extra)
    path = _path(run, row, out)
    module, _, name = row.writer.partition(":")
    write: Callable[[RecordedRun, Path, Progress], Exported] = getattr(importlib.import_module(module), name)
    try:
        (path if row.folder else path.parent).mkdir(parents=True, exist_ok=True)
        return write(run, path, progress or _ignored)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        kind = "a folder" if row.folder else "a file in a folder"
        raise UserError(
            Problem(str(path), f"must be {kind}", str(error.filename or path), "Choose another --out")
        ) from error
    except OSError as error:
        if reason := refusal(error, str(path)):
            raise UserError(reason) from error
        raise


def imported(package: str) -> ModuleType:
    """A package that is known to be installed, and that this package does not depend on."""
    return importlib.import_module(package)


def _require(package: str, target: str, extra: str) -> None:
    """Raise UserError unless the package can be imported."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        # A package that is there and broken has a message worth reading.
        rule = f"needs the package {package}"
        fix = f"pip install 'fashion-sweep[{extra}]'"
        raise UserError(Problem(f"--to {target}", rule, str(error), fix)) from error


def _path(run: RecordedRun, row: Target, out: str | Path | None) -> Path:
    if out is not None:
        path = Path(os.path.expanduser(out))
        if path.is_dir() and not row.folder:
            return path / row.name
        return path
    if run.address is not None:
        rule = "must say where to write what is exported from a run in a bucket"
        raise UserError(Problem("--out", rule, fix=f"For example --out {row.name}"))
    return run.record.path / FOLDER / row.name


def _ignored(label: str, done: int, total: int) -> None:
    return
