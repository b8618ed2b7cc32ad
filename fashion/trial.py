"""One trial under Ray Train: the loop of `train.fit`, and the way of its reports to Tune.

A trial of one worker runs in Train's local mode inside a warm, reused Tune actor; a trial of several runs on a
warm Train worker group that its Tune slot keeps (`slot.py`). Both iterate the same generator.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from fashion.config import DataConfig, TrialConfig
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.errors import FashionError
from fashion.journal import write_atomic
from fashion.model.weights import ResolvedWeights, resolve_weights
from fashion.record import EpochReport
from fashion.train import Place, TrainingData, fit

PROGRESS_SECONDS = 1.0
SCRATCH = ".ray"  # in the run directory: Ray's own files, which nothing that lasts depends on


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep share."""

    run: Path
    data_root: Path
    cache_dir: Path
    weights: Mapping[tuple[str, str], ResolvedWeights]
    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    max_failures: int

    @property
    def scratch(self) -> Path:
        return self.run / SCRATCH

    def task(self, number: int, config: TrialConfig) -> Task:
        key = (config.model.backbone, config.model.weights)
        # Optuna may combine what no draw of `prepare` did.
        weights = self.weights[key] if key in self.weights else resolve_weights(config.model)
        folder = self.run / "trials" / f"{number:04d}"
        return Task(number, config, weights, folder, self.data_root, self.cache_dir, self.cpus_per_worker)


@dataclass(frozen=True)
class Task:
    """One trial as a worker needs it."""

    number: int
    config: TrialConfig
    weights: ResolvedWeights
    folder: Path
    data_root: Path
    cache_dir: Path
    threads: int


def run_trial(config: dict[str, Any], job: Job) -> None:
    """The function that Tune runs: `config` holds "number" and "config" (the trial's configuration as JSON)."""
    task = job.task(config["number"], TrialConfig.model_validate_json(config["config"]))
    try:
        if job.workers > 1:
            from fashion.slot import run_in_slot

            run_in_slot(task, job, send=_report)
        else:
            # Local mode: Train's loop in this process. Its own results are not used, so its folder is not either.
            trainer = TorchTrainer(
                lambda: _train_here(task, job.gpus_per_worker > 0),
                scaling_config=ScalingConfig(num_workers=0, use_gpu=job.gpus_per_worker > 0),
                run_config=RunConfig(name="local", storage_path=str(job.scratch / "train")),
            )
            trainer.fit()
    except Exception as error:
        # A configuration that fails would fail again: no retry, the sweep goes on. (A process that dies is retried.)
        tune.report({"failed": describe_failure(task.folder, error)})


def _train_here(task: Task, use_gpu: bool) -> None:
    device = torch.device("cuda" if use_gpu else "cpu")
    for report in trial_reports(task, Place(device=device)):
        _report(report)


def _report(report: EpochReport) -> None:
    """Hand a report to the driver; returns when it is recorded. A stopped trial ends here (SystemExit)."""
    tune.report({"report": json.dumps(report.to_json())})


def trial_reports(task: Task, place: Place) -> Iterator[EpochReport]:
    """The trial's reports on this worker, with a note of its progress within an epoch beside its checkpoints."""
    torch.set_num_threads(task.threads)
    task.folder.mkdir(parents=True, exist_ok=True)
    data = training_data(task.data_root, task.config.data, task.cache_dir)
    note = _ProgressNote(task.folder) if place.rank == 0 else None
    yield from fit(task.config, data, task.weights, task.folder, task.number, place, on_step=note)


def training_data(root: Path, config: DataConfig, cache_dir: Path) -> TrainingData:
    """The packs of a trial, memory-mapped; a warm process keeps them open from trial to trial."""
    return _training_data(root, config.resize, config.fit, config.interpolation, cache_dir)


@lru_cache(maxsize=4)
def _training_data(root: Path, resize: int, fit: str, interpolation: str, cache_dir: Path) -> TrainingData:
    dataset = read_dataset(root)
    train, val = (
        Pack.open_or_build(dataset, split, resize, fit, interpolation, cache_dir) for split in ("train", "val")
    )
    return TrainingData(train, val, dataset.attributes, dataset.fingerprint())


class _ProgressNote:
    """Writes `progress.json` ({epoch, step, steps}) at most once a second, for the display."""

    def __init__(self, folder: Path) -> None:
        self.path, self.written = folder / "progress.json", 0.0

    def __call__(self, epoch: int, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self.written < PROGRESS_SECONDS:
            return
        self.written = now
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"epoch": epoch, "step": step, "steps": steps}))
        os.replace(temporary, self.path)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text: Ray's go on for twenty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def describe_failure(folder: Path, error: BaseException) -> str:
    """Keep the whole traceback in the trial's folder; return the one line that the record holds."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, FashionError):
        return str(error)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "error.txt", text.encode())
    return f"{type(error).__name__}: {error} (traceback: {folder / 'error.txt'})"
