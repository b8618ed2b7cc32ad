"""Greys of more than 8 bits, and floats, as the bytes that an 8-bit twin of the picture would have.

Which value is white? Some files say it: a TIFF by its bits or its largest sample value; PNM and JPEG 2000 pictures are
spread over 16 bits by Pillow, whatever they had. For others, `_USUAL` is the rule: the smallest usual range that holds
the picture's largest value. A camera's 12 bits in a 16-bit PNG are thus 12 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float64]
_SPREAD = ("PPM", "JPEG2000")  # formats whose plug-in spreads every depth over 16 bits
_BITS, _SAMPLE_FORMAT, _LARGEST = 258, 339, (281, 341)  # tags of a TIFF
_FLOAT = 3  # a sample format
# White of a mode whose file says nothing: the first that is large enough.
_USUAL = {
    "16-bit": (4095.0, 65535.0),
    "32-bit": (255.0, 4095.0, 65535.0, 2.0**31 - 1, 2.0**32 - 1),
}
# The same for floats, as (largest value that counts for it, white): 0 to 1 with some overshoot, as resizing and
# highlights have it, or the range of integers.
_USUAL_FLOATS = ((2.0, 1.0), (255.0, 255.0), (4095.0, 4095.0), (65535.0, 65535.0))


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has greys of more than 8 bits, or floats."""
    return image.mode.startswith("I") or image.mode == "F"


def to_bytes(image: Image.Image, depth: str) -> Image.Image:
    """A deep picture in mode L. Values below black and above white are clipped; what is not a number is black. Raises
    ValueError unless `depth` is one of DEPTHS."""
    if depth not in DEPTHS:
        raise ValueError(f"depth is one of {', '.join(DEPTHS)}, not {depth!r}")
    grey = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    largest = float(grey[np.isfinite(grey)].max(initial=0.0))
    grey = DEPTHS[depth](image, grey, largest)
    return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))


def _declared(image: Image.Image, grey: Grey, largest: float) -> Grey:
    return grey * (255.0 / _white(image, largest))


def _by_maximum(image: Image.Image, grey: Grey, largest: float) -> Grey:
    """White is 255, or 65,535 if some value is above 255."""
    return grey / 257 if largest > 255 else grey


# data.depth -> (picture, its values (H, W), the largest finite one) -> values of which 255 is white
DEPTHS: Mapping[str, Callable[[Image.Image, Grey, float], Grey]] = {"declared": _declared, "maximum": _by_maximum}


def _white(image: Image.Image, largest: float) -> float:
    """The value that means white, in a picture whose largest finite value is `largest`."""
    if image.format in _SPREAD and image.mode != "F":
        return 65535.0
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    for tag in _LARGEST:
        if (said := _number(tags.get(tag))) is not None and said >= max(largest, 1e-9):
            return said
    if image.mode == "F" and _number(tags.get(_SAMPLE_FORMAT, _FLOAT)) == _FLOAT:
        return next((white for most, white in _USUAL_FLOATS if largest <= most), largest)
    bits = _number(tags.get(_BITS))
    if bits is not None and 8 < bits < 16:
        return float(2 ** int(bits) - 1)
    usual = _USUAL["16-bit" if image.mode.startswith("I;16") or image.format == "PNG" else "32-bit"]
    return next((white for white in usual if largest <= white), max(largest, 1.0))


def _number(said: object) -> float | None:
    """A tag's value, or its first one, where that is a number."""
    first = said[0] if isinstance(said, tuple) and said else said
    return float(first) if isinstance(first, int | float) else None
