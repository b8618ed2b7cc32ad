"""Data sets that nobody here made: other numbers of attributes, other images, names and line ends, many lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion.cli.main import main
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.record.run import Run
from tests.support.foreign import promoted_run
from tests.support.typed import told

Shell = pytest.CaptureFixture[str]
SIDE = 24


def write(root: Path, names: dict[str, list[str]], heads: int, classes: int = 3, newline: str = "\n") -> Path:
    """A data set of which each split has these images, drawn in a colour that its first label decides."""
    (root / "split").mkdir(parents=True)
    for split, images in names.items():
        rows = [[(number + head) % classes for head in range(heads)] for number in range(len(images))]
        for name, row in zip(images, rows, strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            colour = [(255, 0, 0), (0, 255, 0), (0, 0, 255)][row[0] % 3]
            Image.new("RGB", (SIDE, SIDE), colour).save(root / name)
        (root / f"split/{split}.txt").write_bytes((newline.join(images) + newline).encode())
        labels = newline.join(" ".join(map(str, row)) for row in rows) + newline
        if split != "test":
            (root / f"split/{split}_attr.txt").write_bytes(labels.encode())
    return root


def numbered(counts: dict[str, int], suffix: str = "png") -> dict[str, list[str]]:
    return {split: [f"img/{split}{number}.{suffix}" for number in range(count)] for split, count in counts.items()}


COUNTS = {"train": 24, "val": 12, "test": 6}


def predicted(run: Run, capsys: Shell) -> list[list[int]]:
    """The rows of the submission that the real `best --predict` writes for the test images."""
    said = told(capsys, "best", run.path.name, "--predict", "--storage", str(run.path.parent), code=0)
    assert "read back and validated" in said
    text = (run.predictions_dir / "test" / "prediction.txt").read_text()
    return [[int(word) for word in line.split(" ")] for line in text.splitlines()]


@pytest.mark.parametrize(("heads", "classes"), [(1, 3), (40, 2)])
def test_one_attribute_and_forty(heads: int, classes: int, tmp_path: Path, capsys: Shell) -> None:
    root = write(tmp_path / "data", numbered(COUNTS), heads, classes)
    assert told(capsys, "data", "check", str(root), code=0)
    assert len(json.loads(told(capsys, "data", "stats", str(root), "--json", code=0))["attributes"]) == heads
    run = promoted_run(root, tmp_path / "runs")
    rows = predicted(run, capsys)
    assert len(rows) == COUNTS["test"]
    assert {len(row) for row in rows} == {heads}
    assert all(0 <= label < classes for row in rows for label in row)
    assert "attribute1" in told(capsys, "best", run.path.name, "--storage", str(run.path.parent), code=0)
    told(capsys, "show", run.path.name, "--trial", "0", "--storage", str(run.path.parent), code=0)


NAMES = [
    "img/with a space.png",
    "img/mañana/näh Kleid №1.PNG",
    "img/連衣裙.JpEg",
    "img/  two  blanks.JPG",
    "img/#hash & 'quotes'.png",
    "img/[bold]markup[/].png",
    "img/%s {0} $HOME.png",
    "-leading/dash.png",
]


def test_names_with_spaces_other_alphabets_and_upper_case(tmp_path: Path, capsys: Shell) -> None:
    splits = {split: [f"{split}/{name}" for name in NAMES] for split in ("train", "val", "test")}
    unix = write(tmp_path / "unix", splits, 2)
    root = write(tmp_path / "ein Ordner mit Ümläuten", splits, 2, newline="\r\n")
    assert {name: list(each.images) for name, each in read_dataset(root).splits.items()} == splits
    assert read_dataset(root).fingerprint() == read_dataset(unix).fingerprint()
    told(capsys, "data", "check", str(root), code=0)
    run = promoted_run(root, tmp_path / "runs")
    assert len(predicted(run, capsys)) == len(NAMES)
    # The same names from the folder itself, and as `data pack` keeps them.
    main(
        [
            "best",
            run.path.name,
            "--predict",
            "--images",
            str(root / "test"),
            "--storage",
            str(run.path.parent),
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out)["predictions"]["images"] == len(NAMES)
    assert Pack.open_or_build(read_dataset(root), "test", SIDE).names == splits["test"]


def test_byte_order_marks_blanks_at_line_ends_and_headers(tmp_path: Path, capsys: Shell) -> None:
    plain = write(tmp_path / "plain", numbered(COUNTS), 2)
    odd = write(tmp_path / "odd", numbered(COUNTS), 2)
    for path in (odd / "split").iterdir():
        head = "colour\theat" if path.name.endswith("_attr.txt") else "file"
        lines = "\r\n".join([head, *(f"{line}  \t" for line in path.read_text().splitlines())])
        path.write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"\r\n\r\n")
    told(capsys, "data", "check", str(odd), code=0)
    one, other = read_dataset(plain), read_dataset(odd)
    for split in COUNTS:
        assert one.splits[split].images == other.splits[split].images
    assert np.array_equal(one.labels("train"), other.labels("train"))
    assert other.attribute_names == ("colour", "heat")


def odd_images() -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    """name -> the same half dark, half light square in another mode or container, and how to save it"""
    grey = np.full((SIDE, SIDE), 40, np.uint8)
    grey[:, SIDE // 2 :] = 200
    image = Image.fromarray(grey)
    rgb = image.convert("RGB")
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    alpha = rgb.copy()
    alpha.putalpha(255)
    ramp = Image.fromarray(grey.astype(np.float32))
    return {
        "rgb.png": (rgb, {}),
        "grey.png": (image, {}),
        "grey.jpg": (image, {"quality": 100}),
        "rgba.png": (alpha, {}),
        "la.png": (alpha.convert("LA"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 100, "subsampling": 0}),
        "16-bit.png": (wide, {}),
        "16-bit.tif": (wide, {}),
        "palette.png": (rgb.convert("P", palette=Image.Palette.ADAPTIVE), {}),
        "one-bit.bmp": (image.point(lambda value: 255 * (value > 100)).convert("1"), {}),
        "float.tif": (ramp, {}),
        "animated.gif": (rgb.quantize(16), {"save_all": True, "append_images": [Image.new("P", rgb.size)] * 3}),
        "animated.webp": (rgb, {"save_all": True, "append_images": [Image.new("RGB", rgb.size)] * 3, "lossless": True}),
        "animated.png": (rgb, {"save_all": True, "append_images": [Image.new("RGB", rgb.size)] * 3}),
        "pages.tif": (rgb, {"save_all": True, "append_images": [Image.new("RGB", rgb.size)] * 3}),
        "progressive.jpg": (rgb, {"progressive": True, "quality": 100, "subsampling": 0}),
        "interlaced.webp": (rgb, {"lossless": True}),
        "exif.jpg": (rgb.transpose(Image.Transpose.ROTATE_90), {"exif": _turned(), "quality": 100, "subsampling": 0}),
    }


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    return exif


def test_images_of_every_mode_become_the_same_pixels(tmp_path: Path, capsys: Shell) -> None:
    """The first frame of animations, white behind what is transparent, 16 bits as 8."""
    images = odd_images()
    splits = {
        "train": [f"img/{name}" for name in images],
        "val": ["img/rgb.png"],
        "test": [f"img/{name}" for name in images],
    }
    root = write(
        tmp_path / "data", {split: [n.rsplit(".")[0] + ".png" for n in names] for split, names in splits.items()}, 1
    )
    for name, (image, options) in images.items():
        image.save(root / "img" / name, **options)
    for split, names in splits.items():
        (root / f"split/{split}.txt").write_text("\n".join(names) + "\n")
    told(capsys, "data", "check", str(root), code=0)
    pack = Pack.open_or_build(read_dataset(root), "train", SIDE)
    middle = pack.images[:, SIDE // 4 : -SIDE // 4]
    for name, pixels in zip(images, middle, strict=True):
        dark, light = pixels[:, : SIDE // 2 - 4], pixels[:, SIDE // 2 + 4 :]
        expected = (0, 255) if name == "one-bit.bmp" else (40, 200)
        assert abs(dark.astype(int) - expected[0]).max() <= 3, name
        assert abs(light.astype(int) - expected[1]).max() <= 3, name
    assert len(predicted(promoted_run(root, tmp_path / "runs"), capsys)) == len(images)


@pytest.mark.slow
def test_ten_times_the_lines_take_proportionate_time_and_memory(tmp_path: Path) -> None:
    """Ten times the lines: ten times the calls of functions (a clock would not say the same twice), and less than a
    kilobyte a line more."""
    images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(100)]
    used: dict[int, tuple[float, float]] = {}
    program = (
        "import cProfile, pstats, sys\nfrom fashion.data.layout import read_dataset\n"
        "with cProfile.Profile() as profile:\n"
        "    dataset = read_dataset(sys.argv[1])\n"
        "    dataset.fingerprint(), dataset.label_counts('train')\n"
        "print(len(dataset.splits['train']), pstats.Stats(profile).total_calls,"
        " *[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    for lines in (3_000, 30_000):
        root = tmp_path / str(lines)
        (root / "split").mkdir(parents=True)
        for folder in range(lines // 1000):
            (root / f"img/{folder}").mkdir(parents=True)
            for number, image in enumerate(images):
                image.save(root / f"img/{folder}/{number}.png")
        listed = [f"img/{line // 1000}/{line % 100}.png" for line in range(lines)]
        for split, names in (("train", listed), ("val", listed[:10])):
            (root / f"split/{split}.txt").write_text("\n".join(names) + "\n")
            (root / f"split/{split}_attr.txt").write_text("".join(f"{n % 3} {n % 7}\n" for n in range(len(names))))
        ended = subprocess.run(
            [sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True, timeout=300,
            env={**os.environ, "FASHION_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        count, calls, kilobytes = ended.stdout.split()
        assert int(count) == lines
        used[lines] = float(calls), float(kilobytes)
    assert used[30_000][0] < 11 * used[3_000][0], used
    assert used[30_000][1] - used[3_000][1] < 30_000, used


def test_what_is_said_of_many_broken_lines_is_short(tmp_path: Path, capsys: Shell) -> None:
    root = write(tmp_path / "data", numbered(COUNTS), 2)
    (root / "split/train.txt").write_text("".join(f"img/none{n}.png\n" for n in range(30_000)))
    (root / "split/train_attr.txt").write_text("0 9\n" * 29_999)
    said = told(capsys, "run", str(spec(tmp_path, root)))
    assert len(said.splitlines()) < 200
    assert "and 29980 more of kind 'missing'" in said
    assert not (tmp_path / "runs").exists()


def spec(folder: Path, root: Path) -> Path:
    path = folder / "s.yaml"
    path.write_text(
        f"storage: {folder / 'runs'}\ndata: {{root: {root}, resize: {SIDE}, crop: {SIDE}}}\n"
        "model: {backbone: tiny, weights: none}\n"
    )
    return path
