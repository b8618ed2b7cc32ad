"""What the sweep assumes about Ray without a promise: a new release of Ray is admitted when these tests pass."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.cloudpickle
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune import FailureConfig, TuneConfig, Tuner
from ray.tune import RunConfig as TuneRunConfig
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fashion.cluster.local.start import Warm
from fashion.cluster.session import cluster, dead_daemons
from fashion.engine.ahead import trial_environment
from fashion.engine.worker_group import orphaned_groups
from tests.support.machines.descendants import descendants

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("ray-contract")]

STOPPED, KILLED, LONG = 1, 2, 5  # trials that the scheduler stops and that lose their process; epochs
Calls = list[tuple[str, int]]


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the tests are no module that workers can import
    with cluster(None, lambda note: None, warm=Warm(1, ("wave",))):
        yield


def test_tune_has_no_secrets_to_hand_on() -> None:
    """What it would put into a runtime environment on a cluster, and so into a log, holds no key."""
    with trial_environment("127.0.0.1:6379"):
        assert {"RAY_CHDIR_TO_TRIAL_DIR"} <= class_cache.ENV_VARS_TO_PROPAGATE
        words = ("KEY", "SECRET", "TOKEN", "PASSWORD", "CREDENTIAL")
        assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if any(word in name for word in words)]


class Where:
    def process(self) -> int:
        return os.getpid()

    def loaded(self, module: str) -> bool:
        return module in sys.modules

    def variable(self, name: str) -> str:
        return os.environ[name]

    def niceness(self) -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_trial_takes_a_process_that_has_loaded_what_it_needs() -> None:
    """Ray starts as many processes as it is told to, and gives an actor of Tune's one of them."""
    idle = {pid for pid, name in descendants(os.getpid()).items() if name.startswith("ray::IDLE")}
    assert len(idle) == 1
    with trial_environment(None):
        actor = class_cache._ActorClassCache().get(Where).remote()
    assert {ray.get(actor.process.remote())} == idle
    assert ray.get(actor.loaded.remote("wave"))
    assert ray.get(actor.variable.remote("RAY_CHDIR_TO_TRIAL_DIR")) == os.environ["RAY_CHDIR_TO_TRIAL_DIR"]
    # Ray's default would be 15: hardly any time beside another busy process.
    assert ray.get(actor.niceness.remote()) == os.getpriority(os.PRIO_PROCESS, 0)
    ray.kill(actor)


class Numbers(Searcher):
    """Trials 0 to 3, one after another."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls, self.left, self.known = calls, iter(range(4)), dict[str, int]()

    def suggest(self, trial_id: str) -> Any:
        number = next(self.left, None)
        if number is None:
            return Searcher.FINISHED
        self.known[trial_id] = number
        return {"number": number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.calls.append(("searcher: error" if error else "searcher: complete", self.known[trial_id]))

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Witness(FIFOScheduler):
    """Notes what it is told, and stops one trial."""

    def __init__(self, calls: Calls, seen: list[dict[str, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self.seen = calls, seen

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.calls.append(("add", trial.config["number"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        self.calls.append(("result", number))
        self.seen.append({key: result[key] for key in ("number", "epoch", "pid", "world")})
        return TrialScheduler.STOP if number == STOPPED else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.calls.append(("complete", trial.config["number"]))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        assert Path(trial.pickled_error_file).is_file()
        self.calls.append(("error", trial.config["number"]))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def trainable(config: dict[str, Any], folder: Path) -> None:
    """Train's local mode inside a Tune function, as fashion.engine.tune_trial has it."""
    number = config["number"]

    def loop() -> None:
        try:
            for epoch in range(LONG):
                killed = folder / f"killed-{number}"
                if number == KILLED and epoch == 2 and not killed.exists():
                    killed.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                tune.report({"number": number, "epoch": epoch, "pid": os.getpid(), "world": 1})
        except SystemExit:
            (folder / f"left-{number}").touch()
            raise

    TorchTrainer(
        loop,
        scaling_config=ScalingConfig(num_workers=0),
        run_config=RunConfig(name="local", storage_path=str(folder / "train")),
    ).fit()


def test_tune_calls_in_the_order_that_the_record_needs(tmp_path: Path) -> None:
    calls: Calls = []
    seen: list[dict[str, Any]] = []
    Tuner(
        tune.with_resources(tune.with_parameters(trainable, folder=tmp_path), {"CPU": 1}),
        tune_config=TuneConfig(
            search_alg=Numbers(calls), scheduler=Witness(calls, seen), num_samples=4, max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=TuneRunConfig(
            name="contract", storage_path=str(tmp_path / "tune"), failure_config=FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()  # fmt: skip

    of = {number: [name for name, about in calls if about == number] for number in range(4)}
    whole = ["add", *["result"] * LONG, "complete", "searcher: complete"]
    assert of[0] == of[3] == whole
    # A stop is obeyed at once: no further report, and the loop leaves by SystemExit out of tune.report.
    assert of[STOPPED] == ["add", "result", "complete", "searcher: complete"]
    assert (tmp_path / f"left-{STOPPED}").exists()
    assert not (tmp_path / "left-0").exists()
    # A death is told once to the scheduler, and the trial is added again, not completed.
    assert of[KILLED] == ["add", *["result"] * 2, "error", "add", *["result"] * LONG, "complete", "searcher: complete"]

    pids = {number: [row["pid"] for row in seen if row["number"] == number] for number in range(4)}
    assert len(set(pids[0] + pids[STOPPED])) == 1, "the next trial runs in the same, warm process"
    assert len(set(pids[KILLED])) == 2
    assert os.getpid() not in pids[0]


@ray.remote(num_cpus=0)
class Reserver:
    """Holds a placement group, as a Train controller does."""

    def reserve(self) -> str:
        self.group = ray.util.placement_group([{"CPU": 1}])
        ray.get(self.group.ready())
        return str(self.group.id.hex())


def test_rays_own_processes_can_be_asked_after() -> None:
    """A raylet or gcs_server that died is found here; tests/faults/test_kill.py kills them."""
    node = ray._private.worker._global_node
    assert node is not None
    assert {"raylet", "gcs_server"} <= set(node.all_processes)
    assert dead_daemons() == []


def test_the_raylet_was_told_its_agents_ports() -> None:
    """It waits for none of them to tell: a busy machine takes longer to start them than the raylet would wait."""
    (node,) = ray.nodes()
    assert node["MetricsExportPort"] == -1, "not in use"


def test_a_dead_actors_placement_group_is_found() -> None:
    actor = Reserver.remote()  # type: ignore[attr-defined]
    name = ray.get(actor.reserve.remote())
    assert name not in {group.id.hex() for group in orphaned_groups()}
    ray.kill(actor)
    for _ in range(100):
        found = {group.id.hex(): group for group in orphaned_groups()}
        if name in found:
            break
        ray.get(ray.remote(num_cpus=0)(lambda: None).remote())  # a moment of Ray's own
    assert name in found
    ray.util.remove_placement_group(found[name])
