"""Image files to square uint8 arrays: decoding, the resize of the challenge report's pipeline, and many at once."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fashion.config.data import Form
from fashion.data.pictures.depth import is_deep, to_bytes
from fashion.data.pictures.formats import opened
from fashion.errors import DataError, Problem, UserError
from fashion.files import usable_cpus

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
PAD_COLOUR = (124, 116, 104)  # ImageNet's mean: close to zero once normalised
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_ORIENTATION = 0x0112  # EXIF
_UPRIGHT = 1
# Pictures of more pixels are decoded one at a time: each takes some hundred megabytes, and there is a thread per CPU.
_LARGE = 40_000_000
_one_large = threading.Lock()
AHEAD = 8  # images that are under way at a time, for each thread


def load_rgb(path: str | Path, orientation: str = "apply", depth: str = "declared") -> Image.Image:
    """Decode one file, whatever its name ends in, to an RGB image.

    orientation: apply turns the image as its EXIF orientation says; ignore leaves it as it is stored. depth: how deep
    greys become bytes (`pictures.depth`). Transparent pixels become white. Raises DataError where it can't be read, is
    no picture, or is beyond the limit of pixels.
    """
    return decoded(path, orientation, depth).rgb


class Decoded(NamedTuple):
    """turned: the file has an EXIF orientation that turns or mirrors it. deep: greys of more than 8 bits, or floats."""

    rgb: Image.Image
    turned: bool
    deep: bool


def decoded(path: str | Path, orientation: str = "apply", depth: str = "declared") -> Decoded:
    """As `load_rgb`, with what is unusual of the file."""
    try:
        with opened(path) as image:
            before = orientation_of(image)  # a TIFF's, which Pillow applies, and forgets, when it loads the pixels
            with _one_large if image.width * image.height > _LARGE else nullcontext():
                image.load()
                turned = max(before, orientation_of(image)) != _UPRIGHT  # a PNG may tell only after its pixels
                rgb = to_rgb(ORIENTATIONS[orientation](image), depth)
                return Decoded(rgb, turned, is_deep(image))
    except UserError:
        raise  # the limit of pixels that was set is no number
    except Exception as error:
        # Damaged bytes make Pillow's plug-ins raise almost any exception, so decoding is guarded as a whole.
        raise DataError(
            "An image can't be used:", [Problem(str(path), "must be a complete image", str(error))]
        ) from error


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where the picture has none."""
    try:
        found = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:
        # A picture whose EXIF block is damaged can still be looked at, as it is stored.
        return _UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else _UPRIGHT


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, with the format of its file; itself where it is upright."""
    if orientation_of(image) == _UPRIGHT:
        return image
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format  # which `to_rgb` looks at
    return turned


def as_stored(image: Image.Image) -> Image.Image:
    """The image itself."""
    return image


# data.orientation -> what it does with a decoded image
ORIENTATIONS: Mapping[str, Callable[[Image.Image], Image.Image]] = {"apply": upright, "ignore": as_stored}


def to_rgb(image: Image.Image, depth: str = "declared") -> Image.Image:
    """An RGB image of any decoded one, as `load_rgb` makes it."""
    if is_deep(image):
        image = to_bytes(image, depth)
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
    form: Form,
    progress: Progress | None,
) -> None:
    """Decode and resize all images into `images` (N, S, S, 3), and the CRC-32 of each into `checksums` (N,).

    Raises DataError listing every image that can't be used.
    """
    problems = []
    for done, problem in enumerate(decode_each(images, root, names, form), start=1):
        if problem is not None:
            problems.append(problem)
        else:
            checksums[done - 1] = zlib.crc32(images[done - 1])
        if progress is not None:
            progress(done, len(names))
    if problems:
        raise DataError("Images can't be used:", problems)


def decode_each(images: NDArray[np.uint8], root: Path, names: Sequence[str], form: Form) -> Iterator[Problem | None]:
    """Decode and resize images into the rows of `images` (N, S, S, 3). Yields for each, in order, its problem or None;
    a row with a problem is left as it was."""

    def decode(row: int) -> Problem | None:
        try:
            rgb = load_rgb(root / names[row], form.orientation, form.depth)
            images[row] = resize_square(rgb, form.resize, form.fit, form.interpolation)
        except DataError as error:
            return error.problems[0]
        return None

    yield from in_threads(decode, range(len(names)))


def in_threads(work: Callable[[Any], Result], items: Iterable[Any]) -> Iterator[Result]:
    """`work` of each item, in order, by one thread per CPU, since Pillow releases the interpreter lock.

    Only a few items are under way at a time, so that a million of them take no memory; and none is begun any more once
    the caller stops, so that Ctrl-C does not wait for thousands of images.
    """
    threads = usable_cpus()
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
