"""What counts as a picture: which formats are read, by content whatever the file is called, and how large they may be.

Pillow would otherwise try all its plug-ins, one of which starts Ghostscript, and some of which take any file for
theirs.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from fashion.errors import Problem, UserError

# Formats with a signature of their own. HEIF needs the package pillow-heif, AVIF a Pillow that was built with it.
FORMATS = (
    "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "QOI", "SGI", "PSD", "ICO",
)  # fmt: skip
# Endings of pictures that this installation may not be able to read: they are told rather than left out.
MEANT = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl")
LIMIT_VARIABLE = "FASHION_MAX_PIXELS"
# Pixels of one picture. Pillow's own limit to what it opens at all: a bomb of this size takes half a gigabyte.
DEFAULT_LIMIT = 178_956_970
LONGEST_TEXT = 64 << 20  # bytes to which the comments of a PNG may unpack together
_BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
}  # fmt: skip
_SIGNATURES = {
    b"\xff\x0a": "JPEG XL", b"\x00\x00\x00\x0cJXL ": "JPEG XL", b"%PDF": "PDF", b"%!PS": "PostScript",
    b"<svg": "SVG", b"<?xml": "XML", b"<!DOC": "HTML", b"<html": "HTML", b"\x00\x05\x16\x07": "AppleDouble",
    b"version https://git-lfs": "a Git LFS pointer",
}  # fmt: skip
# Pillow's limit for one comment, 1 MiB, refuses what editors write; all comments together keep Pillow's own limit.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, LONGEST_TEXT)
# Pillow only warns of pictures beyond half of its limit; `pixel_limit` decides here.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that this installation reads."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    lacking = () if features.check("avif") else ("AVIF",)  # its plug-in is there without the library, too
    return tuple(name for name in FORMATS if name in Image.OPEN and name not in lacking)


@cache
def suffixes() -> frozenset[str]:
    """Endings, in lower case, by which a file is meant to be a picture: .jpg, and .jfif, .jpe, .jp2 as well."""
    known = set(formats())
    return frozenset([*MEANT, *(ending for ending, name in Image.registered_extensions().items() if name in known)])


def pixel_limit() -> int:
    """The most pixels that a picture may have: $FASHION_MAX_PIXELS, else DEFAULT_LIMIT, else a lower one that a program
    has set as Pillow's MAX_IMAGE_PIXELS. Raises UserError where the variable is no positive number."""
    said = os.environ.get(LIMIT_VARIABLE, "").replace("_", "").replace(",", "").strip()
    if not said:
        theirs = Image.MAX_IMAGE_PIXELS
        return DEFAULT_LIMIT if theirs is None else min(DEFAULT_LIMIT, 2 * theirs)
    if not said.isascii() or not said.isdigit() or int(said) < 1:
        raise UserError(Problem(LIMIT_VARIABLE, "must be a number of pixels", said, "For example 400000000"))
    limit = int(said)
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = (limit + 1) // 2  # Pillow itself refuses twice this
    return limit


def opened(path: str | Path) -> Image.Image:
    """Identify a file by its content; pixels are not decoded yet.

    Raises UnidentifiedImageError, saying what the file is instead as far as that is known, DecompressionBombError
    beyond `pixel_limit`, OSError where it can't be read, and whatever a plug-in raises for damaged bytes.
    """
    limit = pixel_limit()
    try:
        image = Image.open(path, formats=formats())
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(told(path) or str(error)) from error
    except Image.DecompressionBombError as error:
        raise _bomb(str(error).partition(" exceeds")[0].partition("(")[2].partition(" ")[0] or "too many") from error
    if image.width * image.height > limit:
        size = f"{image.width}x{image.height}"
        image.close()
        raise _bomb(size)
    return image


def _bomb(size: str) -> Image.DecompressionBombError:
    return Image.DecompressionBombError(
        f"{size} pixels, more than {pixel_limit():,}: if it is no decompression bomb, raise the limit "
        f"({LIMIT_VARIABLE}=NUMBER) or make the picture smaller"
    )


def told(path: str | Path) -> str:
    """What a file is that can't be identified, and what would help; empty where nothing is known."""
    with open(path, "rb") as file:
        head = file.read(32)
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        name = _BRANDS[head[8:12]]
        if name == "HEIC" and "HEIF" not in formats():
            return "a HEIC picture, which needs a package that is not installed: pip install pillow-heif"
        return f"a damaged {name} picture" if name in formats() else f"{name}, which this Pillow lacks"
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return f"{name}, which is no picture that Pillow reads"
    return ""


def is_picture(path: str | Path) -> bool:
    """Whether a file is a picture by its content. Raises OSError where it can't be read."""
    try:
        opened(path).close()
    except Image.DecompressionBombError:
        return True
    except OSError as error:
        if isinstance(error, UnidentifiedImageError) or error.errno is None:
            return False
        raise
    except Exception:
        # Its signature is a picture's and the rest is damaged: decoding it will say so.
        return True
    return True
