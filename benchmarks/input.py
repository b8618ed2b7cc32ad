"""Images/s delivered to the loop at 300 px by the report's pipeline and by ours, and how long a step waits for them.

- Delivery: whole epochs of real images, iterated and thrown away, on the same two cores. The report's pipeline decodes
  JPEG, resizes to 320 (bicubic), crops to 300, flips, scales and normalises with PIL and torchvision in a DataLoader
  whose processes are kept from epoch to epoch and are running before the first. Ours gathers 300 px crops from the
  image cache: as uint8, the form in which a batch reaches the training device, and as what the loop computes on,
  flipped and normalised floats, on one thread and on two. The cache is in memory in all rounds; filling it is a row of
  its own.
- Waiting: the real `fit` at 128 px on one thread. "Delivery" is all the time that its batch iterator takes in a step;
  "waiting" is the part of it in which the loop stands still until the gathering thread has the next uint8 batch; the
  rest is augmentation on the training device, here the same thread: work that the loop would have to do in any case.

ratio: of ours, to the faster of the report's pipelines.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from torch.utils.data import DataLoader

from benchmarks import child
from benchmarks.case import Case, first_images, threads
from benchmarks.plain import MEAN, STD, Photos
from benchmarks.rows import Row, in_turn, median_ratio, medians, seconds, tell
from fashion.data import batches
from fashion.data.layout import Dataset, Split, read_dataset
from fashion.data.pack import Pack
from fashion.data.views import crop
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.feed import PixelFeed
from fashion.training.loop import TrialInputs, fit

CORES, BATCH = 2, 32
EPOCH = batches.Epoch(1, BATCH, seed=0)
RESIZE, SIDE = 320, 300
PROCESSES = (2, 4)
LEAST = 1.0  # seconds of a measurement; short epochs are repeated
BYTES, FLOATS = "ours, uint8", "ours, normalised float32"
FASTER, SHARE = 10.0, 2.0  # targets: times the report's pipeline, % of a step
SKIPPED = 2  # steps of an epoch that start the gathering thread
Item = TypeVar("Item")


def run(full: bool, data: Path) -> list[Row]:
    dataset = read_dataset(data)
    networks = ("resnet18", "mobilenet_v3_small") if full else ("resnet18",)
    with tempfile.TemporaryDirectory(prefix="input-") as name, child.cores(CORES), warnings.catch_warnings():
        # torch's advice against the report's own 4 processes on 2 cores
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        folder = Path(name)
        rows = delivery(dataset, folder, 5000 if full else 640, 5 if full else 2)
        for network in networks:
            case = Case(network, 128, 128, BATCH)
            rows += waiting(case, dataset, folder / network, 60 if full else 14)
    return rows


def delivery(dataset: Dataset, folder: Path, count: int, rounds: int) -> list[Row]:
    train = dataset.splits["train"]
    split = Split("train", train.images[:count], dataset.labels("train")[:count])
    few = Dataset(dataset.root, dataset.attributes, {"train": split})
    tell(f"filling the cache with {count} images")
    filling = seconds(lambda: Pack.open_or_build(few, "train", RESIZE, cache_dir=folder))
    pack = Pack.open_or_build(few, "train", RESIZE, cache_dir=folder)
    config = Case("resnet18", RESIZE, SIDE, BATCH).config().data

    def uint8() -> Iterable[Any]:
        assert pack.labels is not None
        # The package's own gathering stage; `train_batches` puts augmentation on top of it.
        order = EPOCH.rows(len(pack), 1)
        return batches.prefetched(crop(pack.images, "centre", SIDE), pack.labels, order, batches.CPU)

    def normalised() -> Iterable[Any]:
        return (
            [batch.images] for batch in batches.train_batches(pack, config, batches.Normalization(MEAN, STD), EPOCH)
        )

    contenders: dict[str, Callable[[], float]] = {}
    for processes in PROCESSES:
        photos = Photos(dataset.root, split, RESIZE, train=True, crop=SIDE)
        loader = DataLoader(photos, BATCH, shuffle=True, num_workers=processes, persistent_workers=True)
        contenders[report_name(processes)] = lambda loader=loader: rate(lambda: loader, 1)  # type: ignore[misc]
    contenders[BYTES] = lambda: rate(uint8, 1)
    for number in (1, CORES):
        contenders[float_name(number)] = lambda number=number: rate(normalised, number)  # type: ignore[misc]
    in_turn(contenders, 1)  # starts the loaders' processes, brings the cache into memory
    figures = in_turn(contenders, rounds)
    middle = medians(figures)
    best = max((report_name(processes) for processes in PROCESSES), key=lambda name: middle[name])
    rows = []
    for name, value in middle.items():
        ratio = median_ratio(figures, name, best)
        wanted = (f"ratio >= {FASTER:g}", ratio >= FASTER) if name == BYTES else (None, None)
        rows.append(Row("input", name, value, "images/s", ratio, *wanted))
    return [*rows, Row("input", "ours, filling the cache, once", len(pack) / filling, "images/s")]


def report_name(processes: int) -> str:
    return f"report's pipeline, {processes} processes"


def float_name(number: int) -> str:
    return f"{FLOATS}, {number} thread{'s' if number > 1 else ''}"


def rate(epoch: Callable[[], Iterable[Any]], number: int) -> float:
    """Images/s over whole epochs of batches, whose first part is the images; torch has `number` threads for it."""
    images = 0
    with threads(number):
        started = time.perf_counter()
        while time.perf_counter() - started < LEAST:
            for batch in epoch():
                images += len(batch[0])
        return images / (time.perf_counter() - started)


class Watch:
    """Counts the seconds that an iterator takes to deliver."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        iterator = iter(items)
        while True:
            started = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            yield item


def waiting(case: Case, dataset: Dataset, folder: Path, steps: int) -> list[Row]:
    """Shares of the steps after the first few of an epoch of `fit`, in per cent of their time."""
    delivered, gathered = Watch(), Watch()
    train, prefetched = PixelFeed.train, batches.prefetched
    marks: dict[int, tuple[float, float, float]] = {}

    def on_step(_: int, step: int, __: int) -> None:
        marks[step] = (time.perf_counter(), delivered.seconds, gathered.seconds)

    tell(f"{case}: {steps} steps")
    data = first_images(dataset, case, (SKIPPED + steps) * case.batch, 16, folder / "cache")
    with (
        threads(1),
        mock.patch.object(PixelFeed, "train", lambda self, *given: delivered.over(train(self, *given))),
        mock.patch.object(batches, "prefetched", lambda *given: gathered.over(prefetched(*given))),
    ):
        for _ in fit(TrialInputs(case.config(), data, ResolvedWeights("none"), folder / "trial", on_step=on_step)):
            pass
    first, last = marks[SKIPPED], marks[max(marks)]
    taken, delivery, waited = (after - before for before, after in zip(first, last, strict=True))
    shares = {"delivery": delivery, "of it waiting": waited, "of it augmentation": delivery - waited}
    rows = []
    for name, value in shares.items():
        share = 100 * value / taken
        wanted = (None, None) if name == "of it augmentation" else (f"value <= {SHARE:g}", share <= SHARE)
        rows.append(Row("input", f"{case}: {name}", share, "% of a step", None, *wanted))
    return rows
