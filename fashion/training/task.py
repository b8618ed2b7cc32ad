"""A trial as the driver hands it out, and what it tells while it trains: the epochs' reports, notes and signs of life.

Pure Python, so that the driver need not load torch.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from fashion.bucket.address import Address
from fashion.config.trial import TrialConfig
from fashion.data.contents import default_cache_dir
from fashion.data.remote.local_copy import DataRoot
from fashion.errors import BlockedError, Problem
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.manifest import code_version
from fashion.record.trial import EpochReport
from fashion.record.trial_files import folder_name
from fashion.storage.working_copy import working_copy
from fashion.training.distillation.soft_labels import SoftLabels

SCRATCH = ".ray"  # in the run directory: Ray's own files, which nothing that lasts depends on


@dataclass(frozen=True)
class SharedInputs:
    """What all trials of a sweep share. run: the run directory. bucket: the run's address if the storage is a bucket;
    `run` is then the driver's working copy, and every other machine has one of its own. code: the version of the code
    that the driver runs (`code_here`). teachers: by what `train.teacher` names. elastic: whether trials take idle cores
    (`resources.elastic`)."""

    run: Path
    data_root: DataRoot
    data_fingerprint: str
    cache_dir: Path
    weights: Mapping[tuple[str, str], ResolvedWeights]
    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    max_failures: int
    max_preemptions: int
    bucket: Address | None = None
    code: str = ""
    teachers: Mapping[str, SoftLabels] = field(default_factory=dict)
    elastic: bool = False

    @property
    def here(self) -> Path:
        """The run directory on this machine."""
        return self.run if self.bucket is None else working_copy(self.bucket)

    @property
    def scratch(self) -> Path:
        return self.here / SCRATCH

    def task(self, number: int, config: TrialConfig) -> Task:
        key = (config.model.backbone, config.model.weights)
        weights = self.weights.get(key)
        if weights is None:  # Optuna may combine what no draw of `prepare` did
            from fashion.model.pretrained.weights import resolve_weights

            weights = resolve_weights(config.model)
        return Task(
            number, config, weights, self.run / folder_name(number), self.data_root, self.data_fingerprint,
            self.cache_dir, self.cpus_per_worker, self.bucket, self.code,
            self.teachers[config.train.teacher] if config.train.teacher is not None else None,
        ).here()  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One trial as a worker needs it."""

    number: int
    config: TrialConfig
    weights: ResolvedWeights
    folder: Path
    data_root: DataRoot
    data_fingerprint: str
    cache_dir: Path
    threads: int
    bucket: Address | None = None
    code: str = ""
    teacher: SoftLabels | None = None

    def here(self) -> Task:
        """The same on this machine, whose folders, without a common disk, are its own."""
        if self.bucket is None:
            return self
        folder = working_copy(self.bucket) / folder_name(self.number)
        return replace(self, folder=folder, cache_dir=default_cache_dir().absolute())


@cache
def code_here() -> str:
    """The version of the code that this process runs, as it was when this was first asked."""
    return code_version()


def require_code(version: str) -> None:
    """Raise BlockedError unless this process runs the code of that version: the record names the driver's, and must not
    name code that did not train."""
    if version and version != code_here():
        place = f"{platform.node()}: {Path(__file__).parents[1]}"
        fix = "Install the same sources there; if they were edited while the sweep ran, the same command goes on"
        raise BlockedError(Problem(place, f"workers must run the command's code, {version}", code_here(), fix))


def first_line(error: BaseException) -> str:
    """The first line of an exception's text: Ray's go on for twenty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclass(frozen=True)
class Note:
    """A line that the user should read, and that is recorded with the trial."""

    text: str


@dataclass(frozen=True)
class Heartbeat:
    """The trial is alive; its reports wait for the bucket."""


TrialEvent = EpochReport | Note | Heartbeat
