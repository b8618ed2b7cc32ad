"""Data sets in a bucket: pushed and fetched over S3's own protocol, through failures, and the same pixels in the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import s3_server
from s3_server import Server

from fashion.address import Address, parse_address
from fashion.config import TrialConfig
from fashion.data import fetch
from fashion.data.demo import write_demo
from fashion.data.layout import read_dataset, read_unchanged
from fashion.data.pack import Pack
from fashion.data.packed import MANIFEST, Form
from fashion.data.push import Sent, push
from fashion.data.remote import Copy, on_this_machine, place_of
from fashion.errors import BlockedError, DataError, StorageError
from fashion.model.weights import resolve_weights
from fashion.task import training_data

s3 = s3_server.s3  # the fixture
IMAGES, LISTS = 60, 8  # of the data set here
HERE = parse_address("s3://sweeps/data/demo")
FORM: Form = (24, "stretch", "bicubic")


def quiet(label: str, done: int, total: int) -> None:
    pass


def pushed(root: Path, address: Address = HERE, *forms: Form, replace: bool = False) -> Sent:
    return push(read_dataset(root), address, forms, replace, quiet)


def names(server: Server, method: str) -> list[str]:
    """Objects that requests of this method were for, without lists."""
    return [path.removeprefix("/sweeps/") for verb, path in server.requests if verb == method and "?list" not in path]


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller than other tests': a server that is written in Python takes 10 ms for each image."""
    return write_demo(tmp_path_factory.mktemp("data") / "demo", train=40, val=12, test=8, size=32)


@pytest.fixture
def copy_of_demo(tmp_path: Path, demo_root: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(demo_root, tmp_path / "mine"))


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
        assert (mine.labels is None and theirs.labels is None) or np.array_equal(mine.labels, theirs.labels)
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
    import torch

    found = [
        training_data(place, fingerprint, config, weights, tmp_path / str(number), torch.device("cpu"))
        for number, place in enumerate((demo_root, HERE, packed))
    ]
    for each in found[1:]:
        for mine, theirs in ((found[0].train, each.train), (found[0].val, each.val)):
            assert np.array_equal(mine.images, theirs.images)
            assert np.array_equal(mine.labels, theirs.labels)
        assert each.attributes == found[0].attributes
    assert not list((tmp_path / "2").glob("*.arrow")), "nothing was decoded"
    assert isinstance(found[2].train.images.base, np.ndarray | memoryview) or found[2].train.images.base is not None


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


def test_a_list_that_is_gone_there_is_gone_here(s3: Server, copy_of_demo: Path, tmp_path: Path) -> None:
    pushed(copy_of_demo)
    root = on_this_machine(HERE, tmp_path)
    assert "test" in read_dataset(root).splits
    (copy_of_demo / "split" / "test.txt").unlink()
    (copy_of_demo / "split" / "test_attr.txt").unlink(missing_ok=True)
    sent = pushed(copy_of_demo, replace=True)
    assert sent.left == 8, "the images of that split, which nothing names any more"
    on_this_machine(HERE, tmp_path)
    assert "test" not in read_dataset(root).splits
    assert read_dataset(root).fingerprint() == sent.fingerprint


def test_an_interrupted_fetch_goes_on(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(demo_root)
    monkeypatch.setattr("fashion.data.fetch.WAIT", 0.5)
    last = read_dataset(demo_root).splits["val"].images[-1]
    s3.faults.fail(403, named=last)
    s3.requests.clear()
    with pytest.raises(StorageError):
        on_this_machine(HERE, tmp_path)
    came = {name for name in names(s3, "GET") if "/img/" in name and last not in name}
    assert came
    copy = Copy(HERE, tmp_path)
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
    assert Copy(HERE, tmp_path).root.with_name(Copy(HERE, tmp_path).root.name + ".partial").exists()
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
from fashion.address import parse_address
from fashion.data.remote import on_this_machine
print(on_this_machine(parse_address("s3://sweeps/data/demo"), Path(sys.argv[1])))
"""


def fetching(cache: Path) -> subprocess.Popen[str]:
    """A process of its own, as another sweep on this machine."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )


def test_two_processes_fetch_each_object_once(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    s3.faults.delay(0.05, only=("GET",))
    s3.requests.clear()
    children = [fetching(tmp_path) for _ in range(2)]
    roots = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert roots == {str(Copy(HERE, tmp_path).root)}
    got = [name for name in names(s3, "GET") if not name.endswith(MANIFEST)]
    assert len(got) == len(set(got)) == IMAGES + LISTS


def test_a_damaged_pack_is_refused(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root, HERE, FORM)
    (name,) = [name for name in s3.names("sweeps") if "-train-24" in name]
    content = bytearray(s3.read("sweeps", name))
    content[len(content) // 2] ^= 1
    s3.write("sweeps", name, bytes(content))
    with pytest.raises(DataError, match="sha256") as caught:
        on_this_machine(HERE, tmp_path, [FORM])
    assert "Push it again" in str(caught.value)
    s3.write("sweeps", name, bytes(content[:-1]))
    with pytest.raises(DataError, match="sha256"):
        on_this_machine(HERE, tmp_path, [FORM])
    assert pushed(demo_root, HERE, FORM).sent == 1
    on_this_machine(HERE, tmp_path, [FORM])


def test_a_damaged_image_is_refused(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    name = f"data/demo/{read_dataset(demo_root).splits['train'].images[0]}"
    whole = s3.read("sweeps", name)
    s3.write("sweeps", name, whole[:-100])
    for _ in range(2):
        with pytest.raises(DataError, match="holds what was pushed, with fingerprint"):
            on_this_machine(HERE, tmp_path)
    assert pushed(demo_root).sent == 1
    on_this_machine(HERE, tmp_path)


def test_an_image_that_is_gone_is_named(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    image = read_dataset(demo_root).splits["train"].images[0]
    s3.client().delete_object(Bucket="sweeps", Key=f"data/demo/{image}")
    with pytest.raises(DataError, match="the image file must exist") as caught:
        on_this_machine(HERE, tmp_path)
    assert str(HERE) in str(caught.value)
    assert image in str(caught.value)


def test_a_copy_by_other_means_is_read_as_well(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    for path in sorted(demo_root.rglob("*")):
        if path.is_file():
            s3.write("sweeps", f"data/demo/{path.relative_to(demo_root)}", path.read_bytes())
    s3.write("sweeps", "data/demo/img/", b"")  # as S3's console makes folders
    root = on_this_machine(HERE, tmp_path)
    assert read_dataset(root).fingerprint() == read_dataset(demo_root).fingerprint()


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


def test_another_size_than_those_that_were_pushed_is_named(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root, HERE, FORM)
    with pytest.raises(DataError) as caught:
        on_this_machine(HERE, tmp_path, [(32, "pad", "bilinear")])
    text = str(caught.value)
    assert "resize 24, stretch, bicubic" in text
    assert "data push DIR ADDRESS --resize 32 --fit pad --interpolation bilinear" in text
    sent = pushed(demo_root, HERE, (32, "pad", "bilinear"))
    assert (sent.sent, len(sent.forms)) == (3, 2)
    root = on_this_machine(HERE, tmp_path, [(32, "pad", "bilinear")])
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
    with pytest.raises(DataError, match="1 objects of something else"):
        pushed(demo_root)
    assert s3.names("sweeps") == ["data/demo/precious.txt"]
    assert pushed(demo_root, replace=True).left == 1
    assert s3.read("sweeps", "data/demo/precious.txt") == b"x"


def test_a_wrong_bucket_and_a_wrong_prefix_are_told_in_seconds(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match="there is no such bucket"):
        on_this_machine(parse_address("s3://swepes/data"), tmp_path)
    pushed(demo_root)
    with pytest.raises(DataError, match="There is no data set") as caught:
        on_this_machine(parse_address("s3://sweeps/data"), tmp_path)
    assert "got demo/" in str(caught.value)
    s3.faults.fail(400, "ExpiredToken")
    with pytest.raises(StorageError, match="expired"):
        on_this_machine(HERE, tmp_path)
    assert time.monotonic() - began < 10
    assert not list(tmp_path.glob("data/*/*"))


def test_a_large_file_comes_in_parts(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("store", "data.fetch", "data.push"):
        monkeypatch.setattr(f"fashion.{module}.PART", 5 << 20)  # the least that S3 takes
    form = (240, "stretch", "bicubic")  # 40 images of 172,800 bytes
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


def test_a_copy_that_was_damaged_here_is_noticed_and_can_be_deleted(
    s3: Server, demo_root: Path, tmp_path: Path
) -> None:
    sent = pushed(demo_root, HERE, FORM)
    root = on_this_machine(HERE, tmp_path, [FORM])
    (path,) = root.rglob("*-val-24-*.arrow")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="Delete it"):
        Pack.open_or_build(read_dataset(root), "val", *FORM, verify=True)
    path.unlink()
    on_this_machine(HERE, tmp_path, [FORM], fingerprint=sent.fingerprint)
    Pack.open_or_build(read_dataset(root), "val", *FORM, verify=True)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"fingerprint": "x"}, {"packs": {}}, {"packs": [{"path": "../../etc/passwd"}]},
        {"packs": [{"path": "packs/0123456789abcdef/../x.arrow", "split": "val"}]},
    ],
)  # fmt: skip
def test_a_manifest_of_a_stranger_is_refused(
    s3: Server, demo_root: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    pushed(demo_root, HERE, FORM)
    name = f"data/demo/{MANIFEST}"
    s3.write("sweeps", name, json.dumps({**json.loads(s3.read("sweeps", name)), **change}).encode())
    with pytest.raises(DataError, match="must be as `fashion-sweep data push` wrote it"):
        on_this_machine(HERE, tmp_path, [FORM])


def test_lists_of_another_data_set_beside_packed_images_are_refused(
    s3: Server, demo_root: Path, tmp_path: Path
) -> None:
    pushed(demo_root, HERE, FORM)
    lines = s3.read("sweeps", "data/demo/split/val_attr.txt").decode().splitlines()
    s3.write("sweeps", "data/demo/split/val_attr.txt", "\n".join([*lines[:-2], lines[-1], lines[-2]]).encode())
    with pytest.raises(DataError, match="belongs to the lists and labels"):
        on_this_machine(HERE, tmp_path, [FORM])


def test_a_full_disk_is_told(s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(demo_root)
    (tmp_path / "data").write_text("a file in its place")
    with pytest.raises(BlockedError, match="FASHION_CACHE"):
        on_this_machine(HERE, tmp_path)
    monkeypatch.setattr("fashion.data.remote.shutil.disk_usage", lambda path: replace_free(100))
    with pytest.raises(BlockedError, match="GB are free"):
        on_this_machine(HERE, tmp_path / "other")


def replace_free(size: int) -> object:
    return type("Usage", (), {"free": size})()


def test_what_is_no_address_is_told() -> None:
    for text in ("http://host/x", "s3://B/x", "s3://bucket//x"):
        with pytest.raises(DataError, match="must"):
            place_of(text)
    assert place_of("data/x") == Path("data/x").absolute()
    assert place_of("gs://bucket/x") == Address("gs", "bucket", "x")


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
    form = (320, "stretch", "bicubic")
    mine = Pack.open_or_build(read_dataset(small), "val", *form, cache_dir=tmp_path)
    assert len(mine) >= 60
    for forms in ((), (form,)):
        address = HERE / str(len(forms))
        pushed(small, address, *forms)
        copy = read_dataset(on_this_machine(address, tmp_path, [form]))
        theirs = Pack.open_or_build(copy, "val", *form, cache_dir=tmp_path / "theirs")
        assert np.array_equal(mine.images, theirs.images)
        assert np.array_equal(mine.labels, theirs.labels)
