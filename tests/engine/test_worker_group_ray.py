"""Trials of several workers: the mailbox's rules, and what is left of a trial when one of its processes is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from fashion.data.layout import read_dataset
from fashion.engine import mailbox as module
from fashion.engine.mailbox import Mailbox, Member, TellMailbox, lost_neighbour
from fashion.engine.messages import Failed, Noted, Reported
from fashion.record.run import Run
from fashion.record.scheduler import replay
from fashion.record.trial import EpochReport
from fashion.schedulers.registry import make_scheduler
from fashion.spec.sweep_spec import SweepSpec
from fashion.training.micro_batches import OutOfMemory
from fashion.training.task import Task
from tests.support.machines.descendants import descendants
from tests.support.running import PATIENCE, start, wait_for_reports

# The class itself, without the actor that Ray makes of it.
PlainMailbox = Mailbox.__ray_metadata__.modified_class  # type: ignore[attr-defined]
TASK = cast(Task, "a task")


def report(epoch: int) -> EpochReport:
    return EpochReport(0, 1, epoch, 5, {"val_loss": 1.0}, 0.1, "2026-01-01T00:00:00+00:00")


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 10))


def test_a_group_that_died_waiting_takes_no_trial_and_counts_as_no_attempt() -> None:
    async def scene() -> None:
        mailbox = PlainMailbox(0)
        dead = asyncio.create_task(mailbox.next_task(0, "dead", []))
        await asyncio.sleep(0)
        alive = asyncio.create_task(mailbox.next_task(0, "alive", []))
        assert await dead == (0, None)
        await mailbox.submit(TASK)
        assert await alive == (1, TASK)
        assert mailbox.messages.empty()

    play(scene())


def test_a_trial_is_given_up_when_its_workers_died_too_often() -> None:
    async def scene() -> None:
        mailbox = PlainMailbox(1)
        await mailbox.submit(TASK)
        for group in ("first", "second"):
            assert await mailbox.next_task(0, group, []) == (1, TASK)
        third = asyncio.create_task(mailbox.next_task(0, "third", []))
        assert (await mailbox.take()).message == Failed("its workers died 2 times")
        await mailbox.submit(TASK)  # the next trial starts with a clean sheet, in the same group
        assert await third == (2, TASK)

    play(scene())


def test_a_lost_machine_is_no_failure_of_the_trial() -> None:
    async def scene() -> None:
        mailbox = PlainMailbox(0, 1)
        await mailbox.submit(TASK)
        assert await mailbox.next_task(0, "first", []) == (1, TASK)
        await mailbox.lost_machine()
        await mailbox.lost_machine()  # told twice of one group
        assert await mailbox.next_task(0, "second", []) == (1, TASK)
        await mailbox.lost_machine()
        third = asyncio.create_task(mailbox.next_task(0, "third", []))
        assert (await mailbox.take()).message == Failed("its workers' machines were lost 2 times")
        await mailbox.submit(TASK)
        assert await third == (2, TASK)

    play(scene())


GLOO = RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer")
UNAVAILABLE = WorkerHealthCheckFailedError("a poll failed", ActorUnavailableError("unavailable", None))


class World:
    """Ray's view of two workers, a and b, on nodes 1 and 2. At each look the next of `changes` has gone."""

    def __init__(self, *changes: str) -> None:
        self.changes = [*changes]
        self.gone: set[str] = set()
        self._private = SimpleNamespace(state=SimpleNamespace(actors=self.actor))
        self.calls: list[str] = []
        self.mailbox = SimpleNamespace(
            dismiss=self.remote("dismiss", (1, [("a", "1"), ("b", "2")])),
            lost_machine=self.remote("lost_machine"),
            tell=self.remote("note"),
        )

    def remote(self, name: str, answer: Any = None) -> SimpleNamespace:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return answer

        return SimpleNamespace(remote=call)

    def get(self, answer: Any) -> Any:
        return answer

    def actor(self, identity: str) -> dict[str, str]:
        return {"State": "DEAD" if identity in self.gone else "ALIVE"}

    def nodes(self) -> list[dict[str, Any]]:
        alive = [{"NodeID": node, "Alive": node not in self.gone} for node in ("1", "2")]
        self.gone |= {self.changes.pop(0)} if self.changes else set()
        return alive


@pytest.mark.parametrize(
    ("error", "changes", "lost"),
    [
        (GLOO, ["", "", "2"], True),
        (UNAVAILABLE, ["2"], True),
        (GLOO, ["", "b"], False),  # its process died, its machine is there
        (GLOO, [], False),  # nothing becomes known
        (OutOfMemory("out of memory", 2), ["2"], False),  # told: whatever else happens then
        (WorkerHealthCheckFailedError("a poll failed", RayActorError(preempted=True)), [], True),
        (WorkerHealthCheckFailedError("a poll failed", RayActorError(error_msg="The node has died")), [], True),
    ],
)
def test_ray_is_asked_why_a_worker_went_that_nobody_can_tell_of(
    monkeypatch: pytest.MonkeyPatch, error: Exception, changes: list[str], lost: bool
) -> None:
    world = World(*changes)
    monkeypatch.setattr(module, "ray", world)
    for name, seconds in (("KNOWN_SECONDS", 0.3), ("LOOK_SECONDS", 0.01), ("QUIET_SECONDS", 0.2)):
        monkeypatch.setattr(module, name, seconds)
    TellMailbox(world.mailbox).after_exception(None, {0: error})
    assert ("lost_machine" in world.calls) is lost
    assert ("note" in world.calls) is (error is GLOO and not changes), "told where it takes long"


def test_workers_are_asked_for_once() -> None:
    async def scene() -> None:
        mailbox, members = PlainMailbox(0), list[Member]([("a", "1")])
        await mailbox.submit(TASK)
        await mailbox.next_task(0, "first", members)
        assert await mailbox.dismiss() == (1, members)
        assert await mailbox.dismiss() == (1, []), "the next group has not begun"

    play(scene())


def test_a_lack_of_memory_is_no_death_and_is_told_once_a_group() -> None:
    async def scene() -> None:
        mailbox = PlainMailbox(0)
        await mailbox.submit(TASK)
        assert await mailbox.next_task(0, "first", []) == (1, TASK)
        await mailbox.smaller(1, "rank 0's words")
        await mailbox.smaller(1, "rank 1's words")
        assert await mailbox.next_task(0, "second", []) == (1, TASK)
        assert (await mailbox.take()).message == Noted("rank 0's words")
        assert mailbox.messages.empty()

    play(scene())


def test_words_about_an_earlier_trial_do_not_touch_the_current_one() -> None:
    async def scene() -> None:
        mailbox = PlainMailbox(2)
        await mailbox.submit(TASK)
        await mailbox.end(1, Failed("one worker's reason"))
        await mailbox.end(1, Failed("another's"))
        assert (await mailbox.take()).message == Failed("one worker's reason")
        await mailbox.submit(TASK)
        await mailbox.end(1, Failed("the slowest worker's"))
        assert await mailbox.report(1, Reported(report(1))) == "stop"
        assert mailbox.messages.empty()
        assert await mailbox.next_task(1, "group", []) == (2, TASK)

    play(scene())


@pytest.mark.parametrize("verdict", ["continue", "stop"])
def test_a_report_waits_for_its_verdict(verdict: str) -> None:
    async def scene() -> None:
        mailbox = PlainMailbox(2)
        await mailbox.submit(TASK)
        waiting = asyncio.create_task(mailbox.report(1, Reported(report(1))))
        delivery = await mailbox.take()
        assert delivery.message == Reported(report(1))
        assert not waiting.done()
        await mailbox.answer(delivery.ticket, verdict)
        assert await waiting == verdict
        assert (mailbox.task is None) == (verdict == "stop")

    play(scene())


def test_only_a_lost_neighbour_is_no_failure_of_the_trial() -> None:
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234"
    assert lost_neighbour(RuntimeError(gloo))
    assert not lost_neighbour(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_neighbour(ValueError("gloo"))


def wait_for_trial(process: subprocess.Popen[str], folder: Path, trial: int) -> None:
    journal = folder / "runs" / "s" / "journal.jsonl"
    wait_for_reports(process, journal, lambda found: any(report["trial"] == trial for report in found))


@pytest.mark.ray
@pytest.mark.faults
def test_killed_processes_cost_no_epoch(tmp_path: Path, demo_root: Path) -> None:
    """In one sweep, one process of each trial dies: a Train worker, the Train controller, the slot above both."""
    victims = ("ray::RayTrainWorker", "ray::TrainController", "ray::ImplicitFunc")
    spec = {
        "data": {"root": str(demo_root), "resize": 192, "crop": 192},  # large, for epochs that last
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": 4, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]}},
        "search": {"trials": len(victims)},
        "scheduler": {"name": "fifo"},
        "resources": {"workers": 2, "concurrent_trials": 1},
    }
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    process = start(tmp_path, "s.yaml")
    for trial, victim in enumerate(victims):
        wait_for_trial(process, tmp_path, trial)
        os.kill(next(pid for pid, name in descendants(process.pid).items() if name.startswith(victim)), signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in out + err
    assert "(raylet)" not in out + err
    run = Run.open(tmp_path / "runs" / "s")
    assert {trial.status for trial in run.trials.values()} == {"completed"}
    epochs = sorted((report.trial, report.epoch) for report, _ in run.history)
    assert epochs == [(trial, epoch) for trial in range(len(victims)) for epoch in range(1, 5)]
    assert not list(run.path.glob("trials/*/last.pt"))


@pytest.mark.ray
@pytest.mark.slow
def test_an_early_stop_leaves_the_group_to_the_next_trial(tmp_path: Path, demo_root: Path) -> None:
    spec = {
        "data": {"root": str(demo_root), "resize": 36, "crop": 32},
        "model": {"backbone": "tiny", "weights": "none"},
        # The last two are hopeless: stopped at the first rung, at epoch 1 of 5. One more then runs in the same group.
        "train": {"epochs": 5, "optimizer": "adamw", "lr": {"grid": [0.003, 0.005, 1e-7, 1e-8, 0.004]}},
        "search": {"trials": 5},
        "scheduler": {"name": "asha", "grace": 0.2, "reduction": 3},
        "resources": {"workers": 2, "concurrent_trials": 1},
    }
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    process = start(tmp_path, "s.yaml")
    wait_for_trial(process, tmp_path, 0)
    first = {pid for pid, name in descendants(process.pid).items() if name.startswith("ray::RayTrainWorker")}
    wait_for_trial(process, tmp_path, 4)
    last = {pid for pid, name in descendants(process.pid).items() if name.startswith("ray::RayTrainWorker")}
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert len(first) == 2
    assert last <= first  # gone perhaps, but not others
    run = Run.open(tmp_path / "runs" / "s")
    assert [run.trials[number].status for number in (2, 3)] == ["stopped", "stopped"]
    recorded = SweepSpec.from_json(run.manifest["spec"])
    assert replay(make_scheduler(recorded.scheduler), run.history) == []
    epochs = [(report.trial, report.epoch) for report, _ in run.history]
    assert len(epochs) == len(set(epochs))

    dataset = read_dataset(demo_root)
    labels = dataset.splits["val"].labels
    assert labels is not None
    for number, trial in run.trials.items():
        best = trial.best()
        assert best is not None
        table = pq.read_table(run.trial_dir(number) / f"val-{best.epoch:04d}.parquet")
        assert table["image"].to_pylist() == list(dataset.splits["val"].images)
        columns = [np.array(table[attribute.name].to_pylist()) for attribute in dataset.attributes]
        hits = [column.argmax(axis=1) == labels[:, head] for head, column in enumerate(columns)]
        assert np.mean(hits) == pytest.approx(best.metrics["val_accuracy"], abs=1e-12)
        losses = [-np.log(column[np.arange(len(labels)), labels[:, head]]) for head, column in enumerate(columns)]
        assert np.mean(losses) == pytest.approx(best.metrics["val_loss"], rel=1e-5)
