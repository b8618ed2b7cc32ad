"""Deep greys and floats become what an 8-bit twin of the picture looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion.data.images import decoded, load_rgb, to_rgb

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
TWIN = np.round(RAMP * 255)


def bytes_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[:, :, 0].astype(float)


@pytest.mark.parametrize(
    ("form", "pixels"),
    [
        ("TIFF", RAMP.astype(np.float32)),
        ("TIFF", (RAMP * 1.3).clip(0, 1.0).astype(np.float32) / 1.0),
        ("TIFF", (RAMP * 255).astype(np.float32)),
        ("TIFF", (RAMP * 65535).astype(np.float32)),
        ("TIFF", (RAMP * 4095).astype(np.uint16)),
        ("TIFF", (RAMP * 65535).astype(np.uint16)),
        ("TIFF", (RAMP * 255).astype(np.int32)),
        ("PNG", (RAMP * 4095).astype(np.uint16)),
        ("PNG", (RAMP * 65535).astype(np.uint16)),
        ("PPM", (RAMP * 65535).astype(np.uint16)),
    ],
)
def test_a_ramp_is_as_light_as_its_twin(tmp_path: Path, form: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "ramp", form)
    found = decoded(tmp_path / "ramp")
    assert found.deep
    wanted = TWIN if pixels.max() != 1 or np.allclose(pixels, RAMP) else np.round(pixels * 255)
    assert np.abs(bytes_of(found.rgb) - wanted).max() <= 1


def test_a_dark_picture_stays_dark(tmp_path: Path) -> None:
    """What a file declares is believed: 16 bits that are nearly black do not become white."""
    Image.fromarray(np.full((8, 8), 255, np.uint16)).save(tmp_path / "dark.png")
    assert bytes_of(load_rgb(tmp_path / "dark.png")).max() == 16  # of 12 bits, the smallest usual depth
    assert bytes_of(load_rgb(tmp_path / "dark.png", depth="maximum")).max() == 255


def test_pnm_is_spread_over_16_bits_whatever_it_had(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 1023\n" + np.array([100, 50], ">u2").tobytes())
    assert bytes_of(load_rgb(tmp_path / "x.pgm")).tolist() == [[25, 12]]


def test_a_tiff_that_declares_its_largest_value_is_believed(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 500, np.uint16)).save(tmp_path / "x.tif", tiffinfo={281: 1000})
    assert bytes_of(load_rgb(tmp_path / "x.tif")).max() in (127, 128)


def test_what_is_no_number_is_black_and_infinity_is_white() -> None:
    pixels = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert bytes_of(to_rgb(Image.fromarray(pixels))).tolist() == [[0, 255, 0, 128]]


def test_maximum_is_what_versions_before_did(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "x.tif")
    assert bytes_of(load_rgb(tmp_path / "x.tif", depth="maximum")).max() == 1
    assert bytes_of(to_rgb(Image.fromarray(np.full((2, 2), 32896, np.uint16)), "maximum")).max() == 128


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is one of declared, maximum"):
        to_rgb(Image.fromarray(RAMP.astype(np.float32)), "best")
