"""Images/s of the predict job's core on real images, from JPEG and from the image cache.

EfficientNet-Lite0 with its ImageNet weights at 224 px, with as many torch threads as cores, as the job sets them. Ours
is `fashion.prediction.predict.predict`, probabilities on the host included; from JPEG the image cache is made first, in
a new folder, as the job does with images that it has not seen. The bare pass is the model's forward on one resident
batch, again and again, in the fastest of both memory layouts and a few batch sizes, found by trying; in fp32, since
predictions must equal validation's to the last bit. The report's loop is a DataLoader of PIL images at the report's
batch size.

Full: the 7,000 images of all splits. Short: the first few hundred.

ratio: of each to the bare pass; ours from JPEG also to the report's loop.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks import child
from benchmarks.case import Case, threads
from benchmarks.original import ReportModel, predicted
from benchmarks.plain import Photos
from benchmarks.rows import Row, in_turn, median_ratio, medians, seconds, tell
from benchmarks.training import timed
from fashion.data.layout import Dataset, Split, read_dataset
from fashion.data.pack import Pack
from fashion.model.classifier import MultiHeadClassifier, build_model
from fashion.model.pretrained.weights import resolve_weights
from fashion.prediction.predict import predict
from fashion.prediction.promoted import Promoted

CORES = 2
CASE = Case("efficientnet_lite0", 224, 224, 32)
BATCHES = (8, 16, 32, 64)  # of the bare pass
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
TRIES, TRIED = 2, 64  # rounds that find its fastest, and the images of each
CPU = torch.device("cpu")
CACHE, JPEG, REPORT = "ours, from cache", "ours, from JPEG", "the report's loop"
OF_BARE = 0.95
ALL = "all"


def run(full: bool, data: Path) -> list[Row]:
    dataset = read_dataset(data)
    images = tuple(itertools.chain.from_iterable(split.images for split in dataset.splits.values()))
    some = Dataset(dataset.root, dataset.attributes, {ALL: Split(ALL, images if full else images[:256], None)})
    with tempfile.TemporaryDirectory(prefix="predict-") as name, child.cores(CORES), threads(CORES):
        return measured(some, Path(name), 3)


def measured(dataset: Dataset, folder: Path, rounds: int) -> list[Row]:
    config = CASE.config(weights="imagenet")
    model = build_model(config.model, dataset.class_counts, resolve_weights(config.model)).eval()
    backbone = copy.deepcopy(model.backbone)
    model = model.to(memory_format=torch.channels_last)  # as load_promoted leaves it
    promoted = Promoted("benchmark", 0, 1, config, dataset.attributes, dataset.fingerprint(), {})
    tell("filling the cache")
    pack = Pack.open_or_build(dataset, ALL, CASE.resize, cache_dir=folder)
    count = len(pack)

    def from_jpeg() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            predict(model, promoted, Pack.open_or_build(dataset, ALL, CASE.resize, cache_dir=empty))

    theirs = ReportModel(backbone, model.feature_count, dataset.class_counts)
    photos = Photos(dataset.root, dataset.splits[ALL], CASE.resize, train=False, crop=CASE.side)
    loader = DataLoader(photos, CASE.batch, num_workers=CORES, persistent_workers=True)
    tell("looking for the fastest bare pass")
    limit, forward, size = bare_pass(model)
    contenders: dict[str, Callable[[], float]] = {
        CACHE: lambda: count / seconds(lambda: predict(model, promoted, pack)),
        limit: lambda: size / timed(forward, max(count // size, 1), CPU),
        JPEG: lambda: count / seconds(from_jpeg),
        REPORT: lambda: count / seconds(lambda: predicted(theirs, loader)),
    }
    figures = in_turn(contenders, rounds)
    ratios = {name: median_ratio(figures, name, limit) for name in contenders}
    rows = []
    for name, value in medians(figures).items():
        wanted = (f"ratio >= {OF_BARE:g}", ratios[name] >= OF_BARE) if name == CACHE else (None, None)
        rows.append(Row("predict", name, value, "images/s", ratios[name], *wanted))
    gain = median_ratio(figures, JPEG, REPORT)
    return [*rows, Row("predict", f"{JPEG}, to {REPORT}", gain, "x", gain)]


def bare_pass(model: MultiHeadClassifier) -> tuple[str, Callable[[], None], int]:
    """The fastest forward pass: its name, itself, and the images of its batch."""
    passes: dict[str, tuple[Callable[[], None], int]] = {}
    for name, layout in LAYOUTS.items():
        network = copy.deepcopy(model).to(memory_format=layout)
        for size in BATCHES:
            images = torch.randn(size, 3, CASE.side, CASE.side).to(memory_format=layout)
            passes[f"bare pass (fp32 {name}, batch {size})"] = (forward_of(network, images), size)
    for forward, _ in passes.values():
        forward()
    trials = in_turn({name: lambda f=f, n=n: n / timed(f, TRIED // n, CPU) for name, (f, n) in passes.items()}, TRIES)  # type: ignore[misc]
    middle = medians(trials)
    name = max(middle, key=lambda name: middle[name])
    return name, *passes[name]


def forward_of(network: MultiHeadClassifier, images: torch.Tensor) -> Callable[[], None]:
    @torch.inference_mode()
    def forward() -> None:
        network(images)

    return forward
