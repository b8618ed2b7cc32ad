"""What it takes until a light command has answered: wall time of a process, beyond that of `python -c 'import click'`.

`--help` lists every command; `check` reads one of the shipped specs; `ls` and `show` read a record of 20 trials of 10
epochs, written here through the package's own API. Each is a process with the interpreter's start in its time, in turn.

value: seconds more than the import of click, the median over rounds; ratio: to the import of click.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import child
from benchmarks.big_record import FINGERPRINT, SPEC, record_seconds
from benchmarks.rows import Row, in_turn, median_ratio, medians, tell
from fashion.data.demo import ATTRIBUTES
from fashion.record.run import Run
from fashion.spec.sweep_spec import load_spec

TRIALS, EPOCHS = 20, 10
MORE = 0.25  # s
CLICK = "python -c 'import click'"
SHIPPED = "sweeps/backbones.yaml"


def run(full: bool, data: Path) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        storage = Path(name) / "runs"
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
        rounds = 25 if full else 7
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
