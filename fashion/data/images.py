"""Image files to square uint8 arrays: decoding, the resize of the challenge report's pipeline, and many at once."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion.errors import DataError, Problem
from fashion.files import usable_cpus

Progress = Callable[[int, int], None]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Listed because Pillow would otherwise try all its plug-ins, one of which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
PAD_COLOUR = (124, 116, 104)  # ImageNet's mean: close to zero once normalised
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# Pillow only warns of images beyond its limit; here they are refused.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def load_rgb(path: str | Path) -> Image.Image:
    """Decode one file to an RGB image; raises DataError where it can't be read or is a decompression bomb.

    EXIF orientation is not applied, as in the challenge report's pipeline. Transparent pixels become white; 16-bit
    greys are scaled to 8 bits.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels, more than {limit}")
            image.load()
            return to_rgb(image)
    except Exception as error:
        # Damaged bytes make Pillow's plug-ins raise almost any exception, so decoding is guarded as a whole.
        raise DataError(
            "An image can't be used:", [Problem(str(path), "must be a complete image", str(error))]
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image of any decoded one, as `load_rgb` makes it."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image).astype(np.float64)
        grey = grey / 257 if grey.max(initial=0) > 255 else grey
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize_square(image: Image.Image, size: int, fit: str, interpolation: str) -> NDArray[np.uint8]:
    """Resize an RGB image to a square: (size, size, 3) uint8.

    `stretch` equals torchvision's Resize((size, size)) on the PIL image. `pad` scales the longer side to `size` and
    centres the result on ImageNet's mean colour.
    """
    if fit == "stretch":
        return np.asarray(image.resize((size, size), _FILTERS[interpolation]))
    if fit != "pad":
        raise ValueError(f"fit is stretch or pad, not {fit!r}")
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    square = Image.new("RGB", (size, size), PAD_COLOUR)
    square.paste(image.resize((width, height), _FILTERS[interpolation]), ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


def decode_into(
    images: NDArray[np.uint8],
    checksums: NDArray[np.uint32],
    root: Path,
    names: Sequence[str],
    fit: str,
    interpolation: str,
    progress: Progress | None,
) -> None:
    """Decode and resize all images into `images` (N, S, S, 3), and the CRC-32 of each into `checksums` (N,).

    There is one thread per CPU, since Pillow releases the interpreter lock. Raises DataError listing every image that
    can't be used.
    """

    def decode(row: int) -> Problem | None:
        try:
            images[row] = resize_square(load_rgb(root / names[row]), images.shape[1], fit, interpolation)
        except DataError as error:
            return error.problems[0]
        checksums[row] = zlib.crc32(images[row])
        return None

    problems = []
    pool = ThreadPoolExecutor(usable_cpus())
    try:
        for done, problem in enumerate(pool.map(decode, range(len(names))), start=1):
            if problem is not None:
                problems.append(problem)
            if progress is not None:
                progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for thousands of images
    if problems:
        raise DataError("Images can't be used:", problems)
