"""A trial that a neighbouring sweep has already trained is taken from there instead of being trained again.

Two trials are the same if their configurations (the seed included), the contents of their data sets and of what their
teachers say, the code and the versions of the packages are equal: those under which the other was trained from its
first attempt to its last, and those of this process. On one kind of device their numbers are then the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fashion.config.trial import TrialConfig, read_config
from fashion.errors import CheckpointError, RunError
from fashion.record.find import run_paths
from fashion.record.manifest import read_manifest, versions_of
from fashion.record.run import Run
from fashion.record.trial import Trial
from fashion.record.trial_files import best_path, predictions_path, read_header


@dataclass(frozen=True)
class Trained:
    """A completed trial of another run, whose files are there."""

    run: Run
    trial: Trial

    def __str__(self) -> str:
        return f"trial {self.trial.number} of {self.run.path}"


def trained_elsewhere(run: Run) -> dict[TrialConfig, Trained]:
    """Completed trials of the runs beside `run`, by `key` of their configuration."""
    found: dict[TrialConfig, Trained] = {}
    now = _with(run, run.changed_versions)
    for path in run_paths(run.path.parent):
        if path.resolve() == run.path.resolve():
            continue
        try:
            manifest = read_manifest(path)
            if manifest["data_fingerprint"] != run.manifest["data_fingerprint"]:
                continue
            other = Run.open(path)
        except (RunError, KeyError):
            continue  # damaged, of another version, or being removed: this sweep can do without it
        for trial in other.trials.values():
            if trial.status != "completed" or any(_with(other, each) != now for each in trial.each_versions()):
                continue
            if _files(Trained(other, trial)) is None or _taught_by(other, trial) != _taught_by(run, trial):
                continue
            try:
                found.setdefault(key(trial.config), Trained(other, trial))
            except ValidationError:
                continue  # no configuration of this version
    return found


def _taught_by(run: Run, trial: Trial) -> str:
    """The digest of the soft labels that the run has for what the trial names as its teacher."""
    digest: str = run.manifest.get("teachers", {}).get(trial.config.get("train", {}).get("teacher"), "")
    return digest


def _with(run: Run, changed: Mapping[str, str]) -> dict[str, str]:
    """The run's versions with these changes."""
    return {name: version for name, version in {**versions_of(run.manifest), **changed}.items() if version}


def key(config: Mapping[str, Any]) -> TrialConfig:
    """What recorded configurations are compared by: everything but where the data set lies.

    Raises ValidationError for one that is not valid in this version.
    """
    return read_config(config).anywhere()


def link(trained: Trained, folder: Path) -> None:
    """Give the trial folder `folder` the other trial's files, as links where the file system can.

    Raises:
        RunError: they are not there any more.
    """
    files = _files(trained)
    if files is None:
        raise RunError(f"{trained}: its files have gone. Type the same command again to train the trial.")
    folder.mkdir(parents=True, exist_ok=True)
    for source in files:
        target = folder / os.path.relpath(source, trained.run.trial_dir(trained.trial.number))
        if target.exists():
            continue
        scratch = target.with_name(f"{target.name}.tmp")
        scratch.unlink(missing_ok=True)
        try:
            os.link(source, scratch)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, scratch)
        scratch.replace(target)


def _files(trained: Trained) -> list[Path] | None:
    """The best epoch's weights and predictions, and a probe's backbone; None if one is missing."""
    best = trained.trial.best()
    if best is None:
        return None
    folder = trained.run.trial_dir(trained.trial.number)
    weights = best_path(folder, best.epoch)
    try:
        backbone = read_header(weights).get("backbone")
    except CheckpointError:
        return None
    files = [weights, predictions_path(folder, best.epoch)]
    if backbone:
        files.append(folder.parent / Path(str(backbone)).name)
    return files if all(path.is_file() for path in files) else None
