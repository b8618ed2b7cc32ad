"""`data.on_error: skip`: images that can't be decoded are left out and counted, and the data set that is left has a
fingerprint of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fashion.data.layout import read_dataset, read_unchanged
from fashion.data.pack import Pack
from fashion.data.pictures import undecodable
from fashion.data.pictures.findings import skipped_images
from fashion.errors import BlockedError, DataError


@pytest.fixture
def root(demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in which the third training image and the first of val can't be decoded."""
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(undecodable, "_known", {})
    copy = Path(shutil.copytree(demo_root, tmp_path / "copy"))
    dataset = read_dataset(copy)
    (copy / dataset.splits["train"].images[2]).write_bytes(b"no picture")
    (copy / dataset.splits["val"].images[0]).write_bytes(b"")
    return copy


def test_they_are_left_out_with_their_labels_and_counted(root: Path) -> None:
    whole, found = read_dataset(root), read_dataset(root, on_error="skip")
    assert found.skipped_counts() == {"train": 1, "val": 1}
    assert found.splits["train"].images == (*whole.splits["train"].images[:2], *whole.splits["train"].images[3:])
    assert np.array_equal(found.labels("train"), np.delete(whole.labels("train"), 2, axis=0))
    assert found.splits["test"].images == whole.splits["test"].images
    assert skipped_images(found).startswith(
        "2 images that can't be decoded are left out (train 1, val 1), for example "
    )
    with pytest.raises(DataError, match=r"Images can't be used"):
        Pack.open_or_build(whole, "train", 16)
    assert len(Pack.open_or_build(found, "train", 16)) == len(whole.splits["train"]) - 1


def test_the_fingerprint_tells_the_two_apart_and_knows_what_was_skipped(root: Path, demo_root: Path) -> None:
    whole, found = read_dataset(root), read_dataset(root, on_error="skip")
    assert found.fingerprint() != whole.fingerprint()
    assert read_unchanged(root, found.fingerprint(), on_error="skip").skipped == found.skipped
    with pytest.raises(BlockedError, match="has changed"):
        read_unchanged(root, found.fingerprint())
    sound = read_dataset(demo_root, on_error="skip")
    assert sound.fingerprint() == read_dataset(demo_root).fingerprint()
    assert not sound.skipped


def test_images_are_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    read_dataset(root, on_error="skip", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (152, 152)
    for _ in range(2):  # from this process's memory, and from the cache folder
        seen.clear()
        read_dataset(root, on_error="skip", progress=lambda done, total: seen.append((done, total)))
        assert not seen
        monkeypatch.setattr(undecodable, "_known", {})
    for damaged in (b"", b"[]", b"{", b'{"a": 1}'):
        (kept,) = (root.parent / "cache" / "undecodable").iterdir()
        kept.write_bytes(damaged)
        monkeypatch.setattr(undecodable, "_known", {})
        assert len(read_dataset(root, on_error="skip").skipped) == 2


def test_a_split_without_any_image_is_refused(root: Path) -> None:
    for image in read_dataset(root).splits["val"].images:
        (root / image).write_bytes(b"")
    rule = r"split/val\.txt: must have an image that can be decoded; got .*: an empty file"
    with pytest.raises(DataError, match=rule):
        read_dataset(root, on_error="skip")
