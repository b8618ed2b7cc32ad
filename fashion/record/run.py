"""A run directory: the sweep's only truth, readable while the sweep runs, without Ray and without torch.

runs/NAME/manifest.json     what was asked: spec, data fingerprint, attributes, label counts, versions
          journal.jsonl     what happened: configurations, reports with the scheduler's decisions, ends
          val-labels.parquet  the validation images' classes, in the order of the trials' predictions
          certainty.json    how sure one can be of the winner; derived, like excerpt.json
          trials/0007/      a trial's own files (checkpoints, validation predictions)
          tb/0007 lr=0.01/  its TensorBoard events
          best/             the promoted checkpoint
          predictions/      what `best --predict` wrote
          lock, driver.json which process drives it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self, get_args

from fashion.errors import Problem, RunError
from fashion.files import new_folder, now, rename_folder, write_atomic
from fashion.record.journal import Event, Journal, events_from
from fashion.record.lock import RunLock, driver_alive
from fashion.record.manifest import FORMAT, REQUIRED, code_version, package_versions, read_manifest
from fashion.record.trial import End, EpochReport, SlotUse, Trial
from fashion.record.trial_files import best_path, folder_name
from fashion.record.validate import EVENT, check
from fashion.schedulers.base import Decision

Progress = Callable[[int, int], None]
TOLD = 5_000  # events between two calls of a Progress
VAL_LABELS = "val-labels.parquet"

# What has been read before: trials, history, and how many bytes of the journal they cover.
Known = tuple[dict[int, Trial], list[tuple[EpochReport, Decision]], int]


class Run:
    """The record of one sweep. Reading needs no lock; `record_*` is for the driver, which holds `RunLock(run.path)`.

    manifest: a dict with the keys of REQUIRED, and code_version and packages. `attributes` is a list of
    {"name", "classes"}, with "multi_label": true where an image may have several of the classes; `label_counts` holds
    for "train" and "val" one list per head: the number of images of each class. `known_labels` is there where labels
    are missing or multi-label: for each split {"columns": how many labels are known, per head [n] or for a multi-label
    one [n of each class], "images": how many images have all labels}. `models`, from format 3 on, is a list of
    {"backbone", "weights", "parameters", ...}, one for each model in the sweep. `teachers` maps what `train.teacher`
    names to the SHA-256 of its file.
    location: where the run is kept, in words: its path, or the address in a bucket of which the path is a copy.
    trials: number -> Trial. history: every report with its decision, in the journal's order, as the scheduler reads
    them."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.location = str(path)
        self.driven_elsewhere = False
        self.manifest = manifest
        self.trials: dict[int, Trial] = {}
        self.history: list[tuple[EpochReport, Decision]] = []
        # Versions of this process that differ from the manifest's: what is trained from now on is trained under them.
        self.changed_versions: dict[str, str] = {}
        self.offset = 0  # bytes of the journal that have been read
        self._journal: Journal | None = None

    @classmethod
    def create(cls, storage: str | Path, name: str, manifest: Mapping[str, Any]) -> Self:
        """Make the run directory `storage/name`, complete or not at all. Adds format, name, time and versions.

        Raises RunError when it is there already or the name is not a plain folder name.
        """
        if not name or name.startswith(".") or Path(name).name != name:
            raise RunError(Problem("name", "must be a plain folder name that does not begin with a dot", repr(name)))
        path = Path(storage) / name
        complete = {"format": FORMAT, "name": name, "created": now(), **manifest}
        complete = {"code_version": code_version(), "packages": package_versions(), **complete}
        if missing := [key for key in REQUIRED if key not in complete]:
            raise ValueError(f"the manifest lacks {', '.join(missing)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise RunError(Problem("storage", "must be a folder", str(storage), "A file is in its place")) from None
        temporary = new_folder(path)
        try:
            write_atomic(temporary / "manifest.json", _pretty(complete))
            Journal(temporary / "journal.jsonl").close()
            rename_folder(temporary, path, last="manifest.json")
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if path.exists():
                raise RunError(
                    Problem(str(path), "exists already", fix="Choose another name, or go on with it")
                ) from error
            raise
        return cls.open(path)

    @classmethod
    def open(
        cls, path: str | Path, known: Known | None = None, progress: Progress | None = None, most: int | None = None
    ) -> Self:
        """Read a run directory. known: what an excerpt holds already, so that only the rest is read. progress: is
        called with (done, total) in megabytes of a long journal. most: events that are read for now, by default all.

        Raises RunError when it is no run directory, is damaged, or was written by another format.
        """
        path = Path(path)
        run = cls(path, read_manifest(path))
        if known is not None:
            run.trials, run.history, run.offset = known
        run.refresh(progress, most)
        return run

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def total_trials(self) -> int:
        """How many trials the recorded spec asks for. Raises RunError for a spec that does not say how many."""
        try:
            return int(self.manifest["spec"]["search"]["trials"])
        except KeyError:
            place = str(self.path / "manifest.json")
            raise RunError(Problem(place, "its spec does not say how many trials there are")) from None

    @property
    def journal_path(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def val_labels_path(self) -> Path:
        """A column `image`, then one for each attribute: class indices (int32), null where the label is missing; for a
        multi-label one a list<int8> of 0, 1 and null, one for each class. Absent in runs of formats 1 and 2."""
        return self.path / VAL_LABELS

    @property
    def best_dir(self) -> Path:
        return self.path / "best"

    @property
    def predictions_dir(self) -> Path:
        return self.path / "predictions"

    @property
    def driven(self) -> bool:
        """Whether some process drives the run now."""
        return self.driven_elsewhere or driver_alive(self.path)

    @property
    def last_activity(self) -> float:
        """Seconds since the epoch of the last recorded event."""
        return self.journal_path.stat().st_mtime

    def trial_dir(self, number: int) -> Path:
        return self.path / folder_name(number)

    def checkpoint_path(self, number: int, epoch: int) -> Path:
        """Where a trial keeps the weights of its best epoch."""
        return best_path(self.trial_dir(number), epoch)

    def unfinished(self, total: int) -> list[int]:
        """Trials to hand out, of `total`: the interrupted ones first, then those never started."""
        interrupted = [number for number, trial in sorted(self.trials.items()) if not trial.final and number < total]
        return interrupted + [number for number in range(total) if number not in self.trials]

    def lock(self) -> RunLock:
        return RunLock(self.path)

    def refresh(self, progress: Progress | None = None, most: int | None = None) -> int:
        """Take in what was journalled since the last look, reading new bytes only; returns the number of events, at
        most `most` of them.

        Raises RunError for a journal that can't be understood.
        """
        events = self._read(progress, most)
        self._tell_trials()
        return events

    def kept_at(self, location: str, driven: bool = False) -> None:
        """Note that the path is a copy of a run kept elsewhere, and whether another machine drives that run."""
        self.location, self.driven_elsewhere = location, driven
        self._tell_trials()

    def _tell_trials(self) -> None:
        live = self.driven
        for trial in self.trials.values():
            trial.live = live

    def record_trial(self, number: int, config: Mapping[str, Any]) -> Trial:
        """Record a trial's configuration. Twice the same is once; another one under the same number raises RunError."""
        config = json.loads(json.dumps(config, allow_nan=False))
        if number not in self.trials:
            self._record({"event": "trial", "trial": number, "config": config})
        elif self.trials[number].config != config:
            rule = f"trial {number} is recorded with another configuration"
            raise RunError(Problem(str(self.path), rule, fix="The spec has changed: give the sweep another name"))
        return self.trials[number]

    def record_taken(self, number: int, run: str, trial: int) -> None:
        """Record that a trial's reports and files are those of trial `trial` of another run."""
        self._record({"event": "taken", "trial": number, "run": run, "of": trial, **self._versions()})

    def record_attempt(self, number: int) -> int:
        """Record that the trial is handed to a worker (again); returns the attempt's number, from 1. Undoes an end."""
        attempt = self.trials[number].attempt + 1
        self._record({"event": "attempt", "trial": number, "attempt": attempt, **self._versions()})
        return attempt

    def _versions(self) -> dict[str, Any]:
        return {"versions": self.changed_versions} if self.changed_versions else {}

    def record_slot(self, number: int, slot: int, node: str) -> None:
        """Record in which slot (from 0, in order of appearance in one command) and on which node the attempt runs."""
        self._record(
            {"event": "slot", "trial": number, "attempt": self.trials[number].attempt, "slot": slot, "node": node}
        )

    def record_report(self, report: EpochReport, decision: Decision) -> Decision:
        """Put a report and its decision on disk; returns the decision to obey, the recorded one if it was known."""
        known = self.trials[report.trial].decisions.get(report.epoch)
        if known is not None:
            return known
        self._record({"event": "report", "decision": decision, "report": report.to_json()})
        return decision

    def record_note(self, number: int, text: str) -> None:
        """Record what happened to a trial on the way. The same text is recorded once."""
        if text not in self.trials[number].notes:
            self._record({"event": "note", "trial": number, "text": text})

    def record_end(self, number: int, status: End, reason: str = "") -> None:
        """Record that nothing more will come of a trial; recorded once, a second time is ignored."""
        if status not in get_args(End):
            raise ValueError(f"a trial ends {', '.join(get_args(End))}, got {status!r}")
        if self.trials[number].ended is None:
            self._record({"event": "end", "trial": number, "status": status, "reason": reason})

    def update_manifest(self, **changes: Any) -> None:
        """Replace entries of the manifest (a spec that asks for more trials), atomically."""
        manifest = {**self.manifest, **changes}
        write_atomic(self.path / "manifest.json", _pretty(manifest))
        self.manifest = manifest

    def close(self) -> None:
        """Close the journal's writing end, where one was opened."""
        if self._journal:
            self._journal.close()
            self._journal = None

    def _record(self, event: Event) -> None:
        if self._journal is None:
            self._journal = Journal(self.journal_path)
        self._journal.append({**event, "time": now()})
        self._read()  # memory is only ever fed from the disk: a reopened run can't differ from this one

    def _read(self, progress: Progress | None = None, most: int | None = None) -> int:
        count = 0
        for event, end in islice(events_from(self.journal_path, self.offset), most):
            try:
                self.apply(event)
            except (KeyError, TypeError, ValueError) as error:
                text = json.dumps(event)[:120]
                raise RunError(Problem(str(self.journal_path), f"not understood ({error!r})", text)) from error
            self.offset, count = end, count + 1
            if progress is not None and count % TOLD == 0:
                progress(self.offset >> 20, self.journal_path.stat().st_size >> 20)
        return count

    def apply(self, event: Event) -> None:
        """Take an event of the journal into memory. Raises KeyError, TypeError or ValueError for what is no event."""
        check(event, EVENT)
        kind = event["event"]
        if kind == "trial":
            self.trials.setdefault(event["trial"], Trial(event["trial"], event["config"]))
        elif kind == "attempt":
            trial = self.trials[event["trial"]]
            trial.attempt, trial.ended, trial.reason, trial.origin = event["attempt"], None, "", None
            trial.took_place(event["attempt"], event.get("versions", {}))
        elif kind == "taken":
            self.trials[event["trial"]].origin = (event["run"], event["of"])
            self.trials[event["trial"]].took_place(0, event.get("versions", {}))
        elif kind == "report":
            report = EpochReport.from_json(event["report"])
            trial = self.trials[report.trial]
            if report.epoch not in trial.decisions:
                trial.reports.append(report)
                trial.decisions[report.epoch] = event["decision"]
                if trial.diverged:
                    trial.reason = f"val_loss is {report.metrics['val_loss']} at epoch {report.epoch}"
                self.history.append((report, event["decision"]))
        elif kind == "slot":
            use = SlotUse(event["attempt"], event["slot"], event["node"], event.get("time", ""))
            self.trials[event["trial"]].slots.append(use)
        elif kind == "note":
            self.trials[event["trial"]].notes.append(event["text"])
        elif kind == "end":
            trial = self.trials[event["trial"]]
            trial.ended, trial.reason = event["status"], event["reason"]
        else:
            raise ValueError(f"unknown event {kind!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_journal": None}  # Tune pickles callbacks; an open file can't travel


def _pretty(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
