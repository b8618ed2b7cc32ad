"""The driver's half of the record: each report goes through the scheduler and onto the disk before it is obeyed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fashion.display.live import Display
from fashion.display.tensorboard import EventFiles
from fashion.record.run import Run
from fashion.record.scheduler import replay
from fashion.record.trial import End, EpochReport, Trial
from fashion.record.trial_files import CLAIM, LAST, MICRO_BATCHES, PREVIOUS, prune
from fashion.schedulers.base import Decision, Scheduler
from fashion.storage.record_upload import Mirror
from fashion.sweep.reuse import Trained, link

# One failure may be one bad configuration; this many, with nothing ever learnt, are a broken set-up.
EARLY_FAILURES = 3
# What only an unfinished trial needs.
FOR_RESUMING = (LAST, PREVIOUS, MICRO_BATCHES, CLAIM)


class Recorder:
    """Receives what trials report, decides, records and shows it. Knows nothing of Ray.

    abort: why the whole sweep should stop, empty while it should not.
    blocked: why no trial can go on for now: the sweep stops, too, but can be resumed once that is mended.
    """

    def __init__(
        self, run: Run, scheduler: Scheduler, display: Display, events: EventFiles, total: int,
        mirror: Mirror | None = None,
    ) -> None:  # fmt: skip
        self.run, self.scheduler, self.display, self.events, self.total = run, scheduler, display, events, total
        self.mirror = mirror  # of a run that is kept in a bucket
        self.abort = ""
        self.blocked = ""
        self.last_death: dict[int, str] = {}  # why a trial's process died last
        # One path for start, resume and extension: what is recorded goes through the scheduler's own code.
        for report, recorded, decided in replay(scheduler, run.history):
            if run.trials[report.trial].origin is not None:
                continue  # taken whole from another run: nothing was to be decided
            display.note(
                f"trial {report.trial} epoch {report.epoch}: recorded {recorded}, would now be {decided}; the record holds"
            )
        # What a killed driver decided and could not carry out.
        for trial in run.trials.values():
            if trial.final and trial.ended is None:
                last = trial.reports[-1]
                self._end_after(last, trial.decisions[last.epoch])
            elif trial.final:
                self._clear(trial)

    def started(self, number: int) -> None:
        """A trial is handed to a worker, for the first time or again."""
        self.run.record_attempt(number)
        self.display.trial_started(number)

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
                self.events.add(mine)
                self.display.reported(mine, "continue")
        self.display.note(f"trial {number}: same as {trained}, taken from there (--fresh trains it)")
        self.ended(number, "completed", f"taken from {trained}")

    def received(self, report: EpochReport) -> Decision:
        """Decide on a report, record both, then show them. A report known already gets its recorded decision."""
        trial = self.run.trials[report.trial]
        known = trial.decisions.get(report.epoch)
        if known is not None:
            return "stop" if trial.final else known
        decision = self.run.record_report(report, self.scheduler.observe(report))
        self.events.add(report)
        self.display.reported(report, decision)
        self._end_after(report, decision)
        return decision

    def ended(self, number: int, status: End, reason: str = "") -> None:
        """Record a trial's end, remove what only a resumption needs, and abort a sweep in which nothing works."""
        trial = self.run.trials[number]
        if trial.ended:
            return
        self.run.record_end(number, status, reason)
        self.events.close(number)
        self._clear(trial)
        self.display.ended(number, status, reason)
        if self.run.history:
            return
        failed = [t for t in self.run.trials.values() if t.status == "failed"]
        if len(failed) >= min(EARLY_FAILURES, self.total):
            self.abort = f"the first {len(failed)} trials failed before their first epoch: {reason}"

    def died(self, number: int, reason: str) -> None:
        """A trial's process died; it may be started again."""
        self.last_death[number] = reason
        self.display.note(f"trial {number}: its process died ({reason})")

    def noted(self, number: int, text: str) -> None:
        """Something happened to a trial that the reader of its numbers should know."""
        self.run.record_note(number, text)
        self.display.note(f"trial {number}: {text}")

    def moves(self, number: int) -> None:
        """A trial leaves a machine that will be taken away; it goes on elsewhere, and that is no failure."""
        self.display.note(f"trial {number}: its machine will be taken away, it goes on elsewhere")

    def _end_after(self, report: EpochReport, decision: Decision) -> None:
        """Record the trial's end if this report was its last."""
        if not math.isfinite(report.metrics["val_loss"]):
            self.ended(report.trial, "failed", f"epoch {report.epoch}: val_loss is {report.metrics['val_loss']}")
        elif report.epoch == report.epochs:
            self.ended(report.trial, "completed")
        elif decision == "stop":
            self.ended(report.trial, "stopped", f"{self.scheduler.metric} at epoch {report.epoch} of {report.epochs}")

    def stop(self, reason: str) -> None:
        """Let no trial go on. May be called from another thread; the sweep ends soon afterwards."""
        self.blocked = self.blocked or reason

    def settled(self) -> bool:
        """Whether what was recorded would survive the loss of this machine, as far as it is meant to."""
        return self.mirror is None or self.mirror.settled()

    def _clear(self, trial: Trial) -> None:
        best = trial.best()
        epoch = best.epoch if best else None
        keep_only(self.run.trial_dir(trial.number), epoch)
        if self.mirror is not None:
            self.mirror.ended(trial.number, epoch, self.run.offset)


def keep_only(folder: Path, best_epoch: int | None) -> None:
    """Of an ended trial's checkpoints keep the best epoch's weights and predictions; nothing that was half written."""
    prune(folder, set() if best_epoch is None else {best_epoch})
    for path in folder.glob("*"):
        if path.name in FOR_RESUMING or path.suffix == ".tmp":
            path.unlink(missing_ok=True)
