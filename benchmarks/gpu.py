"""Training images/s on a CUDA device: the report's loop, ours and the bare limit, over torchvision's backbones.

    python -m benchmarks.gpu [--json FILE] [--data ROOT] [--batch 32] [--backbones NAME...] [--compile MODE]

Needs torch, torchvision and this package, but neither Ray nor timm. Without `--data` the images are drawn. Sizes are
those that each backbone's ImageNet weights were made for, 320 cropped to 300 px for EfficientNet-B3; weights are
random. How the contenders take turns is told in `benchmarks.training`: blocks of 25 steps, the device awaited only at
their ends.

The report's loop is there twice: on one resident batch, in plain fp32 and NCHW with torch's defaults (TF32 in
convolutions), and fed by its own DataLoader with 4 processes, a whole epoch after one that warms up. Ours is `fit` with
its cache, its augmentation on the device and what `auto` finds; with `--compile`, in that mode of torch.compile.

ratio: of ours, to the report's resident loop; in the limit's row, of ours to the limit; in the last, of ours to the
report's with its DataLoader.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.case import Case, first_images
from benchmarks.original import ReportModel, training_step
from benchmarks.plain import Photos
from benchmarks.rows import Row, medians
from benchmarks.training import OURS, REPORT, measure, rows_of, synchronize
from fashion.data.batches import steps_per_epoch
from fashion.data.demo import write_demo
from fashion.data.layout import Dataset, Split, read_dataset
from fashion.model.backbones import BACKBONES, row
from fashion.model.network import make_backbone

BLOCK, ROUNDS = 25, 6
PROCESSES = 4  # the report's num_workers
VAL_IMAGES = 32
OF_LIMIT = 0.97


def cases(names: Sequence[str], batch: int) -> list[Case]:
    found = []
    for name in names:
        side = row(name).native_size
        found.append(Case(name, 320 if name == "efficientnet_b3" else side, side, batch))
    return found


def with_loader(case: Case, dataset: Dataset, count: int, device: torch.device) -> float:
    """Images/s of the report's loop on `count` images that its DataLoader reads."""
    split = Split("train", dataset.splits["train"].images[:count], dataset.labels("train")[:count])
    photos = Photos(dataset.root, split, case.resize, train=True, crop=case.side)
    loader = DataLoader(
        photos, case.batch, shuffle=True, num_workers=PROCESSES, persistent_workers=True, drop_last=True
    )
    model = ReportModel(*make_backbone(row(case.backbone), case.model.drop_path), dataset.class_counts).to(device)
    step = training_step(model, device)
    started = 0.0
    for _ in range(2):
        synchronize(device)
        started = time.perf_counter()
        for images, targets in loader:
            step(images, targets)
        synchronize(device)
    return len(loader) * case.batch / (time.perf_counter() - started)


def run(case: Case, dataset: Dataset, compiled: str) -> list[Row]:
    device = torch.device("cuda")
    count = (BLOCK + 1) * case.batch
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        images = first_images(dataset, case, count, VAL_IMAGES, folder / "cache")
        block = min(BLOCK, steps_per_epoch(len(images.train), case.batch) - 1)
        found = measure(case, images, folder / "trial", device, ROUNDS, block, compiled)
    torch.cuda.empty_cache()
    loaded = with_loader(case, dataset, count, device)
    torch.cuda.empty_cache()
    gain = medians(found.figures)[OURS] / loaded
    last = Row("gpu", f"{case}: {REPORT} with its DataLoader", loaded, "images/s", gain)
    return [*rows_of("gpu", case, found, 1.0, OF_LIMIT), last]


def main() -> None:
    known = [name for name, entry in BACKBONES.items() if entry.source == "torchvision"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--data", type=Path, help="a data set; without it images are drawn")
    parser.add_argument("--batch", type=int, default=32, help="images a batch (32, the report's)")
    parser.add_argument("--backbones", nargs="+", choices=known, default=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--compile", choices=("none", "default", "reduce-overhead"), default="none", help="of ours")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu measures a CUDA device, and torch finds none on this machine.", file=sys.stderr)
        raise SystemExit(2)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-") as name:
            count = (BLOCK + 1) * given.batch
            root = given.data or write_demo(Path(name) / "drawn", train=count, val=VAL_IMAGES, test=16, size=320)
            dataset = read_dataset(root)
            for case in cases(given.backbones, given.batch):
                rows += (found := run(case, dataset, given.compile))
                for each in found:
                    ratio = "" if each.ratio is None else f"{each.ratio:8.2f}"
                    print(f"{each.contender:<72}{each.value:10,.0f} {each.unit}{ratio}", flush=True)
    finally:
        if given.json is not None:
            given.json.write_text(json.dumps([each.to_json() for each in rows], indent=2))


if __name__ == "__main__":
    main()
