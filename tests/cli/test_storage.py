"""`ls`, `show`, `best` and `run` where storage is a bucket, as typed, on a machine that has nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fashion.bucket.address import parse_address
from fashion.bucket.store import Store
from fashion.cli.main import main
from fashion.storage.working_copy import working_copy
from tests.support.servers.s3_server import Server, environment
from tests.support.stored_runs import another_machine, record_lr
from tests.support.typed import typed

pytestmark = pytest.mark.usefixtures("machine")

STORAGE = "s3://sweeps/team/a"
OFF = "http://127.0.0.1:1"


@pytest.fixture
def bucket(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that was made on one machine; this one is another, which has nothing."""
    another_machine(monkeypatch, tmp_path / "first machine")
    record_lr(STORAGE)
    s3.write("sweeps", "team/a/pictures/1.jpg", b"no run")
    another_machine(monkeypatch, tmp_path / "second machine")
    return STORAGE


def test_ls(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "ls", "--storage", bucket)
    assert [line.split()[:5] for line in text.splitlines()[1:]] == [["lr", "unfinished", "3/4", "0.4000", "75.00"]]
    (entry,) = json.loads(typed(capsys, "ls", "--storage", bucket, "--json"))
    assert (entry["path"], entry["state"], entry["best"]["epoch"]) == (f"{STORAGE}/lr", "unfinished", 2)
    assert abs(time.time() - entry["active"]) < 120


def test_ls_of_a_bucket_without_runs_and_with_a_damaged_one(
    bucket: str,
    s3: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "No runs in s3://sweeps/none. Start one:" in typed(capsys, "ls", "--storage", "s3://sweeps/none")
    s3.write("sweeps", "team/a/broken/manifest.json", b"{")
    main(["ls", "--storage", bucket])
    captured = capsys.readouterr()
    assert "broken  damaged" in captured.out
    assert "unfinished" in captured.out
    assert "not valid JSON" in captured.err


@pytest.mark.parametrize("arguments", [["--storage", STORAGE], ["lr", "--storage", STORAGE], [f"{STORAGE}/lr/"]])
def test_show(bucket: str, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    text = typed(capsys, "show", *arguments)
    assert "lr  s3://sweeps/team/a/lr  unfinished" in text
    assert "3/4 trials: 1 waiting, 1 completed, 1 stopped, 1 failed" in text
    assert "trial 0, epoch 2 of 4: val_loss 0.4000, val_accuracy 75.00 %" in text
    assert "second machine" not in text


def test_show_one_trial(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "show", f"{STORAGE}/lr", "--trial", "2")
    assert "trial 2 of s3://sweeps/team/a/lr: failed" in text
    assert [line.split()[1] for line in text.splitlines() if line.strip()[:2] in ("1/", "2/")] == ["0.5", "nan"]


@pytest.mark.parametrize("arguments", [["--storage", STORAGE], [f"{STORAGE}/lr"]])
def test_best_is_promoted_in_the_bucket(
    bucket: str,
    s3: Server,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    s3.requests.clear()  # those that recorded the run
    text = typed(capsys, "best", *arguments)
    assert "trial 0, epoch 2 of 4 of s3://sweeps/team/a/lr" in text
    assert "promoted to s3://sweeps/team/a/lr/best" in text
    assert "second machine" not in text
    assert s3.names("sweeps", "team/a/lr/best/") == [
        "team/a/lr/best/README.md",
        "team/a/lr/best/model.json",
        "team/a/lr/best/model.safetensors",
    ]
    model = json.loads(s3.read("sweeps", "team/a/lr/best/model.json"))
    assert (model["run"], model["trial"], model["epoch"]) == ("lr", 0, 2)
    weights = s3.read("sweeps", "team/a/lr/best/model.safetensors")
    assert weights == s3.read("sweeps", "team/a/lr/trials/0000/best-0002.safetensors")
    fetched = [path for method, path in s3.requests if method == "GET" and "/trials/" in path and "best-" in path]
    assert len(fetched) == 1  # the winner's alone
    again = json.loads(typed(capsys, "best", *arguments, "--json"))
    assert again["promoted"] == "s3://sweeps/team/a/lr/best"


def test_a_winner_whose_weights_are_not_there(bucket: str, s3: Server, capsys: pytest.CaptureFixture[str]) -> None:
    Store(parse_address(STORAGE) / "lr").delete(["trials/0000/best-0002.safetensors"])
    with pytest.raises(SystemExit) as caught:
        main(["best", "--storage", bucket])
    assert caught.value.code == 2
    assert (
        "s3://sweeps/team/a/lr/trials/0000/best-0002.safetensors: the checkpoint is missing" in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", [["ls"], ["show"], ["show", "--trial", "0"], ["best"]])
def test_reading_loads_neither_torch_nor_ray_nor_pydantic(bucket: str, command: list[str]) -> None:
    code = (
        "import sys; from fashion.cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'ray', 'pydantic', 'tensorboardX'} & set(sys.modules)), file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", code, *command, "--storage", bucket]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "lrr", "--storage", STORAGE], "s3://sweeps/team/a: holds no such run; got 'lrr'. Did you mean lr?"),
        (["show", f"{STORAGE}/lrr"], "s3://sweeps/team/a/lrr: is no run; got no manifest.json"),
        (["show", "lr", "--storage", STORAGE, "--trial", "9"], "s3://sweeps/team/a/lr: holds no such trial; got 9"),
        (["best", "--storage", "s3://sweeps/none"], "s3://sweeps/none: holds no runs"),
        (["ls", "--storage", "s3://no-such-bucket/x"], "s3://no-such-bucket/x: there is no such bucket"),
        (["show", "--storage", "s3://Sweeps"], "--storage: must name a bucket"),
        (["show", "--storage", "s4://sweeps"], "--storage: must begin with s3:// or gs://"),
        (["best", "s3:/sweeps/team/a/lr"], "RUN: must begin with s3:// or gs://"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_to_do(
    bucket: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def spec(tmp_path: Path, demo_root: Path) -> Path:
    path = tmp_path / "s.yaml"
    sections = {
        "data": {"root": str(demo_root), "resize": 36, "crop": 32},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": 2},
        "search": {"trials": 2},
        "storage": STORAGE,
    }
    path.write_text(json.dumps(sections))
    return path


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((400, "ExpiredToken"), "s3://sweeps/team/a/s: the credentials have expired. Get new ones"),
        ((403, "AccessDenied"), "s3://sweeps/team/a/s: may not be read or written with these credentials"),
        ((403, "InvalidAccessKeyId"), "s3://sweeps/team/a/s: the credentials are not accepted"),
        ((301, "PermanentRedirect"), "s3://sweeps/team/a/s: the bucket is in another region; got region us-east-1"),
    ],
)
def test_a_bucket_that_refuses_is_told_before_anything_starts(
    spec: Path,
    s3: Server,
    capsys: pytest.CaptureFixture[str],
    fault: tuple[int, str],
    message: str,
) -> None:
    s3.faults.fail(*fault)
    refused(capsys, ["run", str(spec)], message)
    assert s3.names("sweeps") == []


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """In seconds, with exit code 2, and nothing was built: no cache of images."""
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert time.monotonic() - began < 40
    assert not list(Path(os.environ["FASHION_CACHE"]).glob("*.arrow"))


def test_other_buckets_that_cannot_be_used(
    spec: Path,
    s3: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused(capsys, ["run", str(spec), "--storage", "s3://nowhere/x"], "s3://nowhere/x/s: there is no such bucket")
    s3.faults.fail(403, only=("PUT",))
    refused(capsys, ["run", str(spec)], "may not be read or written with these credentials")
    s3.faults.heal()
    with environment({"AWS_ENDPOINT_URL": OFF}):
        refused(capsys, ["run", str(spec)], "s3://sweeps/team/a/s: the store does not answer")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(capsys, ["run", str(spec)], "no credentials were found")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("s4://bucket/x", 'must begin with s3:// or gs://, or be a folder; got "s4://bucket/x"'),
        ("s3:/bucket/x", 'must begin with s3:// or gs://, or be a folder; got "s3:/bucket/x"'),
        ("http://bucket/x", "must begin with s3:// or gs://"),
        ("s3://Bucket_/x", "must name a bucket"),
        ("gs://bucket//x", "must have names joined by single slashes"),
    ],
)
def test_addresses_in_a_spec_that_are_none(
    spec: Path, capsys: pytest.CaptureFixture[str], storage: str, message: str
) -> None:
    spec.write_text(spec.read_text().replace(STORAGE, storage).replace(', "storage"', ',\n"storage"'))
    with pytest.raises(SystemExit) as caught:
        main(["check", str(spec)])
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert f"{spec}:2 storage: {message}" in captured.err


def test_trials_of_a_run_that_is_not_there(spec: Path, s3: Server, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["run", str(spec), "--trials", "+2"], f"there is no run {STORAGE}/s to extend")


def test_the_copy_is_where_the_cache_is(bucket: str) -> None:
    assert working_copy(parse_address(STORAGE) / "lr").is_relative_to(os.environ["FASHION_CACHE"])


def test_trials_are_chosen_and_their_logs_printed(bucket: str, s3: Server, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "show", "lr", "--storage", bucket, "--where", "status=failed", "--csv")
    assert [line.split(",")[:2] for line in text.splitlines()[1:]] == [["2", "failed"]]
    s3.write("sweeps", "team/a/lr/trials/0002/error.txt", b"Traceback: it broke\n")
    text = typed(capsys, "logs", "lr", "--storage", bucket)
    assert f"    {STORAGE}/lr/trials/0002/error.txt:\n    Traceback: it broke\n" in text
    text = typed(capsys, "compare", "lr", "--storage", bucket, "--trials", "0,2")
    assert "trial 2 and trial 0 can't be compared image by image: the predictions of trial 0 can't be read" in text
