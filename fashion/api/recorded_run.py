"""A run as its record tells it, read without torch and without Ray. `ls`, `show` and `best` print what this returns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fashion.api.locate import Location, find_location
from fashion.bucket.address import Address, is_address, parse_address
from fashion.errors import Problem, RunError
from fashion.record import promote, ranking
from fashion.record.excerpt import glance
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial import Trial
from fashion.record.trial_files import folder_name, kept_epochs

if TYPE_CHECKING:
    import pyarrow as pa

    from fashion.api.validation import ValidationPredictions
    from fashion.reading.certainty import Certainty
    from fashion.reading.ensembles.found import Ensemble

# Called with a label, how much is done, and the total.
Progress = Callable[[str, int, int], None]


class RecordedRun:
    """A run as it was recorded when it was opened; open it again to see what has happened since.

    record: the run's record, in which a long run may lack reports that are neither a trial's best nor its last.
    notes: what there was to tell while a run in a bucket was fetched.
    """

    def __init__(self, record: Run, notes: tuple[str, ...] = ()) -> None:
        self.record = record
        self.notes = notes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}: {len(self.record.trials)} trials recorded>"

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def location(self) -> str:
        """Where the run is kept: its folder, or its address in a bucket."""
        return self.record.location

    @property
    def address(self) -> Address | None:
        """The run's address in a bucket; None for a run in a folder."""
        return parse_address(self.location) if is_address(self.location) else None

    def trial(self, number: int) -> Trial:
        """What is recorded of a trial. Raises RunError when there is none of that number."""
        trials = self.record.trials
        if number not in trials:
            recorded = f"Recorded: {min(trials)} to {max(trials)}" if trials else "None is recorded yet"
            raise RunError(Problem(self.location, "holds no such trial", str(number), recorded))
        return trials[number]

    def trials(self) -> pa.Table:
        """One row per trial: its status, the metrics of its best epoch and the value of every sampled field."""
        from fashion.api.tables import trials_table

        return trials_table(self.record)

    def reports(self) -> pa.Table:
        """One row per epoch that a trial has reported, with all its metrics and the scheduler's decision."""
        from fashion.api.tables import reports_table

        return reports_table(self._with_every_report())

    def best(self) -> Ranked:
        """The epoch with the lowest val_loss over all trials. Raises RunError when no val_loss is finite."""
        return ranking.best(self.record)

    def predictions(self, trial: int | None = None) -> ValidationPredictions:
        """The class probabilities of every validation image in a trial's best epoch; by default of the best trial.

        Raises:
            RunError: there is no such trial, it has no finite val_loss, or its files are missing or damaged.
            StorageError: the run is kept in a bucket that can't be read.
        """
        from fashion.api.validation import read_predictions

        if trial is None:
            trial = self.best().trial
        return read_predictions(self.record, self.trial(trial), self.address)

    def certainty(self, progress: Progress | None = None) -> Certainty:
        """How sure one can be of the best trial: intervals, the trials that can't be told from it, what to expect of it
        on new images. It is computed once, from the trials' validation predictions, and kept in the run's folder.
        progress: is called with a label, how much is done, and the total while it is computed.

        Raises:
            RunError: no trial has a finite val_loss.
            StorageError: the run is kept in a bucket that can't be read.
        """
        from fashion.reading.certainty import certainty

        return certainty(self.record, self.address, progress)

    def at(self, trial: int, epoch: int | None = None) -> Ranked:
        """A trial at its best epoch, or at another one whose weights are kept. What it returns can be promoted.

        Raises:
            RunError: there is no such trial or epoch, it has no finite val_loss, or its weights are not kept.
            StorageError: the run is kept in a bucket that can't be read.
        """
        best = ranking.trial_at(self.record, trial)
        if epoch in (None, best.epoch):
            return best
        found = ranking.trial_at(self._with_every_report(), trial, epoch)
        kept = self._kept_epochs(trial)
        if epoch not in kept:
            rule, fix = f"keeps no weights of epoch {epoch}", f"It keeps those of {_epochs(kept)}"
            raise RunError(Problem(f"trial {trial}", rule, fix=f"{fix}; its lowest val_loss is at epoch {best.epoch}"))
        return found

    def promote(self, winner: Ranked | None = None, *, trial: int | None = None, epoch: int | None = None) -> Path:
        """Copy the best epoch's checkpoint to the run's folder `best`, as `fashion-sweep best` does, and return it.

        winner: what to promote instead. trial, epoch: the same by number, as `at` finds it; without `epoch` it is that
        trial's best. For a run in a bucket the folder is that of this machine's copy, and the bucket has the same
        afterwards.

        Raises:
            RunError: there is nothing to promote, or another process is promoting.
            CheckpointError: the checkpoint is missing, damaged or not the recorded one.
            StorageError: the run is kept in a bucket that can't be read and written.
        """
        if trial is None and epoch is not None:
            raise RunError(Problem("epoch", "goes with trial", str(epoch), "Give both"))
        if trial is not None:
            winner = self.at(trial, epoch)
        winner = winner or self.best()
        if self.address is None:
            return promote.promote(self.record, winner)
        from fashion.bucket.store import Store
        from fashion.storage.trial_objects import fetch_best
        from fashion.storage.working_copy import push_folder

        fetch_best(Store(self.address), self.record.path, winner.trial, winner.epoch)
        folder = promote.promote(self.record, winner)
        push_folder(self.address, folder, last="model.json")
        return folder

    def ensemble(self, picks: int = 5, others: Sequence[RecordedRun] = ()) -> Ensemble:
        """The trials of this run, and of the others, that predict best together: up to so many picks, of which several
        may be the same trial, by the recorded validation predictions (`fashion.statistics.ensemble`).

        Raises:
            RunError: no trial can be chosen, labels are not known, or the runs were validated on other images.
            StorageError: a run is kept in a bucket that can't be read.
        """
        from fashion.reading.ensembles.found import find_ensemble

        if picks < 1:
            raise RunError(Problem("picks", "must be at least 1", str(picks)))
        return find_ensemble([(run.record, run.address) for run in (self, *others)], picks)

    def promote_ensemble(self, found: Ensemble | None = None) -> Path:
        """Copy an ensemble's members to the run's folder `ensemble`, as `fashion-sweep best --ensemble` does; returns
        that folder. found: what `ensemble` returned, by default that of five picks.

        Raises what `ensemble` and `promote` raise.
        """
        from fashion.reading.ensembles.as_json import ensemble_json
        from fashion.record.ensembles.promote_ensemble import promote_ensemble

        found = found if found is not None else self.ensemble()
        for member in found.members:
            if is_address(member.run.location):
                from fashion.bucket.store import Store
                from fashion.storage.trial_objects import fetch_best

                store = Store(parse_address(member.run.location))
                fetch_best(store, member.run.path, member.chosen.trial, member.chosen.epoch)
        members = [(member.run, member.chosen, member.count) for member in found.members]
        folder = promote_ensemble(self.record, members, ensemble_json(found))
        if self.address is not None:
            from fashion.storage.working_copy import push_folder

            push_folder(self.address, folder, last="model.json")
        return folder

    @property
    def promoted(self) -> tuple[int, int] | None:
        """The trial and the epoch that were promoted last, on this machine; None before the first time."""
        return promote.promoted(self.record)

    def _kept_epochs(self, trial: int) -> list[int]:
        if self.address is None:
            folder = self.record.trial_dir(trial)
            return kept_epochs(path.name for path in folder.iterdir()) if folder.is_dir() else []
        from fashion.bucket.store import Store

        return kept_epochs(each.name.rpartition("/")[2] for each in Store(self.address).objects(folder_name(trial)))

    def _with_every_report(self) -> Run:
        if any(trial.left_out for trial in self.record.trials.values()):
            driven = self.record.driven_elsewhere
            whole = Run.open(self.record.path)
            whole.kept_at(self.location, driven)
            self.record = whole
        return self.record


def open_run(
    run: str | Path | None = None, storage: str | Path = "runs", *, progress: Progress | None = None
) -> RecordedRun:
    """Read a run: `run` is its folder, its address (s3://, gs://) or its name in `storage`. Without it the run with the
    latest activity in `storage` is read. Works while the sweep runs.

    progress: called with a label, the megabytes read and their total, where reading takes long.

    Raises:
        RunError: there is no such run, or its record is damaged or of another version.
        StorageError: the bucket can't be read.
    """
    location = find_location(str(storage), None if run is None else str(run))
    return read_run(location, progress=progress)


def read_run(location: Location, every_report: bool = False, progress: Progress | None = None) -> RecordedRun:
    """The run at that location. Unless `every_report`, its excerpt serves where it has one, and what was recorded
    since.

    Raises NoRunError when there is none at an address, and what `open_run` raises.
    """

    def told(label: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(label, done, total)

    def read(path: Path) -> Run:
        # Reading makes many objects and drops none: the collector would examine all of them again and again.
        collecting = gc.isenabled()
        gc.disable()
        try:
            reading = told(f"reading {location.name}, MB")
            return Run.open(path, progress=reading) if every_report else glance(path, reading)
        finally:
            if collecting:
                gc.enable()

    if isinstance(location, Path):
        return RecordedRun(read(location))
    from fashion.storage.working_copy import brought

    copy = brought(location, told(f"fetching {location.name}, MB"))
    return RecordedRun(copy.of(read(copy.path)), copy.notes)


def _epochs(kept: Sequence[int]) -> str:
    return f"epoch{'s' if len(kept) > 1 else ''} {', '.join(map(str, kept))}" if kept else "none"
