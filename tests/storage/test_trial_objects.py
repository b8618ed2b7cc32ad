"""Which state an attempt starts from, what it replaces, what is cleared away; an outage is told once and waited out."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fashion.bucket.address import parse_address
from fashion.bucket.store import Store
from fashion.errors import BlockedError, CheckpointError
from fashion.storage import trial_objects as module
from fashion.storage.trial_objects import Attempt, clear, fetch_best
from tests.support.servers.s3_server import Server

RUN = parse_address("s3://sweeps/team/lr")
TRIAL = "team/lr/trials/0007"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that gives up after a second; connections belong to one test's server."""
    module.opened.cache_clear()
    monkeypatch.setattr(module, "opened", lambda address: Store(address, patience=0.5))
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)


def standing(path: Path) -> tuple[int, int]:
    """Of the states in these tests, which are JSON."""
    try:
        epoch, step = json.loads(path.read_text())
    except ValueError:
        return 0, 0
    return epoch, step


def state(server: Server, name: str, epoch: int, step: int = 0) -> None:
    server.write("sweeps", f"{TRIAL}/{name}", json.dumps([epoch, step]).encode())


def weights(epoch: int, backbone: str = "") -> bytes:
    """A safetensors file of no tensors, with the header that a trial's has."""
    about: dict[str, Any] = {"report": {"trial": 7, "epoch": epoch}, "config": {}, "data_fingerprint": ""}
    about |= {"backbone": backbone} if backbone else {}
    header = json.dumps({"__metadata__": {"fashion": json.dumps(about)}}).encode()
    return struct.pack("<Q", len(header)) + header


def begun(folder: Path) -> tuple[Attempt, list[str]]:
    attempt = Attempt(RUN, 7, folder)
    return attempt, list(attempt.begin(standing, folder / "last.pt"))


def test_it_starts_from_the_furthest_state_of_any_attempt_and_replaces_those_before(s3: Server, tmp_path: Path) -> None:
    state(s3, "last-0002-aaaaaaaa.pt", 2)
    state(s3, "last-0010-bbbbbbbb.pt", 10)
    state(s3, "last-0009.00120-cccccccc.pt", 9, 120)
    attempt, told = begun(tmp_path)
    assert standing(tmp_path / "last.pt") == (10, 0)
    assert (attempt.up, told) == ((10, 0), [])
    (tmp_path / "last.pt").write_text("[10, 3]")
    attempt.put_state((10, 3), tmp_path / "last.pt")
    assert s3.names("sweeps", TRIAL) == [f"{TRIAL}/last-0010.00003-{attempt.mark}.pt"]
    attempt.put_state((11, 0), tmp_path / "last.pt")
    assert s3.names("sweeps", TRIAL) == [f"{TRIAL}/last-0011-{attempt.mark}.pt"]


def test_a_process_that_was_cut_off_takes_nothing_from_the_one_that_goes_on(s3: Server, tmp_path: Path) -> None:
    old, _ = begun(tmp_path / "old")
    new, _ = begun(tmp_path / "new")
    for attempt, epoch in ((new, 5), (old, 3)):
        (attempt.folder / "last.pt").write_text(json.dumps([epoch, 0]))
        attempt.put_state((epoch, 0), attempt.folder / "last.pt")
    begun(tmp_path / "third")
    assert standing(tmp_path / "third" / "last.pt") == (5, 0)


def test_what_a_process_left_on_this_machine_goes_up_before_anything_else(s3: Server, tmp_path: Path) -> None:
    first, _ = begun(tmp_path)
    assert first.up == (0, 0)
    (tmp_path / "last.pt").write_text("[4, 0]")
    for epoch in (2, 3, 9):  # 9: half an epoch that was not finished
        (tmp_path / f"best-{epoch:04d}.safetensors").write_bytes(weights(epoch))
        (tmp_path / f"val-{epoch:04d}.parquet").write_bytes(b"p")
    (tmp_path / ".last-0004.00000.tmp").write_text("")
    state(s3, "last-0002-aaaaaaaa.pt", 2)
    s3.write("sweeps", f"{TRIAL}/best-0002.safetensors", weights(2))
    second, _ = begun(tmp_path)
    assert standing(tmp_path / "last.pt") == (4, 0)
    assert {name.removeprefix(f"{TRIAL}/") for name in s3.names("sweeps", TRIAL)} == {
        "best-0002.safetensors", "best-0003.safetensors", "val-0003.parquet", f"last-0004-{second.mark}.pt"
    }  # fmt: skip
    assert not list(tmp_path.glob(".last-*"))


def test_what_another_sweep_of_that_name_left_here_is_forgotten(s3: Server, tmp_path: Path) -> None:
    s3.write("sweeps", "team/lr/manifest.json", b'{"created": "monday"}')
    begun(tmp_path)
    (tmp_path / "last.pt").write_text("[4, 0]")
    begun(tmp_path)
    assert standing(tmp_path / "last.pt") == (4, 0)
    s3.write("sweeps", "team/lr/manifest.json", b'{"created": "tuesday"}')
    for name in s3.names("sweeps", TRIAL):
        s3.client().delete_object(Bucket="sweeps", Key=name)
    attempt, _ = begun(tmp_path)
    assert not (tmp_path / "last.pt").exists()
    assert attempt.up == (0, 0)


def test_a_state_that_is_none_is_told_and_passed_over(s3: Server, tmp_path: Path) -> None:
    s3.write("sweeps", f"{TRIAL}/last-0009-aaaaaaaa.pt", b"PK")
    state(s3, "last-0003-bbbbbbbb.pt", 3)
    attempt, told = begun(tmp_path)
    assert standing(tmp_path / "last.pt") == (3, 0)
    assert told == [
        f"s3://sweeps/{TRIAL}/last-0009-aaaaaaaa.pt: no state that this trial can go on from; "
        "it looks for an earlier one"
    ]
    attempt.put_state((4, 0), tmp_path / "last.pt")
    # What it is nobody knows: it goes when the trial has ended, or has come so far.
    assert f"{TRIAL}/last-0009-aaaaaaaa.pt" in s3.names("sweeps", TRIAL)


def test_the_winners_weights_come_with_the_backbone_that_they_need(s3: Server, tmp_path: Path) -> None:
    backbone = "backbone-tiny-abc.safetensors"
    folder = tmp_path / "worker" / "trials" / "0007"
    attempt, again = begun(folder)[0], begun(folder)[0]
    (folder / "best-0003.safetensors").write_bytes(weights(3, backbone))
    (folder / "val-0003.parquet").write_bytes(b"p")
    (folder.parent / backbone).write_bytes(b"backbone")
    attempt.put_best(3)
    puts = [path for method, path in s3.requests if method == "PUT"]
    again.put_best(3)
    more = [path for method, path in s3.requests if method == "PUT"][len(puts) :]
    assert sum(backbone in path for path in puts) == 1
    assert not any(backbone in path for path in more)  # for all trials once
    fetch_best(Store(RUN), tmp_path / "driver", 7, 3)
    fetched = tmp_path / "driver" / "trials"
    assert (fetched / "0007" / "best-0003.safetensors").read_bytes() == weights(3, backbone)
    assert (fetched / backbone).read_bytes() == b"backbone"
    gets = len(s3.requests)
    fetch_best(Store(RUN), tmp_path / "driver", 7, 3)
    assert len(s3.requests) == gets  # nothing is fetched twice
    with pytest.raises(
        CheckpointError, match=r"s3://sweeps/team/lr/trials/0007/best-0004.safetensors: the checkpoint is"
    ):
        fetch_best(Store(RUN), tmp_path / "driver", 7, 4)


def test_an_ended_trial_keeps_its_best_alone(s3: Server) -> None:
    for name in ("last-0002-aaaaaaaa.pt", "last-0009.00120-cccccccc.pt", "best-0001.safetensors", "val-0001.parquet",
                 "best-0002.safetensors", "val-0002.parquet", "error.txt", "tb/events.out"):  # fmt: skip
        s3.write("sweeps", f"{TRIAL}/{name}", b"x")
    s3.write("sweeps", "team/lr/trials/0070/last-0001-aaaaaaaa.pt", b"x")
    clear(Store(RUN), 7, 2)
    kept = ["best-0002.safetensors", "error.txt", "tb/events.out", "val-0002.parquet"]
    assert s3.names("sweeps", f"{TRIAL}/") == [f"{TRIAL}/{name}" for name in kept]
    assert s3.names("sweeps", "team/lr/trials/0070") == ["team/lr/trials/0070/last-0001-aaaaaaaa.pt"]
    clear(Store(RUN), 7, None)
    assert s3.names("sweeps", f"{TRIAL}/") == [f"{TRIAL}/error.txt", f"{TRIAL}/tb/events.out"]


def test_an_outage_at_the_start_is_told_and_waited_out(s3: Server, tmp_path: Path) -> None:
    state(s3, "last-0002-aaaaaaaa.pt", 2)
    s3.faults.fail(503)
    attempt = Attempt(RUN, 7, tmp_path)
    told = attempt.begin(standing, tmp_path / "last.pt")
    assert next(told) == "s3://sweeps does not answer; the trial goes on when it does"
    s3.faults.heal()
    assert [text.rpartition(",")[0] for text in told] == ["s3://sweeps answers again"]
    assert standing(tmp_path / "last.pt") == (2, 0)


def test_an_outage_that_lasts_and_a_refusal_stop_the_sweep(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "AWAY_SECONDS", 1.0)
    s3.faults.refuse()
    with pytest.raises(
        BlockedError, match=r"does not answer.* It did not answer for 0 minutes. Once it does, the same command goes on"
    ):
        begun(tmp_path)
    s3.faults.fail(403)
    met = s3.faults.met
    with pytest.raises(BlockedError, match="may not be read or written with these credentials"):
        begun(tmp_path)
    assert s3.faults.met - met <= 2  # waiting would be no use
