"""A warm Ray Train worker group for trials of several workers.

Starting a Train run for each trial costs a controller, a placement group, worker processes, imports and a process
group: seconds that a small trial does not last. So each Tune slot (a reused Tune actor) starts one Train run and keeps
it; its workers take one trial after another from the slot's mailbox. A worker that dies is restarted by Train and
finds its trial still in the mailbox, where it goes on from the trial's last checkpoint.
"""

from __future__ import annotations

import gc
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import ray
import ray.exceptions
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.core.generated import gcs_pb2
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fashion.cluster.session import leaving
from fashion.data.batches import Worker
from fashion.engine.deaths import Deaths, machine_went
from fashion.engine.mailbox import Delivery, Mailbox, TellMailbox, lost_neighbour
from fashion.engine.messages import (
    Alive,
    Began,
    Blocked,
    Broken,
    Failed,
    Finished,
    Noted,
    Reported,
    TrialMessage,
    message_of,
)
from fashion.errors import BlockedError, FashionError, Leaving, Superseded, first_line, refusal
from fashion.schedulers.base import Decision
from fashion.training.micro_batches import OutOfMemory
from fashion.training.task import SharedInputs, Task
from fashion.training.worker import describe_failure, trial_reports

FREE_SECONDS = 3.0

_slot: Slot | None = None


def run_in_slot(task: Task, shared: SharedInputs, send: Callable[[TrialMessage], None]) -> None:
    """Run one trial on this process's worker group, starting the group if there is none.

    A SystemExit from `send` (Tune stops the trial) leaves the group warm.

    Raises:
        TrialFailed: with the workers' reason.
        BlockedError: no trial can go on for now.
    """
    global _slot
    deaths = Deaths(shared.max_failures, shared.max_preemptions)
    while not deaths.too_many:
        if _slot is None or _slot.broken:
            _slot = Slot(shared)
        try:
            _slot.run(task, send)
            return
        except GroupLost as error:
            deaths.add(first_line(error), machine_went("", str(error)))
        except ray.exceptions.RayActorError:
            # The mailbox died. The workers can't be reached any more, but they die with this process: Tune starts
            # another.
            os._exit(1)
    raise TrialFailed(f"its worker group was lost: {deaths.too_many}")


class TrialFailed(FashionError):  # noqa: N818 (as TrialDiverged)
    """A trial's workers gave up, for this reason (one line)."""


class GroupLost(FashionError):  # noqa: N818
    """The Train run ended through no fault of the trial: its controller died, for example."""


class Slot:
    """The Train run of this Tune slot and the mailbox through which its workers are reached."""

    def __init__(self, shared: SharedInputs) -> None:
        # Here, and not on whichever node has the least to do: it must outlive the workers' nodes.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = Mailbox.options(num_cpus=0, scheduling_strategy=here).remote(  # type: ignore[attr-defined]  # Ray's decorator
            shared.max_failures, shared.max_preemptions
        )
        self.broken = False
        threading.Thread(target=self._train, args=(shared,), daemon=True, name="train-run").start()
        threading.Thread(target=self._free_resources, daemon=True, name="free-resources").start()

    def run(self, task: Task, send: Callable[[TrialMessage], None]) -> None:
        """Hand the trial to the workers and pass its messages on until it ends.

        Raises TrialFailed, BlockedError and GroupLost, as the workers say.
        """
        ray.get(self.mailbox.submit.remote(task))
        while True:
            delivery: Delivery = ray.get(self.mailbox.take.remote())
            match delivery.message:
                case Reported() as message:
                    decision: Decision = "stop"
                    try:
                        send(message)
                        decision = "continue"
                    finally:
                        ray.get(self.mailbox.answer.remote(delivery.ticket, decision))
                case (Began() | Noted() | Alive()) as message:
                    send(message)
                case Finished():
                    return
                case Blocked(reason):
                    raise BlockedError(reason)
                case Failed(reason):
                    raise TrialFailed(reason)
                case Broken(reason):
                    raise GroupLost(reason)

    def _train(self, shared: SharedInputs) -> None:
        resources: dict[str, float] = {"CPU": shared.cpus_per_worker}
        if shared.gpus_per_worker:
            resources["GPU"] = shared.gpus_per_worker
        trainer = TorchTrainer(
            _work,
            train_loop_config={"mailbox": self.mailbox},
            scaling_config=ScalingConfig(
                num_workers=shared.workers, use_gpu=shared.gpus_per_worker > 0, resources_per_worker=resources
            ),
            # The mailbox counts how often a trial was handed out, so the group itself may restart without limit.
            run_config=RunConfig(
                name=f"slot-{uuid.uuid4().hex[:8]}",
                storage_path=str(shared.scratch / "train"),
                failure_config=FailureConfig(max_failures=-1),
                callbacks=[TellMailbox(self.mailbox)],  # type: ignore[list-item]  # typed as the older Train's
            ),
        )
        reason = "the worker group ended"
        try:
            trainer.fit()
        except Exception as error:  # whatever ends the group must reach the trial that waits for it
            reason = f"{type(error).__name__}: {error}"
        self.broken = True
        ray.get(self.mailbox.broken.remote(reason))

    def _free_resources(self) -> None:
        """Give back what dead controllers reserved, or this slot's workers may wait for it for ever."""
        while not self.broken:
            for group in orphaned_groups():
                remove_placement_group(group)
            time.sleep(FREE_SECONDS)


def orphaned_groups() -> list[PlacementGroup]:
    """This job's placement groups whose creator, a Train controller, is dead.

    Ray keeps them until the job ends. Train's own cleaner finds dead controllers by the dashboard, which is off here.
    """
    table = getattr(gcs_pb2, "PlacementGroupTableData")  # noqa: B009 (generated: mypy sees no attributes)
    rows = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    job = ray.get_runtime_context().get_job_id()
    return [
        PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
        for group in map(table.FromString, rows)
        if group.creator_job_id.hex() == job
        and group.creator_actor_dead
        and not ray.ActorID(group.creator_actor_id).is_nil()  # Tune's own: the driver makes them
        and group.state != table.REMOVED
    ]


def _work(config: dict[str, Any]) -> None:
    """What each worker runs for the group's life: one trial after another."""
    mailbox = config["mailbox"]
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    done, group = 0, uuid.uuid4().hex
    own = ray.get_runtime_context()
    members: list[Any] = [None] * worker.world_size  # Member of each worker
    dist.all_gather_object(members, (own.get_actor_id(), own.get_node_id()))
    nodes = [node for _, node in members]
    names: list[Any] = [None] * worker.world_size  # the name of each worker's machine
    dist.all_gather_object(names, platform.node())
    began = Began(group, ", ".join(dict.fromkeys(names)))
    while True:
        received: list[Any] = [None]
        if worker.rank == 0:
            received = [ray.get(mailbox.next_task.remote(done, group, members))]
        # One answer for all: a worker that asked for itself could be handed a different trial from its neighbours'.
        dist.broadcast_object_list(received, src=0)
        done, task = received[0]
        task = task and task.here()
        try:
            if worker.rank == 0:
                ray.get(mailbox.tell.remote(done, began))
            _train(done, task, worker, mailbox, nodes)
        except (Leaving, Superseded):
            raise  # the trial goes on in another group: there is nothing to tell
        except OutOfMemory as error:
            # Only this worker failed: its neighbours wait for its gradients, so the group must be made anew.
            if error.parts:
                ray.get(mailbox.smaller.remote(done, str(error)))
            else:
                ray.get(mailbox.end.remote(done, Failed(str(error))))
            raise
        except Exception as error:
            # Most of the package's own are raised alike on all workers (they reduce the same sums): the group is
            # intact.
            alike = isinstance(error, FashionError) and not isinstance(error, BlockedError)
            if reason := refusal(error):
                ray.get(mailbox.end.remote(done, Blocked(reason)))
            elif alike and worker.rank == 0:
                ray.get(mailbox.end.remote(done, Failed(str(error))))
            elif not alike and not lost_neighbour(error):
                # Perhaps this worker alone: the group has to be made anew, but the trial is not tried again,
                # unless all that happened here is that a neighbour's process died.
                ray.get(mailbox.end.remote(done, Failed(describe_failure(task, error))))
            if not alike:
                raise
        gc.collect()
        if worker.device.type == "cuda":
            torch.cuda.empty_cache()


def _train(number: int, task: Task, worker: Worker, mailbox: Any, nodes: list[str]) -> None:
    try:
        with closing(trial_reports(task, worker, lambda: leaving(nodes))) as reports:
            for told in reports:
                message = message_of(told)
                if not isinstance(message, Reported):  # rank 0's alone
                    ray.get(mailbox.tell.remote(number, message))
                    continue
                decision: list[Decision] = ["continue"]
                if worker.rank == 0:
                    decision = [ray.get(mailbox.report.remote(number, message))]
                dist.broadcast_object_list(decision, src=0)
                if decision[0] == "stop":
                    return
    except Leaving:
        if worker.rank == 0:
            ray.get(mailbox.moves.remote(number))
        # Raised: Train takes a loop that returns for one that has done its work, and makes no other group.
        raise
    if worker.rank == 0:
        ray.get(mailbox.end.remote(number, Finished()))
