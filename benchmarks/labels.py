"""What it takes to read a label file of a million lines, in the short form a quarter of that: seconds and peak memory,
each reader in a process of its own.

Ours tells the columns apart, finds the classes, makes the matrix of labels, and looks at every line's image on the
disk; without that last step, too. pandas reads the columns as categories and makes the same matrix of codes. Hugging
Face `datasets` encodes the label columns as classes; it is left out where it is not installed.

value: seconds for each million lines, and MB of the peak above what the imports hold; ratio: to pandas, of the same
round.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import child
from benchmarks.rows import Row, in_turn, median_ratio, medians, tell

LINES, FEW = 1_000_000, 250_000  # of the long form and of the short one
IMAGES = 1_000  # files; each is named by a thousand lines
MOST_SECONDS, MOST_MB = 30.0, 1_000.0

MEMORY = """
import json, pathlib, sys, time
def held():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024
path, told = sys.argv[1:]
"""
READERS = {
    "fashion": """
from fashion.data.forms.table import scan_layout
before, begun = held(), time.perf_counter()
scan = scan_layout(path)
assert not scan.problems and sum(map(len, scan.labels.values())) == LINES, scan.problems[:3]
""",
    "fashion, images not looked at": """
from fashion.data.forms import label_file
from fashion.data.forms.table import scan_layout
label_file.look_at = lambda scan, place, image: None
before, begun = held(), time.perf_counter()
scan = scan_layout(path)
assert not scan.problems and sum(map(len, scan.labels.values())) == LINES, scan.problems[:3]
""",
    "pandas": """
import numpy as np, pandas
before, begun = held(), time.perf_counter()
names = [f"attribute{n}" for n in range(6)]
frame = pandas.read_csv(path, dtype=dict.fromkeys(["split", *names], "category"))
codes = np.stack([frame[name].cat.codes for name in names], axis=1).astype(np.int64)
parts = {name: (frame.file_name[frame.split == name].tolist(), codes[frame.split == name]) for name in ("train", "val")}
assert len(codes) == LINES
""",
    "datasets": """
import tempfile, numpy as np, datasets
datasets.disable_progress_bars()
before, begun = held(), time.perf_counter()
with tempfile.TemporaryDirectory() as cache:
    found = datasets.load_dataset("csv", data_files=path, split="train", cache_dir=cache)
    names = [f"attribute{n}" for n in range(6)]
    for name in names:
        found = found.class_encode_column(name)
    codes = np.stack([found.with_format("numpy")[name][:] for name in names], axis=1)
    assert len(codes) == LINES
""",
}
TOLD = """
pathlib.Path(told).write_text(json.dumps([time.perf_counter() - begun, before]))
"""


def run(full: bool, data: Path) -> list[Row]:
    readers = [name for name in READERS if name != "datasets" or importlib.util.find_spec("datasets") is not None]
    with tempfile.TemporaryDirectory(prefix="labels-") as name:
        lines = LINES if full else FEW
        path = write_labels(Path(name), lines)
        memory: dict[str, list[float]] = {reader: [] for reader in readers}

        def measured(reader: str) -> float:
            code = f"LINES = {lines}\n{MEMORY}{READERS[reader]}{TOLD}"
            told = path.with_name("told.json")
            ended = child.python("-c", code, str(path), str(told))
            seconds, before = json.loads(told.read_text())
            memory[reader].append((ended.peak - before) / 1e6)
            return float(seconds) * 1e6 / lines

        rounds = 5 if full else 2
        tell(f"{rounds} rounds of {lines:,} lines, {path.stat().st_size / 1e6:.0f} MB")
        figures = in_turn({reader: partial(measured, reader) for reader in readers}, rounds)
    rows = []
    for figure, unit, most in ((figures, "s per million lines", MOST_SECONDS), (memory, "MB", MOST_MB)):
        for reader, value in medians(figure).items():
            ratio = median_ratio(figure, reader, "pandas")
            ours = reader == "fashion"
            rows.append(Row("labels", reader, value, unit, ratio, f"value <= {most:g}" if ours else None,
                            value <= most if ours else None))  # fmt: skip
    return rows


def write_labels(folder: Path, lines: int) -> Path:
    """A label file of six attributes with 5 to 10 classes, 3 % of the labels missing, and the files that it names."""
    (folder / "img").mkdir()
    for number in range(IMAGES):
        (folder / f"img/{number:06}.jpg").touch()
    path = folder / "labels.csv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("file_name,split," + ",".join(f"attribute{n}" for n in range(6)) + "\n")
        for number in range(lines):
            cells = (
                "" if (number * 7 + n) % 33 == 0 else f"class{(number * (n + 3) // 11) % (5 + n)}" for n in range(6)
            )
            file.write(f"img/{number % IMAGES:06}.jpg,{'val' if number % 5 == 0 else 'train'},{','.join(cells)}\n")
    return path
