"""The fixed cost of a trial under Ray, one trial at a time, of one worker and of two.

- Decision to first step: from the scheduler's decision on a trial's last report until the next trial has done its first
  optimiser step: unwinding, resources, processes, imports, model and data. Ours is warm: second and later trials of a
  slot (the first is a row of its own). For the documented way, which has nothing to keep warm, the first trial counts
  too, from when Tune hands it out.
- Stop to freed: from the decision until what the trial held can be used again. Documented: its CPUs are free in Ray's
  view, looked at every 0.05 s. Ours never gives a slot back between trials: until the trial's function has unwound and
  the slot's process can take the next trial (two workers unwind beside it, which the first measure includes).
- Report: how long the loop of one worker stands still for a report: it hands it over and trains on.
- Answer: from handing a report to the driver to its answer, which comes when the report and the decision are on disk.
  Several workers wait for it. Both are ours alone, in longer trials of their own.

Where the times come from. Ours is the real `fashion-sweep run` on a drawn data set (tiny backbone, 64 images, ASHA that
stops nearly every trial at its first report). Decision: the time of the trial's last report in the journal, taken
before the report is written to disk. First step: the loop's own progress.json, written after the first step and at most
once a second, so that it keeps the time of the first step in trials as short as these; one that says otherwise is left
out. Unwinding: `benchmarks.noted`. Documented: `benchmarks.documented`, one step of one linear layer, stopped by a
scheduler at its first report, which costs it less than to end by itself.

All are processes with a Ray of their own, in turn. ratio: how many times longer the documented way takes.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.child import module, notes, python
from benchmarks.rows import Row, in_turn
from fashion.data.demo import write_demo
from fashion.record.journal import read_journal

WORKERS = (1, 2)
TARGETS = {1: 0.1, 2: 2.0}  # seconds from decision to first step, warm
FIRST, STEP, FREED = "first trial", "decision to first step", "stop to freed"
REPORT, ANSWER = "a report in the loop", "the driver's answer to a report"
REPORT_SECONDS = 0.005
SPEC = """
name: {name}
data: {{root: {root}, resize: 32, crop: 32}}
model: {{backbone: tiny, weights: none, dropout: 0.0}}
train: {{epochs: {epochs}, batch_size: 16, lr: {{loguniform: [0.001, 0.1]}}}}
search: {{method: random, trials: {trials}, seed: 0}}
scheduler: {{name: {scheduler}, metric: val_loss, compare: epoch, grace: 1, reduction: 100}}
resources: {{workers: {workers}, gpus_per_worker: 0, cpus_per_worker: 1, concurrent_trials: 1}}
storage: {storage}
"""


def run(full: bool, data: Path) -> list[Row]:
    rounds, trials, documented_trials = (3, 20, 3) if full else (1, 8, 1)
    found: dict[tuple[str, int, str], list[float]] = {}

    def contender(name: str, workers: int) -> float:
        with tempfile.TemporaryDirectory(prefix="trial-") as folder:
            if name == "ours":
                measured = ours(Path(folder), workers, trials)
            else:
                measured = documented(Path(folder), workers, documented_trials)
        for measure, values in measured.items():
            found.setdefault((name, workers, measure), []).extend(values)
        return statistics.median(measured[STEP])

    in_turn(
        {
            f"{name} {workers}": lambda name=name, workers=workers: contender(name, workers)  # type: ignore[misc]
            for workers in WORKERS
            for name in ("documented", "ours")
        },
        rounds,
    )
    middle = {key: statistics.median(values) for key, values in found.items() if values}
    rows = []
    for (name, workers, measure), value in middle.items():
        ratio, target, met = None, None, None
        theirs = middle.get(("documented", workers, measure))
        if name == "ours" and theirs is not None:
            ratio = theirs / max(value, 1e-3)  # the journal's times are in milliseconds
        if name == "ours" and measure == STEP:
            target, met = f"value <= {TARGETS[workers]:g}", value <= TARGETS[workers]
        if measure in (REPORT, ANSWER):
            target, met = f"value <= {REPORT_SECONDS:g}", value <= REPORT_SECONDS
        label = "Train in Tune as documented" if name == "documented" else "ours"
        many = f"{workers} worker{'s' if workers > 1 else ''}"
        rows.append(Row("trial", f"{label}, {many}: {measure}", value, "s", ratio, target, met))
    return rows


def ours(folder: Path, workers: int, trials: int) -> dict[str, list[float]]:
    """Seconds by measure, one value a trial."""
    root = write_demo(folder / "data", train=64, val=32, test=16, size=32)
    spec, noted = folder / "trial.yaml", folder / "notes"
    noted.mkdir()
    common = {"root": root, "workers": workers, "storage": folder / "runs"}

    def sweep(name: str, **more: Any) -> Path:
        spec.write_text(SPEC.format(name=name, **common, **more))
        python("-m", "benchmarks.noted", str(noted), "run", str(spec), "--plain", FASHION_CACHE=str(folder / "cache"))
        return folder / "runs" / name

    sweep("reports", trials=2, epochs=2 * trials, scheduler="fifo")
    waits: dict[str, list[float]] = {"reported": [], "answered": []}
    for entry in notes(noted):
        if entry["event"] in waits:
            waits[entry["event"]].append(entry["seconds"])
    shutil.rmtree(noted)
    noted.mkdir()
    path = sweep("trial", trials=trials, epochs=3, scheduler="asha")
    handed_out: dict[int, float] = {}
    decided: dict[int, float] = {}
    for event in read_journal(path / "journal.jsonl"):
        if event["event"] == "attempt":
            handed_out.setdefault(event["trial"], _seconds(event["time"]))
        elif event["event"] == "report":
            decided[event["report"]["trial"]] = _seconds(event["time"])
    stepped = {number: at for number in decided if (at := _first_step(path / "trials" / f"{number:04d}")) is not None}
    left = {entry["number"]: entry["time"] for entry in notes(noted) if entry["event"] == "left"}
    warm = [number for number in range(1, trials) if number in stepped]
    if len(warm) < trials / 2:
        raise RuntimeError(
            f"of {trials} trials only {len(warm)} were short enough to keep the time of their first step"
        )
    measured = {
        STEP: [stepped[number] - decided[number - 1] for number in warm],
        FREED: [max(left[number] - decided[number], 0.0) for number in range(1, trials)],
        ANSWER: waits["answered"],
        REPORT: waits["reported"],  # none of several workers
    }
    if 0 in stepped:
        measured[FIRST] = [stepped[0] - handed_out[0]]
    return measured


def documented(folder: Path, workers: int, trials: int) -> dict[str, list[float]]:
    """Seconds by measure, one value a trial."""
    noted = folder / "notes"
    noted.mkdir()
    arguments: dict[str, Any] = {
        "loop": "one_step",
        "configs": [{"number": number, "notes": str(noted)} for number in range(trials)],
        "workers": workers,
        "cores": max(WORKERS),
        "concurrent": 1,
        "notes": str(noted),
        "storage": str(folder / "ray"),
    }
    module("documented", arguments, folder)
    entries = notes(noted)
    times: dict[str, dict[int, float]] = {}
    for entry in entries:
        if "number" in entry:
            times.setdefault(entry["event"], {}).setdefault(entry["number"], entry["time"])
    stopped, stepped, handed_out = times["stopped"], times["first step"], times["started"]
    free = [(entry["time"], entry["cpus"]) for entry in entries if entry["event"] == "free CPUs"]
    return {
        STEP: [stepped[number] - (stopped[number - 1] if number else handed_out[0]) for number in range(trials)],
        FREED: [until_freed(free, stop) for stop in stopped.values()],
    }


def until_freed(free: list[tuple[float, float]], stop: float) -> float:
    """Seconds from `stop` until more CPUs were free than then; until the last look, where they never were."""
    held = [cpus for time, cpus in free if time <= stop][-1]
    return next((time for time, cpus in free if time > stop and cpus > held), free[-1][0]) - stop


def _first_step(folder: Path) -> float | None:
    """When a trial had done its first step, in seconds since the epoch; None where the note is of a later one."""
    place = folder / "progress.json"
    written = json.loads(place.read_text())
    return place.stat().st_mtime if (written["epoch"], written["step"]) == (1, 1) else None


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
