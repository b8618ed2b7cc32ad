"""A data set in a bucket is fetched once a machine, through failures, and trains on the same arrays."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion.bucket.address import parse_address
from fashion.config.data import Form
from fashion.config.trial import TrialConfig
from fashion.data.layout import read_dataset, read_unchanged
from fashion.data.pack import Pack
from fashion.data.remote import fetch
from fashion.data.remote.local_copy import DataRoot, LocalCopy, on_this_machine
from fashion.data.remote.pushed import MANIFEST
from fashion.errors import BlockedError, DataError, StorageError
from fashion.model.pretrained.weights import resolve_weights
from fashion.training.task import Task
from fashion.training.worker import fetch_data, training_data
from tests.support import data_in_buckets
from tests.support.data_in_buckets import FORM, HERE, IMAGES, LISTS, names, pushed
from tests.support.servers.s3_server import Server

demo_root, copy_of_demo = data_in_buckets.demo_root, data_in_buckets.copy_of_demo  # the fixtures


@pytest.mark.parametrize("forms", [(), (FORM,)])
def test_a_fetched_data_set_is_the_pushed_one(
    s3: Server,
    demo_root: Path,
    tmp_path: Path,
    forms: tuple[Form, ...],
) -> None:
    sent = pushed(demo_root, HERE, *forms)
    root = on_this_machine(HERE, tmp_path, [FORM], ("train", "val", "test"))
    assert root.parent == tmp_path / "data"
    original, copy = read_dataset(demo_root), read_dataset(root)
    assert copy.fingerprint() == original.fingerprint() == sent.fingerprint
    assert (root / "img").exists() == (not forms)
    for split in original.splits:
        mine, theirs = (
            Pack.open_or_build(each, split, *FORM, cache_dir=tmp_path / "packs", verify=True)
            for each in (original, copy)
        )
        assert np.array_equal(mine.images, theirs.images)
        assert mine.names == theirs.names
        if mine.labels is None or theirs.labels is None:
            assert mine.labels is theirs.labels
        else:
            assert np.array_equal(mine.labels, theirs.labels)
        assert theirs.path.is_relative_to(root) == bool(forms)


def test_a_trial_trains_on_the_same_arrays_from_a_folder_a_bucket_and_a_pack(
    s3: Server,
    demo_root: Path,
    tmp_path: Path,
) -> None:
    packed = parse_address("s3://sweeps/packed")
    fingerprint = pushed(demo_root).fingerprint
    pushed(demo_root, packed, FORM)
    config = TrialConfig.model_validate(
        {"data": {"root": "x", "resize": 24, "crop": 20}, "model": {"backbone": "tiny", "weights": "none"}, "train": {}}
    )
    weights = resolve_weights(config.model)
    places: tuple[DataRoot, ...] = (demo_root, HERE, packed)
    found = [
        training_data(place, fingerprint, config, weights, tmp_path / str(number), torch.device("cpu"))
        for number, place in enumerate(places)
    ]
    for each in found[1:]:
        for mine, theirs in ((found[0].train, each.train), (found[0].val, each.val)):
            assert np.array_equal(mine.images, theirs.images)
            assert mine.labels is not None
            assert theirs.labels is not None
            assert np.array_equal(mine.labels, theirs.labels)
        assert each.attributes == found[0].attributes
    assert not list((tmp_path / "2").glob("*.arrow")), "nothing was decoded"
    assert isinstance(found[2].train.images.base, np.ndarray | memoryview) or found[2].train.images.base is not None


def test_a_worker_tells_what_it_fetched_and_stops_the_sweep_where_it_cannot(
    s3: Server, demo_root: Path, copy_of_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = pushed(demo_root, HERE, FORM).fingerprint
    config = TrialConfig.model_validate(
        {"data": {"root": "x", "resize": 24, "crop": 20}, "model": {"backbone": "tiny", "weights": "none"}, "train": {}}
    )
    task = Task(0, config, resolve_weights(config.model), tmp_path / "0", HERE, fingerprint, tmp_path / "cache", 1)
    assert re.fullmatch(r"fetched the data set, \d+ MB in \d+ s", fetch_data(task))
    s3.faults.refuse()
    assert fetch_data(task) == "", "it is here: the bucket is not asked"
    monkeypatch.setattr("fashion.data.remote.local_copy.PATIENCE", 0.5)
    elsewhere = replace(task, cache_dir=tmp_path / "other")
    with pytest.raises(BlockedError, match=rf"can't be had on {platform.node()}.*does not answer"):
        fetch_data(elsewhere)
    s3.faults.heal()
    (copy_of_demo / "split" / "test.txt").unlink()
    pushed(copy_of_demo, HERE, FORM, replace=True)
    with pytest.raises(BlockedError, match="has changed since this sweep started"):
        training_data(HERE, fingerprint, config, task.weights, tmp_path / "other", torch.device("cpu"))


def test_fetching_again_brings_only_what_has_changed(s3: Server, copy_of_demo: Path, tmp_path: Path) -> None:
    first = pushed(copy_of_demo)
    assert (first.sent, first.kept) == (IMAGES + LISTS, 0)
    root = on_this_machine(HERE, tmp_path)
    s3.requests.clear()
    assert on_this_machine(HERE, tmp_path, fingerprint=first.fingerprint) == root
    assert s3.requests == [], "who knows what it wants and has it asks nobody"
    on_this_machine(HERE, tmp_path)
    assert names(s3, "GET") == [f"data/demo/{MANIFEST}"]
    image = read_dataset(copy_of_demo).splits["val"].images[3]
    shutil.copyfile(copy_of_demo / read_dataset(copy_of_demo).splits["val"].images[4], copy_of_demo / image)
    second = pushed(copy_of_demo, replace=True)
    assert (second.sent, second.kept) == (1, first.sent - 1)
    s3.requests.clear()
    on_this_machine(HERE, tmp_path)
    assert names(s3, "GET").count(f"data/demo/{image}") == 1
    assert len(names(s3, "GET")) == 3  # the manifest was looked at, and then fetched since it was another
    assert read_dataset(root).fingerprint() == second.fingerprint != first.fingerprint
    with pytest.raises(BlockedError, match="has changed since this sweep started"):
        read_unchanged(on_this_machine(HERE, tmp_path, fingerprint=first.fingerprint), first.fingerprint)


def test_an_interrupted_fetch_goes_on(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(demo_root)
    monkeypatch.setattr("fashion.data.remote.fetch.WAIT", 0.5)
    last = read_dataset(demo_root).splits["val"].images[-1]
    s3.faults.fail(403, named=last)
    s3.requests.clear()
    with pytest.raises(StorageError):
        on_this_machine(HERE, tmp_path)
    came = {name for name in names(s3, "GET") if "/img/" in name and last not in name}
    assert came
    copy = LocalCopy(HERE, tmp_path)
    assert not copy.holds(read_dataset(demo_root).fingerprint(), (), ())
    s3.faults.heal()
    s3.requests.clear()
    root = on_this_machine(HERE, tmp_path)
    again = {name for name in names(s3, "GET") if "/img/" in name}
    assert f"data/demo/{last}" in again
    assert len(again) < IMAGES
    assert read_dataset(root).fingerprint() == read_dataset(demo_root).fingerprint()
    assert not list(tmp_path.glob("data/*.partial"))


def test_a_killed_fetch_goes_on(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    s3.faults.delay(0.2, only=("GET",), named="/img/")
    s3.requests.clear()
    child = fetching(tmp_path)
    while len([name for name in names(s3, "GET") if "/img/" in name]) < 30:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    s3.faults.heal()
    time.sleep(0.3)  # what was under way
    s3.requests.clear()
    assert LocalCopy(HERE, tmp_path).root.with_name(LocalCopy(HERE, tmp_path).root.name + ".partial").exists()
    root = on_this_machine(HERE, tmp_path)
    assert 0 < len([name for name in names(s3, "GET") if "/img/" in name]) <= IMAGES - 30 + fetch.THREADS
    assert read_dataset(root).fingerprint() == read_dataset(demo_root).fingerprint()
    assert not list(tmp_path.glob("data/*.partial"))


def test_an_outage_in_mid_fetch_heals(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    told: list[str] = []
    s3.faults.delay(0.05, only=("GET",), named="/img/")

    def outage() -> None:
        while not any("/img/" in path for _, path in s3.requests if "?list" not in path):
            time.sleep(0.01)
        s3.faults.refuse()
        time.sleep(8)  # more than one request is repeated for
        s3.faults.heal()

    s3.requests.clear()
    thread = threading.Thread(target=outage)
    thread.start()
    root = on_this_machine(HERE, tmp_path, progress=lambda label, done, total: told.append(label))
    thread.join()
    assert s3.faults.met > 0
    assert any("does not answer, trying again" in label for label in told)
    assert read_dataset(root).fingerprint() == read_dataset(demo_root).fingerprint()


CHILD = """
import sys
from pathlib import Path
from fashion.bucket.address import parse_address
from fashion.data.remote.local_copy import on_this_machine
print(on_this_machine(parse_address("s3://sweeps/data/demo"), Path(sys.argv[1])))
"""


def fetching(cache: Path) -> subprocess.Popen[str]:
    """A process of its own, as another sweep on this machine."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )


def test_a_fetch_can_be_interrupted_while_the_bucket_is_away(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    s3.faults.refuse(named="/img/")
    child = fetching(tmp_path)
    while s3.faults.met < fetch.THREADS:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    child.wait(timeout=60)
    assert time.monotonic() - began < 10
    assert not LocalCopy(HERE, tmp_path).root.with_name(LocalCopy(HERE, tmp_path).root.name + ".json").exists()


def test_what_changes_while_it_is_fetched_is_refused(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    splits = read_dataset(demo_root).splits
    images = sorted(image for split in splits.values() for image in split.images)
    s3.faults.delay(0.3, only=("GET",), named="/img/")

    def change() -> None:
        while s3.faults.met < 1:
            time.sleep(0.01)
        for image in reversed(images):  # from the end that is fetched last
            content = bytearray(s3.read("sweeps", f"data/demo/{image}"))
            content[-1] ^= 1  # the same size
            s3.write("sweeps", f"data/demo/{image}", bytes(content))

    thread = threading.Thread(target=change)
    thread.start()
    with pytest.raises(DataError, match="has changed while it was being fetched"):
        on_this_machine(HERE, tmp_path)
    thread.join()


def test_two_processes_fetch_each_object_once(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    s3.faults.delay(0.05, only=("GET",))
    s3.requests.clear()
    children = [fetching(tmp_path) for _ in range(2)]
    roots = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert roots == {str(LocalCopy(HERE, tmp_path).root)}
    got = [name for name in names(s3, "GET") if not name.endswith(MANIFEST)]
    assert len(got) == len(set(got)) == IMAGES + LISTS


def test_a_copy_by_other_means_is_read_as_well(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    for path in sorted(demo_root.rglob("*")):
        if path.is_file():
            s3.write("sweeps", f"data/demo/{path.relative_to(demo_root)}", path.read_bytes())
    s3.write("sweeps", "data/demo/img/", b"")  # as S3's console makes folders
    root = on_this_machine(HERE, tmp_path)
    assert read_dataset(root).fingerprint() == read_dataset(demo_root).fingerprint()


@pytest.mark.real
def test_real_images_come_back_from_a_bucket_bit_by_bit(s3: Server, real_root: Path, tmp_path: Path) -> None:
    """Of its first 60 training and validation images, as a data set of its own: pushed both ways."""
    small = tmp_path / "small"
    (small / "split").mkdir(parents=True)
    (small / "img").mkdir()
    for name in ("train", "val"):
        for end in ("", "_attr"):
            lines = (real_root / "split" / f"{name}{end}.txt").read_text().splitlines()[:61]  # a header, too
            (small / "split" / f"{name}{end}.txt").write_text("\n".join(lines) + "\n")
            for image in lines if not end else ():
                if image.startswith("img/"):
                    shutil.copy(real_root / image, small / image)
    shutil.copy(real_root / "split" / "list_attr_cloth.txt", small / "split")
    form = Form(320)
    mine = Pack.open_or_build(read_dataset(small), "val", *form, cache_dir=tmp_path)
    assert len(mine) >= 60
    assert mine.labels is not None
    for forms in ((), (form,)):
        address = HERE / str(len(forms))
        pushed(small, address, *forms)
        copy = read_dataset(on_this_machine(address, tmp_path, [form]))
        theirs = Pack.open_or_build(copy, "val", *form, cache_dir=tmp_path / "theirs")
        assert np.array_equal(mine.images, theirs.images)
        assert theirs.labels is not None
        assert np.array_equal(mine.labels, theirs.labels)
