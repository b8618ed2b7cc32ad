"""What the driver of a sweep costs as trials grow many, and what reading a large record costs.

- Driver: the real `fashion-sweep run` (wrapped by `benchmarks.noted`) on near-empty trials: a tiny network, 16 drawn
  images of 16 px, one epoch, two trials at once. Training would hide what the driver takes, so it is its processor time
  that counts (user and system, all threads of that process, no other process), and its resident memory; both from the
  11th trial handed out to the last, divided by the trials between. What a sweep pays once, before and after, is a row
  of its own, and so is the wall time of a trial, most of which is the trial's. Its peak is that until the sweep has
  ended: while Python takes the process down, the destructors of torch's libraries touch 100 MB of pages of their own
  files.
- Record: a journal of 5,000 trials x 50 epochs (`benchmarks.big_record`), which `best`, `ls` and `show` read: wall time
  of the whole command, its process's start included, in turn, and its peak memory. What recording one more report
  takes, on disk before it returns, in the first trial and in the last; and the memory of a process that holds the
  record.

ratio: of a larger sweep's cost a trial to that of the smallest; of the last report to the first.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import child
from benchmarks.rows import Row, in_turn, medians, tell
from fashion.data.demo import write_demo

SKIPPED = 10  # the first trials, in which the slots start
CORES = 2
GROWTH, MEMORY, SECONDS, REPORT = 1.2, 1.0, 1.0, 5.0  # targets: ratio, GB, s, ms
TRIALS, EPOCHS = 5000, 50  # of the large record
SPEC = """
name: scale
data: {{root: {root}, resize: 16, crop: 16}}
model: {{backbone: tiny, weights: none, dropout: {{uniform: [0.0, 0.5]}}}}
train: {{epochs: 1, batch_size: 16, lr: {{loguniform: [0.001, 0.1]}}}}
search: {{method: random, trials: {trials}, seed: 0}}
scheduler: {{name: asha}}
resources: {{workers: 1, gpus_per_worker: 0, cpus_per_worker: 1, concurrent_trials: {cores}}}
storage: {storage}
"""


@dataclass(frozen=True)
class Cost:
    """Of one sweep's driver: processor seconds and bytes a trial, processor seconds once, wall seconds a trial, and the
    peak of its memory in bytes."""

    cpu: float
    memory: float
    once: float
    wall: float
    peak: int


def run(full: bool, data: Path) -> list[Row]:
    counts = (100, 1000, 5000) if full else (100, 500)
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        costs = {trials: driver(Path(name) / str(trials), trials) for trials in counts}
    with tempfile.TemporaryDirectory(prefix="record-") as name:
        return [*driver_rows(costs), *record_rows(Path(name), 5 if full else 3)]


def driver(folder: Path, trials: int) -> Cost:
    tell(f"a sweep of {trials:,} trials")
    noted, spec = folder / "notes", folder / "scale.yaml"
    noted.mkdir(parents=True)
    root = write_demo(folder / "data", train=16, val=8, test=8, size=16)
    spec.write_text(SPEC.format(root=root, trials=trials, cores=CORES, storage=folder / "runs"))
    child.python("-m", "benchmarks.noted", str(noted), "run", str(spec), "--plain", FASHION_CACHE=str(folder / "cache"))
    entries = child.notes(noted)
    started = {entry["number"]: entry for entry in entries if entry["event"] == "started"}
    (end,) = (entry for entry in entries if entry["event"] == "ended")
    first, last, between = started[SKIPPED], started[trials - 1], trials - 1 - SKIPPED
    return Cost(
        (last["cpu"] - first["cpu"]) / between,
        (last["memory"] - first["memory"]) / between,
        started[0]["cpu"] + end["cpu"] - last["cpu"],
        (last["time"] - first["time"]) / between,
        end["peak"],
    )


def driver_rows(costs: dict[int, Cost]) -> list[Row]:
    rows = []
    least = costs[min(costs)]
    for trials, cost in costs.items():
        name = f"driver, {trials:,} trials"
        growth = cost.cpu / least.cpu
        wanted = (f"ratio <= {GROWTH:g}", growth <= GROWTH) if cost is not least else (None, None)
        peak = cost.peak / 1e9
        rows += [
            Row("scale", f"{name}: processor time a trial", 1e3 * cost.cpu, "ms", growth, *wanted),
            Row("scale", f"{name}: memory a trial", cost.memory / 1e3, "kB"),
            Row("scale", f"{name}: peak memory", peak, "GB", None, f"value < {MEMORY:g}", peak < MEMORY),
            Row("scale", f"{name}: processor time once", cost.once, "s"),
            Row("scale", f"{name}: wall time a trial", 1e3 * cost.wall, "ms"),
        ]
    return rows


def record_rows(folder: Path, rounds: int) -> list[Row]:
    tell(f"a record of {TRIALS:,} x {EPOCHS}")
    storage, result = folder / "runs", folder / "result.json"
    arguments = {"storage": str(storage), "trials": TRIALS, "epochs": EPOCHS, "result": str(result)}
    child.module("big_record", arguments, folder)
    found = json.loads(result.read_text())
    name = f"record of {TRIALS:,} x {EPOCHS}"
    first, last, memory = 1e3 * found["first"], 1e3 * found["last"], found["memory"] / 1e9
    target = f"value <= {REPORT:g}"
    rows = [
        Row("scale", "first trial's report on disk", first, "ms", 1.0, target, first <= REPORT),
        Row("scale", f"{name}: one more report on disk", last, "ms", last / first, target, last <= REPORT),
        Row("scale", f"{name}: memory to hold it", memory, "GB", None, f"value < {MEMORY:g}", memory < MEMORY),
    ]
    peaks: dict[str, int] = {}

    def command(*words: str) -> float:
        ended = child.python("-m", "fashion", *words, "--storage", str(storage))
        peaks[words[0]] = max(peaks.get(words[0], 0), ended.peak)
        return ended.seconds

    commands = {word: lambda word=word: command(word) for word in ("best", "ls", "show")}
    for word, value in medians(in_turn(commands, rounds)).items():
        peak = peaks[word] / 1e9
        rows += [
            Row("scale", f"{name}: {word}", value, "s", None, f"value < {SECONDS:g}", value < SECONDS),
            Row("scale", f"{name}: {word}, peak memory", peak, "GB", None, f"value < {MEMORY:g}", peak < MEMORY),
        ]
    return rows
