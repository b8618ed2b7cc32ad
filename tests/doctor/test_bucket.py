"""What `fashion-sweep doctor` says of buckets: against an S3 server that is well, and one that is not."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fashion.bucket.address import parse_address
from fashion.config.data import Form
from fashion.data.demo import write_demo
from fashion.data.layout import read_dataset
from fashion.data.remote.push import push
from fashion.doctor import bucket
from fashion.doctor.bucket import Bucket, examine_bucket
from fashion.doctor.diagnosis import Diagnosis
from fashion.doctor.examine import Request, examine
from fashion.doctor.request import request_for
from fashion.errors import Problem
from fashion.spec.sweep_spec import load_spec
from tests.support.servers.s3_server import Server, environment

RUNS, DATA = "s3://sweeps/runs", "s3://sweeps/data/demo"
FORM = Form(24)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("data") / "demo", train=6, val=5, test=5, size=32)


def storage(tmp_path: Path, address: str = RUNS) -> list[Diagnosis]:
    return examine_bucket("n", Bucket("storage", parse_address(address), tmp_path, writes=True))


def data(tmp_path: Path, *forms: Form, address: str = DATA) -> list[Diagnosis]:
    return examine_bucket("n", Bucket("data.root", parse_address(address), tmp_path, forms=forms))


def the_one(found: list[Diagnosis], check: str) -> Problem:
    (bad,) = [each for each in found if not each.ok]
    assert bad.check == check
    assert bad.problem.value
    assert bad.problem.fix
    return bad.problem


def pushed(root: Path, *forms: Form) -> None:
    push(read_dataset(root), parse_address(DATA), forms, True, lambda label, done, total: None)


def test_a_healthy_bucket_is_well_and_nothing_stays_in_it(s3: Server, tmp_path: Path) -> None:
    found = storage(tmp_path)
    assert {each.check: each.ok for each in found} == dict.fromkeys(
        ("bucket", "credentials", "writable", "clock", "speed", "latency"), True
    )
    assert not any(each.problem.fix for each in found)
    assert s3.names("sweeps") == []


@pytest.mark.parametrize("forms", [(), (FORM,)])
def test_a_data_set_that_can_be_fetched_is_well(
    s3: Server, small: Path, tmp_path: Path, forms: tuple[Form, ...]
) -> None:
    pushed(small, *forms)
    before = s3.names("sweeps")
    found = data(tmp_path, FORM)
    assert all(each.ok for each in found), found
    assert {each.check for each in found} == {"bucket", "credentials", "data"} | ({"free"} if forms else set())
    assert s3.names("sweeps") == before, "a data set is read, and not written to"


def test_a_wrong_bucket_is_found(s3: Server, tmp_path: Path) -> None:
    for found in (storage(tmp_path, "s3://swepes/runs"), data(tmp_path, address="s3://swepes/data")):
        problem = the_one(found, "bucket")
        assert problem.value == "there is no such bucket"
        assert "correct the name" in problem.fix


@pytest.mark.parametrize(
    ("status", "code", "value", "fix"),
    [
        (400, "ExpiredToken", "the credentials have expired", "aws sso login"),
        (403, "InvalidAccessKeyId", "the credentials are not accepted", "aws sts get-caller-identity"),
        (403, "AccessDenied", "may not be read or written with these credentials", "policy"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong", "NTP"),
    ],
)
def test_credentials_that_are_refused_are_found(
    s3: Server, tmp_path: Path, status: int, code: str, value: str, fix: str
) -> None:
    s3.faults.fail(status, code)
    problem = the_one(storage(tmp_path), "bucket")
    assert problem.value == value
    assert fix in problem.fix


def test_no_credentials_are_found_within_seconds(s3: Server, tmp_path: Path) -> None:
    with environment({}):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.pop(name)
        began = time.monotonic()
        problem = the_one(storage(tmp_path), "bucket")
        os.environ.update(s3.env)
    assert problem.value == "no credentials were found"
    assert time.monotonic() - began < 10


def test_a_store_that_does_not_answer_is_found_within_seconds(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 1.0)
    s3.faults.refuse()
    began = time.monotonic()
    assert "does not answer" in the_one(storage(tmp_path), "bucket").value
    assert time.monotonic() - began < 5


def test_a_bucket_that_may_only_be_read_is_found(s3: Server, tmp_path: Path) -> None:
    s3.faults.fail(403, only=("PUT",))
    assert "may not be read or written" in the_one(storage(tmp_path), "writable").value


def test_a_bucket_whose_objects_may_not_be_removed_is_found(s3: Server, tmp_path: Path) -> None:
    s3.faults.fail(403, only=("POST", "DELETE"))
    assert "may not be read or written" in the_one(storage(tmp_path), "writable").value


def test_a_store_without_conditional_writes_is_found(s3: Server, tmp_path: Path) -> None:
    s3.ignores_conditions = True
    problem = the_one(storage(tmp_path), "writable")
    assert "under a condition" in problem.value
    assert "conditional writes" in problem.fix
    assert s3.names("sweeps") == []


def test_a_slow_store_is_found(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "MOST_LATENCY", 0.3)
    monkeypatch.setattr(bucket, "LEAST_SPEED", 1e8)
    s3.faults.delay(0.4)
    found = {each.check: each for each in storage(tmp_path) if not each.ok}
    assert found.keys() == {"speed", "latency"}
    assert "MB/s up" in found["speed"].problem.value
    assert "region" in found["latency"].problem.fix


@pytest.mark.parametrize("ahead", [-100, 100])
def test_a_clock_that_differs_from_the_stores_is_found(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - ahead)
    problem = the_one(storage(tmp_path), "clock")
    assert problem.value.startswith(f"{'+' if ahead > 0 else '-'}{abs(ahead) // 100}") or "99" in problem.value
    assert "NTP" in problem.fix


@pytest.mark.parametrize(("hours", "ok"), [(0.5, False), (8, True)])
def test_credentials_that_end_soon_are_found(s3: Server, tmp_path: Path, hours: float, ok: bool) -> None:
    end = datetime.now(UTC) + timedelta(hours=hours)
    with environment({"AWS_CREDENTIAL_EXPIRATION": end.isoformat(timespec="seconds")}):
        found = storage(tmp_path)
    (credentials,) = [each for each in found if each.check == "credentials"]
    assert credentials.ok == ok
    assert f"{end:%H:%M}" in credentials.problem.value
    assert [each.check for each in found if not each.ok] == ([] if ok else ["credentials"])


def test_credentials_that_have_ended_are_found(s3: Server, tmp_path: Path) -> None:
    with environment({"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}):
        assert the_one(storage(tmp_path), "bucket").value == "the credentials have expired"


def test_a_missing_data_set_and_parts_of_one_are_found(s3: Server, small: Path, tmp_path: Path) -> None:
    problem = the_one(data(tmp_path), "data")
    assert problem.value.startswith("nothing (")
    assert "data push" in problem.fix
    pushed(small)
    last = read_dataset(small).splits["val"].images[-1]
    for name in (last, "split/val_attr.txt"):
        s3.client().delete_object(Bucket="sweeps", Key=f"data/demo/{name}")
        assert the_one(data(tmp_path), "data").value == f"no {name}"
        s3.write("sweeps", f"data/demo/{name}", (small / name).read_bytes())
    s3.client().delete_object(Bucket="sweeps", Key="data/demo/fashion-sweep.json")
    s3.write("sweeps", "data/demo/fashion-sweep.pushing.json", b"{}")
    assert "is being pushed" in the_one(data(tmp_path), "data").value


def test_a_header_line_is_not_taken_for_an_image(s3: Server, small: Path, tmp_path: Path) -> None:
    pushed(small)
    names = "split/train.txt", "split/val.txt"
    for name in names:
        s3.write("sweeps", f"data/demo/{name}", b"picture_filename\n" + (small / name).read_bytes())
    assert all(each.ok for each in data(tmp_path))
    s3.write("sweeps", "data/demo/split/val.txt", b"\xef\xbb\xbfpicture_filename\r\n\r\n")
    assert the_one(data(tmp_path), "data").value == "no image in split/val.txt"
    # An object of that name makes the line an image.
    s3.write("sweeps", "data/demo/picture_filename", b"")
    assert all(each.ok for each in data(tmp_path))


def test_packed_images_of_another_size_or_cut_off_are_found(s3: Server, small: Path, tmp_path: Path) -> None:
    pushed(small, FORM)
    problem = the_one(data(tmp_path, Form(32, "pad")), "data")
    assert "resize 24, stretch, bicubic" in problem.value
    assert "--resize 32 --fit pad" in problem.fix
    (name,) = [name for name in s3.names("sweeps") if "-val-24-" in name]
    s3.write("sweeps", name, s3.read("sweeps", name)[:-1])
    assert "cut off" in the_one(data(tmp_path, FORM), "data").value


def test_too_little_room_for_the_packed_images_is_found(
    s3: Server, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(small, FORM)
    monkeypatch.setattr(bucket, "LEAST_FREE", 10**18)
    assert "FASHION_CACHE" in the_one(data(tmp_path, FORM), "free").fix


def test_a_specs_buckets_are_examined(s3: Server, small: Path, tmp_path: Path) -> None:
    pushed(small, FORM)
    path = tmp_path / "s.yaml"
    path.write_text(
        json.dumps({"data": {"root": DATA, "resize": {"choice": [24, 28]}, "crop": 20}, "storage": RUNS,
                    "model": {"backbone": "tiny", "weights": "none"}, "train": {"epochs": 2}})
    )  # fmt: skip
    request = request_for(load_spec(path))
    assert [(each.name, str(each.address), each.writes) for each in request.buckets] == [
        ("storage", RUNS, True), ("data.root", DATA, False)
    ]  # fmt: skip
    assert request.buckets[1].forms == (Form(24), Form(28))
    assert request.data_root is None
    assert [folder.name for folder in request.folders] == ["cache"]
    found = [each for each in examine(Request(buckets=request.buckets)) if not each.ok]
    assert "resize 28" in the_one(found, "data").value
