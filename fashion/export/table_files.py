"""A run's trials and reports as CSV and Parquet files: `trials` has a row per trial, `reports` a row per epoch."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fashion.api.recorded_run import RecordedRun
from fashion.export.targets import Exported, Progress
from fashion.files import write_atomic


def write_csv(run: RecordedRun, folder: Path, progress: Progress) -> Exported:
    """Write trials.csv and reports.csv (UTF-8, a header, an empty field for null) into `folder`."""
    return _write(run, folder, ".csv", _csv)


def write_parquet(run: RecordedRun, folder: Path, progress: Progress) -> Exported:
    """Write trials.parquet and reports.parquet into `folder`."""
    return _write(run, folder, ".parquet", _parquet)


def _write(run: RecordedRun, folder: Path, suffix: str, form: Callable[[pa.Table], bytes]) -> Exported:
    tables = {"trials": run.trials(), "reports": run.reports()}
    for name, table in tables.items():
        write_atomic(folder / f"{name}{suffix}", form(table))
    counts = ", ".join(f"{table.num_rows:,} {name}" for name, table in tables.items())
    return Exported(tuple(folder / f"{name}{suffix}" for name in tables), counts)


def _csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
