"""A journal's excerpt: what `ls`, `show` and `best` need of a long run, without parsing every report again.

For each trial it keeps the best report in full. Of the last report, and of those that entered a rung, it keeps only the
metrics by which they rank. It is derived from the journal and may be deleted at any time. A stamp (how many bytes it
covers, and a digest of the last of them) ties it to its journal.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from fashion.files import parse, write_atomic
from fashion.record.run import Known, Progress, Run
from fashion.record.scheduler import fresh_scheduler_of
from fashion.record.trial import EpochReport, SlotUse, Trial
from fashion.record.validate import EVENT, check
from fashion.schedulers.base import Decision, Scheduler

FORMAT = 6
NAME = "excerpt.json"
# Reading fewer reports than this from the journal takes no noticeable time.
WORTH = 5_000
PIECE = 40_000  # events of a journal that are in memory at a time
_STAMPED = 4096  # bytes at the end of what is covered, of which the stamp has the digest


def glance(path: str | Path, progress: Progress | None = None) -> Run:
    """The run at `path`, read from its excerpt and from what the journal has beyond it.

    If that is much, a new excerpt is written. Its trials may lack reports that are neither the best nor the last nor
    entered a rung. Raises RunError like `Run.open`."""
    path = Path(path)
    known = load(path / "journal.jsonl")
    before = _reports(known[0]) if known else 0
    run = Run.open(path, known, progress, most=PIECE)
    while run.offset < run.journal_path.stat().st_size:
        if len(run.history) > WORTH:
            _shorten(run)
        if not run.refresh(progress, most=PIECE):
            break  # a line that is only half written yet
    if _reports(run.trials) - before > WORTH and os.access(path, os.W_OK):
        save(run)
    return run


def _reports(trials: Mapping[int, Trial]) -> int:
    return sum(trial.left_out + len(trial.reports) for trial in trials.values())


def _kept(run: Run, entered: Collection[tuple[int, int]]) -> dict[int, list[EpochReport]]:
    """The reports of each trial that an excerpt keeps: the best, the last, and those that entered a rung."""
    found = {}
    for trial in run.trials.values():
        best, last = trial.best(), trial.reports[-1] if trial.reports else None
        found[trial.number] = [r for r in trial.reports if r is best or r is last or (r.trial, r.epoch) in entered]
    return found


def _shorten(run: Run) -> None:
    """Let go of the reports that an excerpt leaves out: a long journal is read in the memory of its excerpt."""
    entered = set(_entered(run.history, fresh_scheduler_of(run)))
    for number, kept in _kept(run, entered).items():
        trial = run.trials[number]
        epochs = {report.epoch for report in kept}
        trial.left_out += len(trial.reports) - len(kept)
        trial.left_out_seconds += sum(r.seconds for r in trial.reports if r.epoch not in epochs)
        trial.reports = kept
        trial.decisions = {epoch: trial.decisions[epoch] for epoch in sorted(epochs)}
    run.history = [each for each in run.history if (each[0].trial, each[0].epoch) in entered]


def save(run: Run) -> None:
    """Write the excerpt of what `run` has read."""
    scheduler = fresh_scheduler_of(run)
    entered = set(_entered(run.history, scheduler))
    shared = next((trial.config for trial in run.trials.values()), {})
    common = _fields(shared)
    kept_of = _kept(run, entered)
    trials = []
    for trial in run.trials.values():
        best, kept = trial.best(), kept_of[trial.number]
        trials.append(
            {
                "number": trial.number,
                "config": _less(trial.config, common),
                "attempt": trial.attempt,
                "ended": trial.ended,
                "reason": trial.reason,
                "origin": trial.origin,
                "notes": trial.notes,
                "slots": [vars(use) for use in trial.slots],
                "versions": [[attempt, changed] for attempt, changed in trial.versions.items()],
                "reports": [r.to_json() if r is best else _slim(r, scheduler.metric) for r in kept],
                "decisions": [trial.decisions[r.epoch] for r in kept],
                "left_out": trial.left_out + len(trial.reports) - len(kept),
                "left_out_seconds": trial.left_out_seconds + sum(r.seconds for r in trial.reports if r not in kept),
            }
        )
    order = [[report.trial, report.epoch] for report, _ in run.history if (report.trial, report.epoch) in entered]
    stamp = _stamp(run.journal_path, run.offset)
    content = {"format": FORMAT, "stamp": stamp, "shared": shared, "trials": trials, "entered": order}
    write_atomic(run.path / NAME, json.dumps(content, allow_nan=False, separators=(",", ":")).encode())


def load(journal: Path) -> Known | None:
    """The excerpt of a journal; None where there is none, or where it belongs to another journal."""
    try:
        content = parse((journal.parent / NAME).read_bytes())
        if content["format"] != FORMAT or content["stamp"] != _stamp(journal, content["stamp"]["bytes"]):
            return None
        trials = {entry["number"]: _trial(entry, content["shared"]) for entry in content["trials"]}
        reports = {(r.trial, r.epoch): (r, t.decisions[r.epoch]) for t in trials.values() for r in t.reports}
        history = [reports[number, epoch] for number, epoch in content["entered"]]
        return trials, history, content["stamp"]["bytes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing or damaged: then the journal itself is read


def _entered(history: Iterable[tuple[EpochReport, Decision]], scheduler: Scheduler) -> Iterable[tuple[int, int]]:
    for report, _ in history:
        before = scheduler.entries
        scheduler.observe(report)
        if scheduler.entries != before:
            yield report.trial, report.epoch


def _slim(report: EpochReport, metric: str) -> dict[str, Any]:
    whole = report.to_json()
    return {**whole, "metrics": {name: whole["metrics"][name] for name in {"val_loss", metric}}}


def _fields(config: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """A configuration's values under (section, field), or under (name,) outside of sections."""
    fields: dict[tuple[str, ...], Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            fields |= {(name, field): inner for field, inner in value.items()}
        else:
            fields[name,] = value
    return fields


def _less(config: dict[str, Any], common: dict[tuple[str, ...], Any]) -> dict[str, Any] | list[list[Any]]:
    """What differs from the common values, as [section, field, value]; all of the configuration if its fields
    differ."""
    mine = _fields(config)
    if list(mine) != list(common):
        return config
    # Texts are compared because 1, 1.0 and True are equal in Python.
    return [[*name, value] for name, value in mine.items() if repr(value) != repr(common[name])]


def _more(less: dict[str, Any] | list[list[Any]], shared: dict[str, Any]) -> dict[str, Any]:
    """The configuration again, from the differences that `_less` has kept."""
    if isinstance(less, dict):
        return less
    config = {name: dict(value) if isinstance(value, dict) else value for name, value in shared.items()}
    for *section, name, value in less:
        (config[section[0]] if section else config)[name] = value
    return config


def _trial(entry: dict[str, Any], shared: dict[str, Any]) -> Trial:
    config = _more(entry["config"], shared)
    versions = dict(entry["versions"])
    for changed in versions.values():
        check({"versions": changed}, EVENT)
    check({**entry, "trial": entry["number"], "config": config, "versions": {}}, EVENT)
    reports = [EpochReport.from_json(value) for value in entry["reports"]]
    decisions = dict(zip((report.epoch for report in reports), entry["decisions"], strict=True))
    return Trial(
        entry["number"], config, reports, decisions, entry["attempt"], entry["ended"], entry["reason"],
        left_out=entry["left_out"], left_out_seconds=entry["left_out_seconds"],
        origin=tuple(entry["origin"]) if entry["origin"] else None, notes=entry["notes"],
        slots=[SlotUse(**use) for use in entry["slots"]], versions=versions,
    )  # fmt: skip


def _stamp(journal: Path, size: int) -> dict[str, Any]:
    """What ties an excerpt to the first `size` bytes of a journal, which never change since a journal only grows."""
    with open(journal, "rb") as file:
        file.seek(max(size - _STAMPED, 0))
        end = file.read(min(size, _STAMPED))
    return {"bytes": size, "end": hashlib.sha256(end).hexdigest()}
