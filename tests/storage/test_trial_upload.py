"""The loop does not wait for the bucket, no report is ahead of it, and any machine goes on from what is there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from fashion.bucket.address import parse_address
from fashion.bucket.store import Store
from fashion.config.trial import TrialConfig
from fashion.data.batches import Worker
from fashion.data.layout import read_dataset
from fashion.errors import BlockedError, Leaving
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.storage import trial_objects
from fashion.storage.trial_objects import STATE, clear
from fashion.training import saver
from fashion.training.task import Heartbeat, Note, Task, TrialEvent
from fashion.training.worker import trial_reports
from tests.support.machines.process_group import leave_together
from tests.support.machines.ray_nodes import wait_until
from tests.support.servers.s3_server import Server
from tests.support.trained import config
from tests.support.workers import run_workers

RUN = parse_address("s3://sweeps/lr")
RECIPE = {"optimizer": "adamw", "lr": 0.005, "schedule": "onecycle", "ema": 0.9, "batch_size": 16}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that gives up after half a second; connections belong to one test's server."""
    monkeypatch.setattr(trial_objects, "opened", lambda address: Store(address, patience=0.5))
    monkeypatch.setattr(trial_objects, "FIRST_PAUSE", 0.05)


def task(root: Path, folder: Path, bucket: bool = True, **train: Any) -> Task:
    wanted: TrialConfig = config(root, **{**RECIPE, **train})
    fingerprint = read_dataset(root).fingerprint()
    cache = folder.parents[2] / "cache"
    return Task(0, wanted, ResolvedWeights("none"), folder, root, fingerprint, cache, 1, RUN if bucket else None)


def machine(tmp_path: Path, name: str) -> Path:
    """The trial's folder on a machine of its own."""
    return tmp_path / name / "trials" / "0000"


def reports(found: list[TrialEvent]) -> list[EpochReport]:
    return [each for each in found if isinstance(each, EpochReport)]


def reports_of(task: Task) -> Iterator[EpochReport]:
    """One by one. A heartbeat may come between them on a slow machine."""
    for each in trial_reports(task, Worker()):
        if not isinstance(each, Heartbeat):
            assert isinstance(each, EpochReport)
            yield each


def numbers(found: list[TrialEvent]) -> list[dict[str, float]]:
    return [each.metrics for each in reports(found)]


@pytest.fixture
def undisturbed(demo_root: Path, tmp_path: Path) -> Callable[..., list[dict[str, float]]]:
    """The numbers of the same trial on a local disk."""

    def train(**options: Any) -> list[dict[str, float]]:
        return numbers(list(trial_reports(task(demo_root, machine(tmp_path, "local"), False, **options), Worker())))

    return train


def states(server: Server) -> list[int]:
    """Epochs of the states in the bucket."""
    names = [name.rpartition("/")[2] for name in server.names("sweeps", "lr/trials/0000")]
    return sorted(int(match[1]) for match in map(STATE.fullmatch, names) if match)


def steps_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(epoch, step) of every training step from now on."""
    from fashion.training import worker as module

    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(module._ProgressNote, "__call__", lambda self, epoch, step, steps: seen.append((epoch, step)))
    return seen


def test_the_loop_does_not_wait_for_the_bucket_and_no_report_is_ahead_of_it(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:  # fmt: skip
    s3.faults.delay(1.0, only=("PUT",))  # an epoch takes a fifth of that
    seen = steps_seen(monkeypatch)
    found: list[TrialEvent] = []
    for each in reports_of(task(demo_root, machine(tmp_path, "a"), epochs=6)):
        if not found:
            assert seen[-1] >= (3, 1)  # while the first epoch's files were on their way
        assert max(states(s3)) >= each.epoch
        found.append(each)
    assert numbers(found) == undisturbed(epochs=6)
    puts = [path for method, path in s3.requests if method == "PUT" and "last-" in path]
    assert len(puts) < 6  # of several states that wait the newest is enough
    best = min(reports(found), key=lambda report: report.metrics["val_loss"]).epoch
    assert f"lr/trials/0000/best-{best:04d}.safetensors" in s3.names("sweeps")
    assert f"lr/trials/0000/val-{best:04d}.parquet" in s3.names("sweeps")
    assert states(s3) == [6]


def test_every_best_epoch_is_in_the_bucket_when_it_is_recorded(
    s3: Server, demo_root: Path, tmp_path: Path
) -> None:  # fmt: skip
    """Also when a later one is there already: the scheduler may stop the trial at any report."""
    s3.faults.delay(0.5, only=("PUT",))
    best = float("inf")
    for each in reports_of(task(demo_root, machine(tmp_path, "a"), epochs=6)):
        if each.metrics["val_loss"] < best:
            best = each.metrics["val_loss"]
            assert f"lr/trials/0000/best-{each.epoch:04d}.safetensors" in s3.names("sweeps")


def test_with_the_bucket_away_it_trains_so_far_ahead_then_waits_then_goes_on(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:  # fmt: skip
    monkeypatch.setattr(saver, "AHEAD", 2)
    monkeypatch.setattr(saver, "ALIVE_SECONDS", 0.5)
    seen = steps_seen(monkeypatch)
    trial = trial_reports(task(demo_root, machine(tmp_path, "a"), epochs=12), Worker())
    found = [next(trial)]  # the bucket was there at the start
    s3.faults.fail(503)
    rest: list[TrialEvent] = []
    thread = threading.Thread(target=lambda: rest.extend(trial))
    thread.start()
    wait_until(lambda: any("does not answer" in str(each) for each in rest), "the note")

    def still() -> bool:
        steps = len(seen)
        time.sleep(3)
        return len(seen) == steps

    wait_until(still, "the end of its patience")
    assert thread.is_alive()
    assert seen[-1] < (12, 1)
    s3.faults.heal()
    thread.join(100)
    found += rest
    notes = [each.text for each in found if isinstance(each, Note)]
    assert notes[0] == "s3://sweeps does not answer; the trial goes on meanwhile"
    assert notes[1].startswith("s3://sweeps answers again, after ")
    assert len(notes) == 2
    assert found.count(Heartbeat()) > 2  # meanwhile it said that it was alive
    assert numbers(found) == undisturbed(epochs=12)


@pytest.mark.parametrize("how", ["within", "after"])
def test_a_connection_cut_in_an_upload_leaves_nothing_half(
    s3: Server, demo_root: Path, tmp_path: Path, how: str, undisturbed: Any
) -> None:  # fmt: skip
    s3.faults.cut(how, only=("PUT",), times=3)
    found = list(trial_reports(task(demo_root, machine(tmp_path, "a")), Worker()))
    assert s3.faults.met == 3
    assert numbers(found) == undisturbed()
    assert states(s3) == [3]


def test_a_bucket_that_stays_away_stops_the_sweep_and_the_same_machine_goes_on(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:  # fmt: skip
    monkeypatch.setattr(trial_objects, "AWAY_SECONDS", 2.0)
    trial = trial_reports(task(demo_root, machine(tmp_path, "a"), epochs=4), Worker())
    first = [next(trial)]
    s3.faults.refuse()
    with pytest.raises(BlockedError, match="does not answer"):
        first.extend(trial)
    s3.faults.heal()
    seen = steps_seen(monkeypatch)
    again = list(trial_reports(task(demo_root, machine(tmp_path, "a"), epochs=4), Worker()))
    assert not seen  # all was trained, and only had to be brought there
    assert numbers(again) == undisturbed(epochs=4)
    assert states(s3) == [4]


def test_credentials_that_expire_stop_it_at_once(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    trial = trial_reports(task(demo_root, machine(tmp_path, "a"), epochs=4), Worker())
    next(trial)
    s3.faults.fail(400, "ExpiredToken")
    with pytest.raises(BlockedError, match="the credentials have expired"):
        list(trial)


def test_any_machine_goes_on_to_the_same_numbers(
    s3: Server, demo_root: Path, tmp_path: Path, undisturbed: Any
) -> None:  # fmt: skip
    with closing(trial_reports(task(demo_root, machine(tmp_path, "a")), Worker())) as trial:
        next(trial)
    found = list(trial_reports(task(demo_root, machine(tmp_path, "b")), Worker()))
    assert numbers(found) == undisturbed()
    assert max(report.attempt for report in reports(found)) == 2
    assert not machine(tmp_path, "b").exists()  # all of it is in the bucket


def test_what_was_being_put_when_the_scheduler_stopped_the_trial_does_not_stay(
    s3: Server, demo_root: Path, tmp_path: Path
) -> None:  # fmt: skip
    trial = trial_reports(task(demo_root, machine(tmp_path, "a"), epochs=6), Worker())
    next(trial)
    s3.faults.delay(2.0, only=("PUT",))
    before = len(s3.requests)
    wait_until(lambda: next(trial, None) is None or any(m == "PUT" for m, _ in s3.requests[before:]), "an upload")
    trial.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("checkpoint")]
    clear(Store(RUN), 0, 1)  # as the driver does
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "upload"], "the thread's end", 20)
    names = {name.rpartition("/")[2] for name in s3.names("sweeps", "lr/trials")}
    assert names <= {"best-0001.safetensors", "val-0001.parquet"}


def test_a_put_that_failed_when_the_trial_was_stopped_does_not_stay_either(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights were gone from the disk when their turn came, after the predictions that belong to them."""
    came, go_on = threading.Event(), threading.Event()
    put = trial_objects.Attempt.put

    def slow(self: trial_objects.Attempt, path: Path, folder: str | None = None) -> None:
        if path.name != "best-0001.safetensors":
            return put(self, path, folder)
        came.set()
        go_on.wait(20)
        raise FileNotFoundError(path)

    monkeypatch.setattr(trial_objects.Attempt, "put", slow)
    trial = trial_reports(task(demo_root, machine(tmp_path, "a"), epochs=6), Worker())
    for _ in trial:  # no report, as long as the bucket lacks it: signs of life
        if came.is_set():
            break
    trial.close()
    assert s3.names("sweeps", "lr/trials")
    go_on.set()
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "upload"], "the thread's end", 20)
    assert s3.names("sweeps", "lr/trials") == []


def leaving_at(monkeypatch: pytest.MonkeyPatch, *when: tuple[int, int]) -> Callable[[], bool]:
    seen = steps_seen(monkeypatch)
    return lambda: bool(seen) and seen[-1] in when


@pytest.mark.parametrize("bucket", [True, False])
@pytest.mark.parametrize(
    "when", [(2, 5), (2, 6), *(pytest.param(each, marks=pytest.mark.slow) for each in ((1, 2), (3, 1)))]
)
def test_a_trial_that_has_to_leave_goes_on_from_that_very_step(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any,
    bucket: bool, when: tuple[int, int],
) -> None:  # fmt: skip
    leaves = leaving_at(monkeypatch, when)
    found: list[TrialEvent] = []
    with pytest.raises(Leaving, match=f"in epoch {when[0]}, after step {when[1]} of 6"):
        found.extend(trial_reports(task(demo_root, machine(tmp_path, "a"), bucket), Worker(), leaves))
    torch.manual_seed(99)
    seen = steps_seen(monkeypatch)
    again = list(trial_reports(task(demo_root, machine(tmp_path, "b" if bucket else "a"), bucket), Worker()))
    after = (when[0], when[1] + 1) if when[1] < 6 else (when[0] + 1, 1)
    assert seen[0] == after
    assert numbers(again) == undisturbed()
    assert numbers(again)[: when[0] - 1] == numbers(found)[: when[0] - 1]


def test_it_may_leave_twice_in_one_epoch(
    s3: Server, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:  # fmt: skip
    for name, when in {"a": (2, 2), "b": (2, 4)}.items():
        with pytest.raises(Leaving):
            list(trial_reports(task(demo_root, machine(tmp_path, name)), Worker(), leaving_at(monkeypatch, when)))
    assert numbers(list(trial_reports(task(demo_root, machine(tmp_path, "c")), Worker()))) == undisturbed()


def _worker(rank: int, root: Path, tmp_path: Path, until: str) -> None:
    """One of two workers on machines of their own; `until` "stop" after the first report, "leave" within epoch 2,
    "end"."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setattr("fashion.training.loop.DIVERGENCE_CHECK_STEPS", 4)
    patch.setattr("fashion.training.saver.AHEAD", 0)  # so that it is known how far the bucket is
    group = torch.distributed
    wait = timedelta(seconds=120)
    group.init_process_group("gloo", init_method=f"file://{tmp_path}/{until}", rank=rank, world_size=2, timeout=wait)
    found: list[TrialEvent] = []
    trial: Iterator[TrialEvent] = trial_reports(
        task(root, machine(tmp_path, f"{until}-{rank}"), until != "local"), Worker(rank, 2),
        lambda: (until, rank) == ("leave", 1),
    )  # fmt: skip
    try:
        for each in trial:
            found.append(each)
            if until == "stop":
                break
    except Leaving as error:
        found.append(Note(str(error)))
    (tmp_path / f"{until}-{rank}.json").write_text(
        json.dumps([numbers(found), [each.text for each in found if isinstance(each, Note)]])
    )
    leave_together()


@pytest.mark.further
def test_workers_of_several_machines_go_on_from_the_bucket(s3: Server, demo_root: Path, tmp_path: Path) -> None:
    found = {}
    for until in ("local", "stop", "leave", "end"):
        run_workers(_worker, 2, demo_root, tmp_path, until)
        found[until] = [json.loads((tmp_path / f"{until}-{rank}.json").read_text()) for rank in range(2)]
        assert found[until][0][0] == found[until][1][0]
    assert found["leave"][0][1][-1] == "in epoch 2, after step 4 of 6"
    assert found["end"][0][0] == found["local"][0][0]
    assert len(found["end"][0][0]) == 3
