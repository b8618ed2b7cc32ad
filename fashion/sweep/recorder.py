"""The driver's half of the record: each report goes through the scheduler and onto the disk before it is obeyed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fashion.record.manifest import changed_versions, versions_in_words
from fashion.record.run import Run
from fashion.record.scheduler import replay
from fashion.record.trial import End, EpochReport, Trial
from fashion.record.trial_files import CLAIM, LAST, MICRO_BATCHES, PREVIOUS, prune
from fashion.schedulers.base import Decision, Scheduler
from fashion.sweep.observers import Observer
from fashion.sweep.reuse import Trained, link

# One failure may be one bad configuration; this many, with nothing ever learnt, mean that the set-up is broken.
EARLY_FAILURES = 3
# What only an unfinished trial needs.
FOR_RESUMING = (LAST, PREVIOUS, MICRO_BATCHES, CLAIM)


class Recorder:
    """Receives what trials report, decides, records, and then tells the observers. Knows nothing of Ray.

    observers: are told in this order. settled: whether what was recorded so far would survive the loss of this machine.
    abort: why the whole sweep should stop; empty while it should not.
    blocked: why no trial can go on for now: the sweep stops, but can be resumed once that is mended; empty while it
    can."""

    def __init__(
        self,
        run: Run,
        scheduler: Scheduler,
        total: int,
        observers: Sequence[Observer] = (),
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self.run, self.scheduler, self.total = run, scheduler, total
        self.observers, self.settled = observers, settled
        self.abort = ""
        self.blocked = ""
        self.last_death: dict[int, str] = {}  # why a trial's process died last
        self._slots: dict[str, int] = {}  # the number of each slot that trials have run in

    def catch_up(self) -> None:
        """Bring the scheduler and the disk up to the record: called once, before anything is received.

        What is recorded goes through the scheduler's own code, so that start, resume and extension are one path. Then
        what a killed driver decided and could not carry out is carried out.

        What is trained from now on is recorded with the versions of this process where they differ from the run's."""
        self.run.changed_versions = changed_versions(self.run.manifest)
        if self.run.changed_versions and self.run.unfinished(self.total):
            words = versions_in_words(self.run.manifest, self.run.changed_versions)
            self.note(
                f"the sweep goes on under other versions than it began with: {words}; the record says which trial"
            )
        for report, recorded, decided in replay(self.scheduler, self.run.history):
            if self.run.trials[report.trial].origin is not None:
                continue  # taken whole from another run: nothing was to be decided
            self.note(
                f"trial {report.trial} epoch {report.epoch}: recorded {recorded}, would now be {decided}; "
                "the record holds"
            )
        for trial in self.run.trials.values():
            if trial.final and trial.ended is None:
                last = trial.reports[-1]
                self._end_after(last, trial.decisions[last.epoch])
            elif trial.final:
                self._clear(trial)
                self._tell_cleared(trial)

    def started(self, number: int) -> None:
        """A trial is handed to a worker, for the first time or again."""
        self.run.record_attempt(number)
        for observer in self.observers:
            observer.trial_started(number)

    def began(self, number: int, slot: str, node: str) -> None:
        """The current attempt runs in that slot on that node. Slots are numbered in the order in which they appear."""
        self.run.record_slot(number, self._slots.setdefault(slot, len(self._slots)), node)

    def take(self, number: int, config: Mapping[str, Any], trained: Trained) -> None:
        """Record another run's completed trial, of the same configuration, as this trial. May be called again after it
        was interrupted."""
        run = self.run
        link(trained, run.trial_dir(number))
        trial = run.record_trial(number, config)
        if trial.origin is None:
            run.record_taken(number, trained.run.name, trained.trial.number)
        for report in trained.trial.reports:
            if report.epoch not in trial.decisions:
                mine = replace(report, trial=number)
                self.scheduler.observe(mine)  # others are measured by it
                run.record_report(mine, "continue")
                self._tell_reported(mine, "continue")
        self.note(f"trial {number}: same as {trained}, taken from there (--fresh trains it)")
        self.ended(number, "completed", f"taken from {trained}")

    def received(self, report: EpochReport) -> Decision:
        """Decide on a report, record both, then tell of them. A report known already gets its recorded decision."""
        trial = self.run.trials[report.trial]
        known = trial.decisions.get(report.epoch)
        if known is not None:
            return "stop" if trial.final else known
        decision = self.run.record_report(report, self.scheduler.observe(report))
        self._tell_reported(report, decision)
        self._end_after(report, decision)
        return decision

    def ended(self, number: int, status: End, reason: str = "") -> None:
        """Record a trial's end, remove what only a resumption needs, and abort a sweep in which nothing works."""
        trial = self.run.trials[number]
        if trial.ended:
            return
        self.run.record_end(number, status, reason)
        self._clear(trial)
        for observer in self.observers:
            observer.ended(number, status, reason)
        self._tell_cleared(trial)
        if self.run.history:
            return
        failed = [t for t in self.run.trials.values() if t.status == "failed"]
        if len(failed) >= min(EARLY_FAILURES, self.total):
            self.abort = f"the first {len(failed)} trials failed before their first epoch: {reason}"

    def died(self, number: int, reason: str) -> None:
        """A trial's process died; it may be started again."""
        self.last_death[number] = reason
        self.note(f"trial {number}: its process died ({reason})")

    def noted(self, number: int, text: str) -> None:
        """Something happened to a trial that a reader of its numbers should know."""
        self.run.record_note(number, text)
        self.note(f"trial {number}: {text}")

    def moves(self, number: int) -> None:
        """A trial leaves a machine that will be taken away; it goes on elsewhere, and that is no failure."""
        self.note(f"trial {number}: its machine will be taken away, it goes on elsewhere")

    def note(self, text: str) -> None:
        """Tell the user something that is not recorded."""
        for observer in self.observers:
            observer.note(text)

    def waiting(self, text: str) -> None:
        """Tell the user what the sweep waits for from now on; empty when it does not wait any more."""
        for observer in self.observers:
            observer.waiting(text)

    def stop(self, reason: str) -> None:
        """Let no trial go on. May be called from another thread; the sweep ends soon afterwards."""
        self.blocked = self.blocked or reason

    def _end_after(self, report: EpochReport, decision: Decision) -> None:
        """Record the trial's end if this report was its last."""
        if not math.isfinite(report.metrics["val_loss"]):
            self.ended(report.trial, "failed", f"epoch {report.epoch}: val_loss is {report.metrics['val_loss']}")
        elif report.epoch == report.epochs:
            self.ended(report.trial, "completed")
        elif decision == "stop":
            self.ended(report.trial, "stopped", f"{self.scheduler.metric} at epoch {report.epoch} of {report.epochs}")

    def _tell_reported(self, report: EpochReport, decision: Decision) -> None:
        for observer in self.observers:
            observer.reported(report, decision)

    def _tell_cleared(self, trial: Trial) -> None:
        best = trial.best()
        for observer in self.observers:
            observer.cleared(trial.number, best.epoch if best else None, self.run.offset)

    def _clear(self, trial: Trial) -> None:
        best = trial.best()
        keep_only(self.run.trial_dir(trial.number), best.epoch if best else None)


def keep_only(folder: Path, best_epoch: int | None) -> None:
    """Keep the best epoch's weights and predictions of an ended trial's checkpoints, and nothing that was half
    written."""
    prune(folder, set() if best_epoch is None else {best_epoch})
    for path in folder.glob("*"):
        if path.name in FOR_RESUMING or path.suffix == ".tmp":
            path.unlink(missing_ok=True)
