"""A data set that is pushed: what is sent, what is left alone, and that it comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fashion.config.data import Form
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.data.remote.local_copy import on_this_machine
from fashion.data.remote.pushed import MANIFEST
from fashion.errors import DataError, StorageError
from tests.support import data_in_buckets
from tests.support.data_in_buckets import FORM, HERE, IMAGES, LISTS, names, pushed
from tests.support.servers.s3_server import Server

demo_root, copy_of_demo = data_in_buckets.demo_root, data_in_buckets.copy_of_demo  # the fixtures


def test_another_size_than_those_that_were_pushed_is_named(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root, HERE, FORM)
    with pytest.raises(DataError) as caught:
        on_this_machine(HERE, tmp_path, [Form(32, "pad", "bilinear")])
    text = str(caught.value)
    assert "resize 24, stretch, bicubic" in text
    assert "data push DIR ADDRESS --resize 32 --fit pad --interpolation bilinear" in text
    sent = pushed(demo_root, HERE, Form(32, "pad", "bilinear"))
    assert (sent.sent, len(sent.forms)) == (3, 2)
    root = on_this_machine(HERE, tmp_path, [Form(32, "pad", "bilinear")])
    packs = sorted(path.name for path in root.rglob("*.arrow"))
    assert len(packs) == 2, "neither the other size nor the test split was asked for"
    with pytest.raises(DataError, match="resize 16"):
        Pack.open_or_build(read_dataset(root), "val", 16)


def test_what_is_pushed_already_is_not_sent_again(s3: Server, demo_root: Path) -> None:
    for forms, count in (((), IMAGES + LISTS), ((FORM,), 3 + LISTS)):
        address = HERE / str(len(forms))
        assert pushed(demo_root, address, *forms).sent == count
        s3.requests.clear()
        again = pushed(demo_root, address, *forms)
        assert (again.sent, again.kept, again.size) == (0, count, 0)
        assert not any(MANIFEST not in name and "pushing" not in name for name in names(s3, "PUT"))
        assert s3.names("sweeps", f"data/demo/{len(forms)}/fashion") == [f"data/demo/{len(forms)}/{MANIFEST}"]


def test_an_interrupted_push_is_none_until_it_is_finished(
    s3: Server,
    demo_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = read_dataset(demo_root).splits["val"].images[-1]
    s3.faults.fail(403, named=last, only=("PUT",))
    with pytest.raises(StorageError):
        pushed(demo_root)
    there = len(s3.names("sweeps"))
    with pytest.raises(DataError, match="is being pushed, or a push was interrupted"):
        on_this_machine(HERE, tmp_path)
    s3.faults.heal()
    other = tmp_path / "other"
    shutil.copytree(demo_root, other)
    (other / "split" / "test.txt").unlink()
    with pytest.raises(DataError, match="another push that is under way or was interrupted"):
        pushed(other)
    sent = pushed(demo_root)
    assert sent.kept == there - 1  # all but what says whose push it is
    on_this_machine(HERE, tmp_path)


def test_another_data_set_is_replaced_only_when_told_to(
    s3: Server, demo_root: Path, copy_of_demo: Path, tmp_path: Path
) -> None:
    first = pushed(demo_root, HERE, FORM)
    (copy_of_demo / "split" / "test.txt").unlink()
    before = s3.names("sweeps")
    with pytest.raises(DataError, match=first.fingerprint) as caught:
        pushed(copy_of_demo, HERE, FORM)
    assert "--replace" in str(caught.value)
    with pytest.raises(DataError, match="this data set as packed images"):
        pushed(demo_root)
    assert s3.names("sweeps") == before
    sent = pushed(copy_of_demo, HERE, FORM, replace=True)
    assert sent.fingerprint != first.fingerprint
    assert len([name for name in s3.names("sweeps") if name.endswith(".arrow")]) == 2, "the old packs are gone"
    assert read_dataset(on_this_machine(HERE, tmp_path, [FORM])).fingerprint() == sent.fingerprint


def test_a_prefix_that_holds_other_things_is_left_alone(s3: Server, demo_root: Path) -> None:
    s3.write("sweeps", "data/demo/precious.txt", b"x")
    with pytest.raises(DataError, match="1 other objects"):
        pushed(demo_root)
    assert s3.names("sweeps") == ["data/demo/precious.txt"]
    assert pushed(demo_root, replace=True).left == 1
    assert s3.read("sweeps", "data/demo/precious.txt") == b"x"


def test_a_large_file_comes_in_parts(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bucket.store", "data.remote.fetch", "data.remote.send"):
        monkeypatch.setattr(f"fashion.{module}.PART", 5 << 20)  # the least that S3 takes
    form = Form(240)  # 40 images of 172,800 bytes
    assert pushed(demo_root, HERE, form).sent == 3 + LISTS
    assert pushed(demo_root, HERE, form).sent == 0, "the tag of parts is known"
    s3.requests.clear()
    s3.faults.cut("after", only=("GET",), named="-train-240", times=2)
    labels: dict[str, tuple[int, int]] = {}
    root = on_this_machine(
        HERE, tmp_path, [form], progress=lambda label, done, total: labels.update({label: (done, total)})
    )
    assert labels[f"fetching {HERE} (MB)"] == (9, 9)
    assert len([name for name in names(s3, "GET") if "-train-240" in name]) == 2 + 2
    pack = Pack.open_or_build(read_dataset(root), "train", *form, verify=True)
    assert np.array_equal(pack.images, Pack.open_or_build(read_dataset(demo_root), "train", *form).images)


def test_names_with_blanks_umlauts_and_signs_come_through(s3: Server, copy_of_demo: Path, tmp_path: Path) -> None:
    place = copy_of_demo / "split" / "val.txt"
    image = read_dataset(copy_of_demo).splits["val"].images[0]
    odd = "img/a b/grün #1 100% [x]+~.png"
    (copy_of_demo / odd).parent.mkdir()
    (copy_of_demo / image).rename(copy_of_demo / odd)
    place.write_text(place.read_text().replace(image, odd))
    pushed(copy_of_demo)
    root = on_this_machine(HERE, tmp_path)
    assert (root / odd).read_bytes() == (copy_of_demo / odd).read_bytes()


def test_a_list_that_is_gone_there_is_gone_here(s3: Server, copy_of_demo: Path, tmp_path: Path) -> None:
    pushed(copy_of_demo)
    root = on_this_machine(HERE, tmp_path)
    of_test = read_dataset(root).splits["test"].images
    assert all((root / image).is_file() for image in of_test)
    (copy_of_demo / "split" / "test.txt").unlink()
    (copy_of_demo / "split" / "test_attr.txt").unlink(missing_ok=True)
    sent = pushed(copy_of_demo, replace=True)
    assert sent.left == 8, "the images of that split, which nothing names any more"
    on_this_machine(HERE, tmp_path)
    assert "test" not in read_dataset(root).splits
    assert read_dataset(root).fingerprint() == sent.fingerprint
    assert not any((root / image).exists() for image in of_test)
