"""Data sets in a bucket that can't be used: each is refused with what is wrong and what to do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fashion.bucket.address import Address, parse_address
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.data.remote.local_copy import on_this_machine, parse_root
from fashion.data.remote.pushed import MANIFEST
from fashion.errors import BlockedError, DataError, SpecError, StorageError
from fashion.spec.sweep_spec import load_spec
from tests.support import data_in_buckets
from tests.support.data_in_buckets import FORM, HERE, pushed
from tests.support.servers.s3_server import Server

demo_root, copy_of_demo = data_in_buckets.demo_root, data_in_buckets.copy_of_demo  # the fixtures


def test_a_damaged_pack_is_refused(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root, HERE, FORM)
    (name,) = [name for name in s3.names("sweeps") if "-train-24" in name]
    content = bytearray(s3.read("sweeps", name))
    content[len(content) // 2] ^= 1
    s3.write("sweeps", name, bytes(content))
    with pytest.raises(DataError, match="SHA-256") as caught:
        on_this_machine(HERE, tmp_path, [FORM])
    assert "Push it again" in str(caught.value)
    s3.write("sweeps", name, bytes(content[:-1]))
    with pytest.raises(DataError, match="SHA-256"):
        on_this_machine(HERE, tmp_path, [FORM])
    assert pushed(demo_root, HERE, FORM).sent == 1
    on_this_machine(HERE, tmp_path, [FORM])


def test_a_damaged_image_is_refused(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    pushed(demo_root)
    name = f"data/demo/{read_dataset(demo_root).splits['train'].images[0]}"
    whole = s3.read("sweeps", name)
    s3.write("sweeps", name, whole[:-100])
    for _ in range(2):
        with pytest.raises(DataError, match="must hold what was pushed, with fingerprint"):
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
    with pytest.raises(DataError, match="must match the lists and labels"):
        on_this_machine(HERE, tmp_path, [FORM])


def test_a_full_disk_is_told(s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(demo_root)
    (tmp_path / "data").write_text("a file in its place")
    with pytest.raises(BlockedError, match="FASHION_CACHE"):
        on_this_machine(HERE, tmp_path)
    monkeypatch.setattr("fashion.data.contents.shutil.disk_usage", lambda path: replace_free(100))
    with pytest.raises(BlockedError, match="GB are free"):
        on_this_machine(HERE, tmp_path / "other")


def replace_free(size: int) -> object:
    return type("Usage", (), {"free": size})()


@pytest.mark.parametrize("text", ["s3://", "s3://Bucket/x", "s3://bucket/a//b", "http://host/data", " "])
def test_a_spec_names_its_data_well(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps({"data": {"root": text}, "model": {"backbone": "tiny", "weights": "none"}}))
    with pytest.raises(SpecError, match=r"data\.root: must"):
        load_spec(path)
    path.write_text(path.read_text().replace(json.dumps(text), '"gs://bucket/a/b"'))
    assert load_spec(path).trial(0).data.root == "gs://bucket/a/b"


def test_what_is_no_address_is_told() -> None:
    for text in ("http://host/x", "s3://B/x", "s3://bucket//x"):
        with pytest.raises(DataError, match="must"):
            parse_root(text)
    assert parse_root("data/x") == Path("data/x").absolute()
    assert parse_root("gs://bucket/x") == Address("gs", "bucket", "x")
