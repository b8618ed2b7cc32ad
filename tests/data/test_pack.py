from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fashion.data import images
from fashion.data.cache.arrow_files import check_seal, read_seal, write_seal, zeros
from fashion.data.images import PAD_COLOUR, load_rgb, resize_square
from fashion.data.layout import Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.errors import DataError, UserError


@pytest.fixture(scope="module")
def demo(demo_root: Path) -> Dataset:
    return read_dataset(demo_root)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_equal_torchvision(demo: Dataset, tmp_path: Path, interpolation: str) -> None:
    from torchvision.transforms import InterpolationMode, Resize

    pack = Pack.open_or_build(demo, "val", 40, "stretch", interpolation, cache_dir=tmp_path)
    resize = Resize((40, 40), InterpolationMode(interpolation))
    for row, name in enumerate(demo.splits["val"].images):
        assert np.array_equal(pack.images[row], np.asarray(resize(Image.open(demo.root / name).convert("RGB"))))
    assert pack.names == list(demo.splits["val"].images)
    assert pack.labels is not None
    assert np.array_equal(pack.labels, demo.labels("val"))


@pytest.mark.real
def test_real_pixels_equal_the_reports_pipeline(real_root: Path) -> None:
    from torchvision.transforms import InterpolationMode, Resize

    resize = Resize((320, 320), InterpolationMode.BICUBIC)
    for number in range(0, 7000, 350):
        image = Image.open(real_root / f"img/{number:05d}.jpg").convert("RGB")
        expected = np.asarray(resize(image))
        assert np.array_equal(
            resize_square(load_rgb(real_root / f"img/{number:05d}.jpg"), 320, "stretch", "bicubic"), expected
        )


def test_the_view_is_mapped_contiguous_and_read_only(demo: Dataset, tmp_path: Path) -> None:
    pack = Pack.open_or_build(demo, "train", 32, cache_dir=tmp_path)
    assert pack.images.shape == (96, 32, 32, 3)
    assert pack.images.flags.c_contiguous
    assert not pack.images.flags.writeable
    before = pa.total_allocated_bytes()
    again = pickle.loads(pickle.dumps(pack))
    assert pa.total_allocated_bytes() - before < pack.images.nbytes / 10
    assert len(pickle.dumps(pack)) < 1000
    assert np.array_equal(again.images, pack.images)
    assert pack.labels is not None
    assert np.array_equal(again.labels, pack.labels)


def test_second_opening_decodes_nothing_and_settings_have_own_files(demo: Dataset, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    first = Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path, progress=progress)
    assert calls[-1] == (32, 32)
    calls.clear()
    assert Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path, progress=progress).path == first.path
    assert not calls
    others = {
        Pack.open_or_build(demo, "val", 24, *how, cache_dir=tmp_path).path
        for how in (("pad", "bicubic"), ("stretch", "bilinear"))
    }
    assert len(others | {first.path}) == 3
    assert not list(tmp_path.glob(".*.tmp"))


def test_damaged_files_are_noticed_and_rebuilt(demo: Dataset, tmp_path: Path) -> None:
    path = Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path).path
    good = path.read_bytes()
    half = len(good) // 2
    seal = path.with_name(path.name + ".seal")
    for content in (b"", b"{}", b"[1]", seal.read_bytes().replace(b'"pixels": [', b'"pixels": [9')):
        seal.write_bytes(content)
        with pytest.raises(DataError):
            Pack.open(path)
        assert len(Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path)) == 32
    damaged = {
        "empty": b"", "half": good[:half], "no end": good[:-1], "begins otherwise": b"\0" * 8 + good[8:],
        "grown": good + b"x", "zeroed pixels": good[:2000] + bytes(len(good) - 4000) + good[-2000:],
    }  # fmt: skip
    for name, content in damaged.items():
        path.unlink()
        path.write_bytes(content)
        with pytest.raises(DataError):
            Pack.open(path)
        assert np.array_equal(
            Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path).images[5], Pack.open(path).images[5]
        ), name
        assert path.read_bytes() == good, name


def test_any_flipped_bit_is_found_by_verify(demo: Dataset, tmp_path: Path) -> None:
    pack = Pack.open_or_build(demo, "test", 8, cache_dir=tmp_path)
    good = pack.path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(good))[:400]:
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        pack.path.unlink()  # the old mapping keeps the old file
        pack.path.write_bytes(broken)
        with pytest.raises(DataError):
            Pack.open(pack.path, verify=True)


def test_a_changed_image_makes_a_new_file(demo_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_root, root)
    first = Pack.open_or_build(read_dataset(root), "val", 16, cache_dir=tmp_path / "cache")
    name = read_dataset(root).splits["val"].images[0]
    Image.new("RGB", (48, 48), "red").save(root / name)
    second = Pack.open_or_build(read_dataset(root), "val", 16, cache_dir=tmp_path / "cache")
    assert second.path != first.path
    assert second.images[0, 8, 8, 0] > 240


def _build_in_child(root: Path, cache: Path) -> None:
    built = []
    Pack.open_or_build(
        read_dataset(root), "train", 20, cache_dir=cache, progress=lambda done, total: built.append(done)
    )
    if built:
        (cache / f"built-{os.getpid()}").touch()


def test_processes_that_start_together_build_once(demo_root: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_build_in_child, args=(demo_root, tmp_path)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(list(tmp_path.glob("built-*"))) == 1


def test_an_interrupted_build_goes_on(demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path / "whole")

    def interrupted(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path, progress=interrupted)
    assert not list(tmp_path.glob("*.arrow"))
    decoded: list[str] = []
    told: list[int] = []
    real = images.load_rgb

    def counted(path: Path, *how: str) -> Image.Image:
        decoded.append(path.name)
        return real(path, *how)

    monkeypatch.setattr(images, "load_rgb", counted)
    pack = Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path, progress=lambda done, total: told.append(done))
    assert sorted(decoded) == sorted(Path(name).name for name in demo.splits["val"].images[20:])
    assert told == list(range(1, 33))
    assert pack.path.read_bytes() == expected.path.read_bytes()
    assert not list(tmp_path.glob(".*.tmp*"))


def test_all_bad_images_are_listed_and_nothing_is_left(demo_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_root, root)
    names = read_dataset(root).splits["val"].images
    (root / names[1]).write_bytes((root / names[1]).read_bytes()[:300])
    (root / names[4]).write_bytes(b"not an image")
    with pytest.raises(DataError) as caught:
        Pack.open_or_build(read_dataset(root), "val", 16, cache_dir=tmp_path / "cache")
    assert [Path(problem.place).name for problem in caught.value.problems] == [Path(names[1]).name, Path(names[4]).name]
    assert not list((tmp_path / "cache").glob("*.arrow"))
    assert not list((tmp_path / "cache").glob(".*.tmp*"))


def test_modes_become_rgb(tmp_path: Path) -> None:
    grey16 = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    palette = Image.new("RGB", (4, 4), (200, 10, 10)).quantize(4)
    for name, image, colour in (
        ("l.png", Image.new("L", (4, 4), 77), (77, 77, 77)), ("i16.png", grey16, (128, 128, 128)),
        ("rgba.png", clear, (255, 255, 255)),
        ("p.png", palette, (200, 10, 10)), ("cmyk.tif", Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        ("la.png", Image.new("LA", (4, 4), (9, 255)), (9, 9, 9)), ("1.png", Image.new("1", (4, 4), 1), (255, 255, 255)),
    ):  # fmt: skip
        image.save(tmp_path / name)
        loaded = load_rgb(tmp_path / name)
        assert loaded.mode == "RGB"
        assert np.abs(np.asarray(loaded).astype(int)[1, 1] - colour).max() <= 1, name


def test_orientation_and_depth_have_files_of_their_own_and_old_files_keep_their_names(
    demo: Dataset, tmp_path: Path
) -> None:
    now = Pack.open_or_build(demo, "val", 24, cache_dir=tmp_path)
    before = Pack.open_or_build(demo, "val", 24, orientation="ignore", depth="maximum", cache_dir=tmp_path)
    assert now.path.name.endswith("-val-24-stretch-bicubic-apply-declared-v1.arrow")
    assert before.path.name == f"{demo.fingerprint()}-val-24-stretch-bicubic-v1.arrow"
    assert "orientation" not in before.metadata
    assert now.metadata["orientation"] == "apply"


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (31, 60), (500, 1), (1, 1), (20, 20)])
def test_pad_keeps_the_aspect_and_centres(shape: tuple[int, int]) -> None:
    square = resize_square(Image.new("RGB", shape, "red"), 20, "pad", "bicubic").astype(int)
    red = np.abs(square - (255, 0, 0)).sum(axis=2) < 20
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert max(len(rows), len(columns)) == 20
    assert abs(min(len(rows), len(columns)) - max(1, 20 * min(shape) / max(shape))) <= 0.5
    assert abs(rows[0] - (19 - rows[-1])) <= 1
    assert abs(columns[0] - (19 - columns[-1])) <= 1
    assert (square[~red] == PAD_COLOUR).all()


def test_a_folder_that_cant_be_made_is_a_user_error(demo: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="FASHION_CACHE"):
        Pack.open_or_build(demo, "val", 16, cache_dir=tmp_path / "file" / "cache")


def test_zeros_take_no_memory_and_a_file_is_digested_in_pieces(tmp_path: Path) -> None:
    many = zeros(1 << 40)  # more than any machine would promise
    assert many.size == 1 << 40
    assert many.slice(1 << 39, 8).to_pybytes() == bytes(8)
    assert zeros(0).size == 0
    path, length = tmp_path / "features.arrow", 16 << 20
    path.touch()
    os.truncate(path, length)
    tracemalloc.start()
    try:
        write_seal(path, path)
        check_seal(path)
        assert tracemalloc.get_traced_memory()[1] < length / 4
    finally:
        tracemalloc.stop()
    expected = hashlib.sha256(bytes(length)).hexdigest()
    assert read_seal(path) == {"size": length, "pixels": [0, 0], "frame": expected}
