"""Files are pictures by their content, whatever they are called, up to a limit of pixels that the user can raise."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin, features

from fashion.data.images import decoded, load_rgb
from fashion.data.pictures.formats import DEFAULT_LIMIT, LIMIT_VARIABLE, formats, is_picture, pixel_limit, suffixes
from fashion.errors import DataError, UserError

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize("form", [each for each in formats() if each not in ("HEIF", "PSD", "ICO")])
@pytest.mark.parametrize("name", ["x.jpg", "x", "x.txt"])
def test_content_decides_and_not_the_name(tmp_path: Path, form: str, name: str) -> None:
    Image.new("RGB", (32, 24), (200, 30, 10)).save(tmp_path / name, form)
    assert is_picture(tmp_path / name)
    rgb = load_rgb(tmp_path / name)
    assert rgb.size == (32, 24)
    assert max(abs(a - b) for a, b in zip(rgb.getpixel((9, 9)), (200, 30, 10), strict=True)) < 30  # type: ignore[arg-type]


def test_several_pictures_in_one_file_are_read_as_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    assert load_rgb(tmp_path / "phone.jpg").getpixel((5, 5))[0] > 240  # type: ignore[index]


def test_endings_that_browsers_and_phones_write_are_pictures() -> None:
    assert {".jfif", ".jpe", ".avif", ".heic", ".jpg", ".jxl"} <= suffixes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"%PDF-1.7 and so on, for some bytes", "got PDF, which is no picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer, which is no picture"),
        (b"no picture at all", "cannot identify"),
        (HEIC, "a HEIC picture, which needs a package that is not installed: pip install pillow-heif"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    if content == HEIC and "HEIF" in formats():
        pytest.skip("pillow-heif is installed")
    (tmp_path / "x.jpg").write_bytes(content)
    assert not is_picture(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=said):
        load_rgb(tmp_path / "x.jpg")


def test_an_avif_called_jpg_is_read(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "shop.jpg", "AVIF")
    assert load_rgb(tmp_path / "shop.jpg").size == (40, 40)


def test_the_limit_of_pixels_can_be_raised_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (400, 300)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a program's own: Pillow refuses twice that
    monkeypatch.setenv(LIMIT_VARIABLE, "110_000")
    with pytest.raises(DataError, match=rf"more than 110,000: .*raise the limit \({LIMIT_VARIABLE}=NUMBER\)"):
        load_rgb(tmp_path / "big.png")
    monkeypatch.setenv(LIMIT_VARIABLE, "120,000")
    assert load_rgb(tmp_path / "big.png").size == (400, 300)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.delenv(LIMIT_VARIABLE)
    with pytest.raises(DataError, match="more than 2,000"):
        load_rgb(tmp_path / "big.png")


def test_a_photo_of_108_megapixels_is_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert pixel_limit() == DEFAULT_LIMIT > 108_000_000


@pytest.mark.parametrize("said", ["many", "-1", "0", "1e9"])
def test_a_limit_that_is_no_number_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    monkeypatch.setenv(LIMIT_VARIABLE, said)
    with pytest.raises(UserError, match=f"{LIMIT_VARIABLE}: must be a number of pixels; got {said}"):
        load_rgb(tmp_path / "x.png")


def test_a_long_comment_is_read_and_a_bomb_of_text_is_not(tmp_path: Path) -> None:
    for size, allowed in ((8 << 20, True), (80 << 20, False)):
        notes, file = PngImagePlugin.PngInfo(), io.BytesIO()
        notes.add_text("prompt", "a" * size, zip=True)
        Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=notes)
        (tmp_path / "x.png").write_bytes(file.getvalue())
        if allowed:
            assert load_rgb(tmp_path / "x.png").size == (8, 8)
        else:
            with pytest.raises(DataError, match="too large"):
                load_rgb(tmp_path / "x.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied_or_ignored(tmp_path: Path, orientation: int, form: str) -> None:
    """The corner that people see at the top left is red."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (60, 40), "black")
    picture.paste("red", (0, 0, 16, 16))
    extra = {"lossless": True} if form == "WEBP" else {}
    picture.save(tmp_path / "x", form, exif=exif, **extra)
    found = decoded(tmp_path / "x")
    with Image.open(tmp_path / "x") as image:
        assert found.rgb.tobytes() == ImageOps.exif_transpose(image).convert("RGB").tobytes()
    assert found.turned == (orientation != 1)
    assert load_rgb(tmp_path / "x", "ignore").size == (60, 40)
    assert load_rgb(tmp_path / "x").size == ((40, 60) if orientation > 4 else (60, 40))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_there_is_not_means_upright(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.new("RGB", (10, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert decoded(tmp_path / "x.jpg").turned is False


def test_a_damaged_exif_block_costs_nothing_but_the_orientation(tmp_path: Path) -> None:
    Image.new("RGB", (10, 20)).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert load_rgb(tmp_path / "x.jpg").size == (10, 20)
