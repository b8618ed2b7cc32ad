"""What it takes until a light command has answered: wall time of a process, beyond that of `python -c 'import click'`.

`--help` lists every command; `check` reads one of the shipped specs; `ls` and `show` read a record of 20 trials of 10
epochs, written here through the package's own API. Each is a process with the interpreter's start in its time, in turn.

value: seconds more than the import of click, the median over rounds; ratio: to the import of click.

Then a sweep of one trial and one epoch, ResNet-18 at 64 px on 200 drawn images whose cache is there, and `best
--predict` of 150, each beside a plain script that does the same (`once`): from the command to the first epoch that is
recorded, to the end of the command, and to the prediction.

value: seconds, the median over rounds; ratio: to the plain script.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Self

from benchmarks import child
from benchmarks.big_record import FINGERPRINT, SPEC, record_seconds
from benchmarks.child import LOOK_SECONDS
from benchmarks.plain import Settings
from benchmarks.rows import Row, in_turn, median_ratio, medians, tell
from fashion.data.demo import ATTRIBUTES, write_demo
from fashion.record.run import Run
from fashion.spec.sweep_spec import load_spec

TRIALS, EPOCHS = 20, 10
MORE = 0.25  # s
CLICK = "python -c 'import click'"
SHIPPED = "sweeps/backbones.yaml"
SIDE = 64  # px
PLAIN, OURS = "a plain script", "fashion-sweep run"
PLAIN_PREDICTION, PREDICTION = "a plain script that predicts", "fashion-sweep best --predict"


def run(full: bool, data: Path) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        return [*light(full, Path(name)), *whole(full, Path(name))]


def light(full: bool, folder: Path) -> list[Row]:
    storage = folder / "runs"
    write_record(storage)
    commands = {
        CLICK: ("-c", "import click"),
        "fashion-sweep --help": ("-m", "fashion", "--help"),
        "fashion-sweep ls": ("-m", "fashion", "ls", "--storage", str(storage)),
        "fashion-sweep show": ("-m", "fashion", "show", "--storage", str(storage)),
        "fashion-sweep check": ("-m", "fashion", "check", SHIPPED),
    }
    contenders = {name: lambda words=words: child.python(*words).seconds for name, words in commands.items()}
    in_turn(contenders, 1)  # compiles and brings the files into memory
    rounds = 25 if full else 5
    tell(f"{rounds} rounds")
    figures = in_turn(contenders, rounds)
    more = {
        name: [ours - click for ours, click in zip(values, figures[CLICK], strict=True)]
        for name, values in figures.items()
    }
    rows = [Row("start", CLICK, medians(figures)[CLICK], "s")]
    for name, value in medians(more).items():
        if name != CLICK:
            ratio = median_ratio(figures, name, CLICK)
            rows.append(Row("start", f"{name}: more", value, "s", ratio, f"value <= {MORE:g}", value <= MORE))
    return rows


def whole(full: bool, folder: Path) -> list[Row]:
    """Commands that load torch, and one that starts Ray."""
    root = write_demo(folder / "data", train=200, val=100, test=150, size=SIDE)
    settings = Settings(0, 0.01, 1e-4, 0.2, 32, 1, SIDE)
    (folder / "one.yaml").write_text(
        f"data: {{root: {root}, resize: {SIDE}, crop: {SIDE}}}\nmodel: {{backbone: resnet18, weights: none}}\n"
        f"train: {{epochs: 1, lr: {settings.lr}, weight_decay: {settings.weight_decay}}}\nsearch: {{trials: 1}}\n"
    )
    environment = {"FASHION_CACHE": str(folder / "cache")}
    given = {"settings": asdict(settings), "root": str(root), "weights": str(folder / "plain.pt")}
    number = itertools.count()
    firsts: dict[str, list[float]] = {PLAIN: [], OURS: []}
    latest = ""

    def plain_script() -> float:
        notes = folder / f"notes{next(number)}"
        notes.mkdir()
        started = time.time()
        ended = child.module("once", {**given, "mode": "train", "notes": str(notes)}, folder)
        firsts[PLAIN].append(child.notes(notes)[0]["time"] - started)
        return ended.seconds

    def sweep() -> float:
        nonlocal latest
        latest = f"one{next(number)}"
        with Written(folder / "runs" / latest / "journal.jsonl", b'"report"') as written:
            words = ("-m", "fashion", "run", str(folder / "one.yaml"), "--storage", str(folder / "runs"))
            ended = child.python(*words, "--name", latest, "--json", **environment)
        firsts[OURS].append(written.seconds)
        return ended.seconds

    def plain_prediction() -> float:
        return child.module("once", {**given, "mode": "predict"}, folder).seconds

    def prediction() -> float:
        words = ("-m", "fashion", "best", latest, "--storage", str(folder / "runs"), "--predict")
        return child.python(*words, **environment).seconds

    contenders = {PLAIN: plain_script, OURS: sweep, PLAIN_PREDICTION: plain_prediction, PREDICTION: prediction}
    for contender in contenders.values():  # makes the cache, measures precisions, compiles
        contender()
    for times in firsts.values():
        times.clear()
    figures = in_turn(contenders, 5 if full else 2)
    rows = []
    for plain, ours, measured, most, what in (
        (PLAIN, OURS, firsts, 1.8, "first report"),
        (PLAIN, OURS, figures, 2.0, "whole"),
        (PLAIN_PREDICTION, PREDICTION, figures, 2.0, "whole"),
    ):
        ratio, values = median_ratio(measured, ours, plain), medians(measured)
        rows.append(Row("start", f"{plain}: {what}", values[plain], "s"))
        rows.append(Row("start", f"{ours}: {what}", values[ours], "s", ratio, f"ratio <= {most:g}", ratio <= most))
    return rows


class Written:
    """Inside, follows a file until it holds `text`: `seconds` says how long that took."""

    def __init__(self, path: Path, text: bytes) -> None:
        self.path, self.text, self.seconds = path, text, math.nan
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _follow(self) -> None:
        while not self.ended.wait(LOOK_SECONDS):
            if self.path.exists() and self.text in self.path.read_bytes():
                self.seconds = time.perf_counter() - self.started
                return


def write_record(storage: Path) -> None:
    """A finished sweep."""
    storage.mkdir()
    path = storage.with_suffix(".yaml")
    path.write_text(SPEC.format(name="small", trials=TRIALS, epochs=EPOCHS, storage=storage))
    spec = load_spec(path)
    counts = [[100] * len(classes) for classes in ATTRIBUTES.values()]
    run = Run.create(
        storage, spec.name,
        {
            "spec": spec.to_json(), "data_root": "data", "data_fingerprint": FINGERPRINT,
            "attributes": [{"name": name, "classes": list(classes)} for name, classes in ATTRIBUTES.items()],
            "label_counts": {"train": counts, "val": counts},
        },
    )  # fmt: skip
    for number in range(TRIALS):
        run.record_trial(number, spec.trial(number).model_dump(mode="json"))
        run.record_attempt(number)
        record_seconds(run, number, EPOCHS, 0.5 + number / TRIALS)
    run.close()
