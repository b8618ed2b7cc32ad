"""A drawn, licence-free data set in the challenge's layout, whose six attributes are visible in the pixels.

Each image shows a mannequin in one garment. Every attribute is sampled independently with unequal class shares, so that
predicting the majority is a baseline worth beating. The same arguments give the same pixels.
"""

from __future__ import annotations

import colorsys
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from fashion.errors import DataError, Problem
from fashion.files import new_folder

# attribute -> class -> share of the images
ATTRIBUTES: dict[str, dict[str, float]] = {
    "pattern": {"solid": 0.42, "striped": 0.22, "checked": 0.15, "dotted": 0.13, "floral": 0.08},
    "sleeve": {"long_sleeve": 0.27, "short_sleeve": 0.24, "sleeveless": 0.49},
    "length": {"maxi_length": 0.16, "mini_length": 0.26, "top_length": 0.58},
    "neckline": {"crew_neckline": 0.45, "v_neckline": 0.32, "square_neckline": 0.09, "off_shoulder": 0.14},
    "fabric": {"cotton": 0.55, "knit": 0.2, "leather": 0.15, "chiffon": 0.1},
    "fit": {"tight": 0.25, "loose": 0.15, "regular": 0.6},
}
EXTRAS: dict[str, float] = {"belt": 0.3, "buttons": 0.35, "pocket": 0.25}  # each may be there or not
_OVERSAMPLE = 2  # images are drawn larger and then reduced, for smooth edges
_HEM = {"top_length": 0.57, "mini_length": 0.71, "maxi_length": 0.94}
_WIDTHS = {
    "tight": (0.125, 0.085, 0.115),
    "regular": (0.15, 0.13, 0.175),
    "loose": (0.185, 0.2, 0.27),
}  # chest, waist, hem


def write_demo(
    root: str | Path,
    train: int = 600,
    val: int = 150,
    test: int = 150,
    size: int = 96,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the data set and return its folder, which appears whole, by a rename. All splits are labelled.

    `train`, `val` and `test` are numbers of images, `size` their side in pixels. Raises DataError where the folder
    exists and is not empty, can't be written, or a number is out of range.
    """
    counts = {"train": train, "val": val, "test": test}
    return new_demo(root, counts, size, lambda folder: _write_all(folder, counts, size, seed, progress))


def new_demo(root: str | Path, counts: Mapping[str, int], size: int, write: Callable[[Path], None]) -> Path:
    """Make the folder `root` of what `write` puts into a folder. Raises DataError as `write_demo` does."""
    root = Path(root)
    most = max(len(classes) for classes in ATTRIBUTES.values())
    problems = [
        Problem(f"--{name}", f"at least {most}, so that every class occurs", str(count))
        for name, count in counts.items()
        if count < most
    ]
    if not 16 <= size <= 1024:
        problems.append(Problem("--size", "16 to 1024 pixels", str(size)))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(
            Problem(str(root), "the folder must be new or empty", fix="Choose another folder, or delete it")
        )
    if problems:
        raise DataError("The demo data set can't be made:", problems)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_folder(root)
    except OSError as error:
        raise DataError(
            "The demo data set can't be made:", [Problem(str(root.parent), "must be writable", str(error))]
        ) from error
    try:
        write(temporary)
        os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it is gone already once it was renamed
    return root


def _write_all(
    folder: Path, counts: dict[str, int], size: int, seed: int, progress: Callable[[int, int], None] | None
) -> None:
    (folder / "img").mkdir()
    (folder / "split").mkdir()
    number, total = 0, sum(counts.values())
    for stream, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, stream])
        labels = np.stack(
            [labels_by_share(rng, count, list(classes.values())) for classes in ATTRIBUTES.values()], axis=1
        )
        images = []
        for row in labels:
            names = {
                attribute: list(classes)[label]
                for (attribute, classes), label in zip(ATTRIBUTES.items(), row, strict=True)
            }
            picture = draw_garment(names, size, np.random.default_rng([seed, stream, number]))
            images.append(f"img/{number:05d}.jpg")
            picture.save(folder / images[-1], quality=92, subsampling=0)
            number += 1
            if progress is not None:
                progress(number, total)
        _write_lines(folder / f"split/{split}.txt", images)
        _write_lines(folder / f"split/{split}_attr.txt", [" ".join(map(str, row)) for row in labels])
    classes_and_groups = [
        f"{name} {group}" for group, classes in enumerate(ATTRIBUTES.values(), start=1) for name in classes
    ]
    _write_lines(folder / "split/list_attr_cloth.txt", classes_and_groups)
    _write_lines(folder / "split/attribute_names.txt", list(ATTRIBUTES))


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def labels_by_share(rng: np.random.Generator, count: int, shares: list[float]) -> np.ndarray:
    """Shuffled labels with the given shares, every class at least once."""
    labels = np.concatenate([np.arange(len(shares)), rng.choice(len(shares), count - len(shares), p=shares)])
    return rng.permutation(labels)


def draw_garment(names: dict[str, str], size: int, rng: np.random.Generator, extras: Sequence[str] = ()) -> Image.Image:
    """Draw one (size, size) RGB image of the named classes; colours, position and scale vary with `rng`. extras: of
    EXTRAS, drawn on top."""
    side = size * _OVERSAMPLE
    hue = rng.random()
    base = _rgb(hue, rng.uniform(0.45, 0.85), rng.uniform(0.4, 0.85))
    accent = _rgb(hue + rng.uniform(0.35, 0.65), rng.uniform(0.05, 0.5), rng.uniform(0.9, 1.0))
    skin = _rgb(rng.uniform(0.05, 0.09), rng.uniform(0.25, 0.5), rng.uniform(0.55, 0.93))
    top, bottom = (np.array(_rgb(rng.random(), rng.uniform(0, 0.12), value)) for value in rng.uniform(0.8, 1.0, 2))
    ramp = np.linspace(0, 1, side)[:, None, None]
    backdrop = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (side, side, 3)) + rng.normal(0, 2, (side, side, 1))
    picture = Image.fromarray(backdrop.clip(0, 255).astype(np.uint8))
    pen = _Pen(side, 0.5 + rng.uniform(-0.04, 0.04), rng.uniform(-0.02, 0.02), rng.uniform(0.92, 1.04))
    _mannequin(picture, pen, skin)
    garment = _mask(pen, names)
    cloth = _fabric(_pattern(names["pattern"], side, base, accent, rng), names["fabric"], rng)
    opacity = garment.point([round(value * 0.62) for value in range(256)]) if names["fabric"] == "chiffon" else garment
    picture.paste(cloth, (0, 0), opacity)
    grown = ImageChops.subtract(garment, ImageChops.offset(garment, 0, max(1, side // 90)))
    picture.paste(
        tuple(int(channel * 0.45) for channel in base), (0, 0), grown.point([value // 2 for value in range(256)])
    )
    for extra in extras:
        _draw_extra(picture, pen, extra)
    return picture.resize((size, size), Image.Resampling.BOX)


def _draw_extra(picture: Image.Image, pen: _Pen, extra: str) -> None:
    """Draw something on the garment, dark with a bright edge, so that it shows on any cloth."""
    dark, bright = (25, 22, 30), (240, 230, 200)
    if extra == "belt":
        pen.polygon(picture, [(-0.13, 0.425), (0.13, 0.425), (0.13, 0.465), (-0.13, 0.465)], dark)
        pen.polygon(picture, [(-0.025, 0.42), (0.025, 0.42), (0.025, 0.47), (-0.025, 0.47)], bright)
    elif extra == "buttons":
        for y in (0.28, 0.33, 0.38, 0.49, 0.54):
            pen.ellipse(picture, 0.0, y, 0.016, 0.016, bright)
            pen.ellipse(picture, 0.0, y, 0.010, 0.010, dark)
    else:
        pen.polygon(picture, [(0.03, 0.27), (0.1, 0.27), (0.1, 0.36), (0.03, 0.36)], bright)
        pen.polygon(picture, [(0.04, 0.28), (0.09, 0.28), (0.09, 0.35), (0.04, 0.35)], dark)


class _Pen:
    """Draws in the figure's own coordinates: x from its middle, y from 0 (head) to 1 (feet)."""

    def __init__(self, side: int, middle: float, shift: float, scale: float) -> None:
        self.side, self.middle, self.shift, self.scale = side, middle, shift, scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            (self.middle + 1.22 * x * self.scale) * self.side,
            (0.5 + (y - 0.5) * self.scale + self.shift) * self.side,
        )

    def polygon(self, image: Image.Image, points: list[tuple[float, float]], fill: int | tuple[int, ...]) -> None:
        ImageDraw.Draw(image).polygon([self.at(x, y) for x, y in points], fill=fill)

    def ellipse(
        self, image: Image.Image, x: float, y: float, rx: float, ry: float, fill: int | tuple[int, ...]
    ) -> None:
        ImageDraw.Draw(image).ellipse([self.at(x - rx, y - ry), self.at(x + rx, y + ry)], fill=fill)


def _mannequin(picture: Image.Image, pen: _Pen, skin: tuple[int, ...]) -> None:
    pen.ellipse(picture, 0, 0.1, 0.05, 0.075, skin)
    pen.polygon(picture, [(-0.03, 0.14), (0.03, 0.14), (0.045, 0.235), (-0.045, 0.235)], skin)
    pen.polygon(
        picture, [(-0.14, 0.225), (0.14, 0.225), (0.09, 0.44), (0.125, 0.57), (-0.125, 0.57), (-0.09, 0.44)], skin
    )
    for sign in (-1, 1):
        pen.polygon(picture, _limb(sign, 0.0, 1.0, 0.028, 0.02), skin)
        pen.polygon(
            picture, [(sign * 0.01, 0.55), (sign * 0.125, 0.55), (sign * 0.085, 0.98), (sign * 0.035, 0.98)], skin
        )


def _limb(sign: int, start: float, end: float, upper: float, lower: float) -> list[tuple[float, float]]:
    """An arm's outline from `start` to `end` of its length, with half widths at shoulder and hand."""
    x0, y0, x1, y1 = 0.145, 0.245, 0.25, 0.62
    along = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t, upper + (lower - upper) * t) for t in (start, end)]
    (xa, ya, wa), (xb, yb, wb) = along
    return [(sign * (xa - wa), ya), (sign * (xa + wa), ya), (sign * (xb + wb), yb), (sign * (xb - wb), yb)]


def _mask(pen: _Pen, names: dict[str, str]) -> Image.Image:
    """A greyscale mask of the garment, shaped by its length, fit, sleeve and neckline."""
    mask = Image.new("L", (pen.side, pen.side))
    chest, waist, hem = _WIDTHS[names["fit"]]
    bottom = _HEM[names["length"]]
    hem += 0.12 * (bottom - 0.57) * (2 if names["fit"] == "loose" else 1)
    shoulder = 0.115 if names["sleeve"] == "sleeveless" else 0.15
    right = [(0.05, 0.215), (shoulder, 0.225), (chest, 0.33), (waist, 0.44), (hem, bottom)]
    pen.polygon(mask, [*right, *((-x, y) for x, y in reversed(right))], 255)
    reach = {"long_sleeve": 0.93, "short_sleeve": 0.36, "sleeveless": 0.0}[names["sleeve"]]
    width = {"tight": 0.036, "regular": 0.046, "loose": 0.066}[names["fit"]]
    for sign in (-1, 1):
        if reach:
            pen.polygon(mask, _limb(sign, -0.05, reach, width, width), 255)
    if names["neckline"] == "crew_neckline":
        pen.ellipse(mask, 0, 0.21, 0.055, 0.035, 0)
    elif names["neckline"] == "v_neckline":
        pen.polygon(mask, [(-0.085, 0.2), (0.085, 0.2), (0, 0.4)], 0)
    elif names["neckline"] == "square_neckline":
        pen.polygon(mask, [(-0.085, 0.2), (0.085, 0.2), (0.085, 0.34), (-0.085, 0.34)], 0)
    else:
        pen.polygon(mask, [(-0.3, 0.15), (0.3, 0.15), (0.3, 0.285), (-0.3, 0.285)], 0)
    return mask


def _pattern(
    name: str, side: int, base: tuple[int, ...], accent: tuple[int, ...], rng: np.random.Generator
) -> Image.Image:
    cloth = Image.new("RGB", (side, side), base)
    draw = ImageDraw.Draw(cloth)
    step = side * rng.uniform(0.085, 0.11)
    start = rng.random()
    offsets = [(index + start) * step for index in range(-2, math.ceil(side / step) + 2)]
    if name == "striped":
        for y in offsets:
            draw.rectangle([0, y, side, y + step * 0.45], fill=accent)
    elif name == "checked":
        half = tuple((a + b) // 2 for a, b in zip(base, accent, strict=True))
        for y in offsets:
            draw.rectangle([0, y, side, y + step * 0.45], fill=half)
        for x in offsets:
            draw.rectangle([x, 0, x + step * 0.45, side], fill=half)
        for x in offsets:
            for y in offsets:
                draw.rectangle([x, y, x + step * 0.45, y + step * 0.45], fill=accent)
    elif name == "dotted":
        radius = step * 0.27
        for row, y in enumerate(offsets):
            for x in offsets:
                middle = x + (step / 2 if row % 2 else 0)
                draw.ellipse([middle - radius, y - radius, middle + radius, y + radius], fill=accent)
    elif name == "floral":
        for y in offsets[::2]:
            for x in offsets[::2]:
                _flower(draw, x + rng.uniform(-0.3, 0.3) * step, y + rng.uniform(-0.3, 0.3) * step, step * 0.42, rng)
    return cloth


def _flower(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    petal, turn = _rgb(rng.choice([0.92, 0.13, 0.55, 0.0]), 0.55, 1.0), rng.uniform(0, 2 * math.pi)
    draw.ellipse([x, y, x + 2.6 * radius, y + 1.3 * radius], fill=(50, 120, 60))
    for index in range(5):
        angle = turn + index * 2 * math.pi / 5
        px, py = x + math.cos(angle) * radius, y + math.sin(angle) * radius
        draw.ellipse([px - radius * 0.7, py - radius * 0.7, px + radius * 0.7, py + radius * 0.7], fill=petal)
    draw.ellipse([x - radius * 0.55, y - radius * 0.55, x + radius * 0.55, y + radius * 0.55], fill=(250, 205, 60))


def _fabric(cloth: Image.Image, name: str, rng: np.random.Generator) -> Image.Image:
    """Give the cloth its surface: plain, ribbed and matt, dark and glossy, or pale and pleated."""
    pixels = np.asarray(cloth).astype(np.float64)
    side = len(pixels)
    y, x = np.mgrid[0:side, 0:side] / side
    if name == "knit":
        zigzag = np.abs(((x + rng.random()) / 0.052) % 1 - 0.5)
        ribs = np.sin(2 * math.pi * (y / 0.05 + 2 * zigzag))
        pixels = pixels * (0.82 + 0.26 * ribs[..., None])
    elif name == "leather":
        gloss = np.exp(-(((x - rng.uniform(0.4, 0.6)) / 0.035) ** 2)) * (
            0.75 + 0.25 * np.sin(2 * math.pi * (3 * y + rng.random()))
        )
        pixels = pixels * 0.42 + 215 * gloss[..., None]
    elif name == "chiffon":
        pleats = 0.5 + 0.5 * np.cos(2 * math.pi * (x / 0.06 + rng.random()))
        pixels = pixels * 0.75 + 64 + 55 * (pleats[..., None] - 0.5)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
