"""What the driver of a sweep costs when its trials do nothing but report, and what one step of Tune's costs.

    python -m benchmarks.fleet_driver NOTES ARGUMENTS-OF-FASHION-SWEEP...

The real `fashion-sweep run`, real Ray and Tune, the real record. Only a trial's function is another one: it sleeps
($FLEET_SECONDS) in place of an epoch and then reports by the way that a trial reports. So the driver is all that there
is to wait for, with as many slots as one likes on a small machine. The driver's main thread, which decides, records and
hands out one thing after another, is measured by its own processor time.

The other half, `steps`: Tune waits for the next of all running trials' reports, so that a report costs the more the
more trials run. Measured with Tune's own event loop over as many calls under way, of which one has returned.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import child
from benchmarks.child import note
from benchmarks.scale import SPEC
from fashion.data.demo import write_demo

SKIPPED = 10  # trials a slot, in which the slots start
STEP_ROUNDS = 60


@dataclass(frozen=True)
class Driven:
    """A sweep of trials that only report: between two hand-outs, well apart, the trials handed out, wall seconds,
    processor seconds of the driver's main thread, and the share of all cores' time in which nothing ran; what a trial
    waited for each report, in seconds."""

    trials: int
    wall: float
    thread: float
    idle: float
    waits: list[float]


def drive(folder: Path, trials: int, epochs: int, slots: int, seconds: float) -> Driven:
    """Run a sweep of `trials` trials of `epochs` reports each, on `slots` slots, an epoch taking `seconds`."""
    noted, spec = folder / "notes", folder / "fleet.yaml"
    noted.mkdir(parents=True)
    root = write_demo(folder / "data", train=16, val=8, test=8, size=16)
    text = SPEC.format(root=root, trials=trials, cores=slots, storage=folder / "runs")
    spec.write_text(text.replace("epochs: 1,", f"epochs: {epochs},").replace("name: asha", "name: fifo"))
    child.python(
        "-m", "benchmarks.fleet_driver", str(noted), "run", str(spec), "--plain",
        FASHION_CACHE=str(folder / "cache"), FLEET_SECONDS=str(seconds),
        RAY_OVERRIDE_RESOURCES=json.dumps({"CPU": slots}),
    )  # fmt: skip
    entries = child.notes(noted)
    started = [entry for entry in entries if entry["event"] == "started"]
    waits = [wait for entry in entries if entry["event"] == "waited" for wait in entry["seconds"]]
    first, last = started[min(SKIPPED * slots, trials // 2)], started[-1]
    between = last["number"] - first["number"]
    total, idle = (last["cores"][index] - first["cores"][index] for index in (0, 1))
    return Driven(between, last["time"] - first["time"], last["thread"] - first["thread"], idle / total, waits)


def cores() -> tuple[int, int]:
    """What all cores did since the machine started, in the kernel's ticks: all, and of them nothing."""
    numbers = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(numbers), numbers[3] + numbers[4]


def steps(counts: list[int]) -> dict[int, float]:
    """Seconds of one step of Tune's (choose a trial, wait for the next event) with so many trials running."""
    import ray
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.air.execution.resources import FixedResourceManager

    from fashion.engine.tune_hooks import RecordScheduler

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    actor: Any = ray.remote(_Reporter).options(max_concurrency=max(counts) + 10).remote()
    scheduler: Any = object.__new__(RecordScheduler)
    found = {}
    try:
        for count in counts:
            manager = RayActorManager(resource_manager=FixedResourceManager({"CPU": 2}))
            events = manager._actor_task_events
            futures = [actor.report.remote(number) for number in range(count)]
            for future in futures:
                events.track_future(future, on_result=lambda result: None)
            live = [SimpleNamespace(status="RUNNING") for _ in range(count)]
            tune: Any = SimpleNamespace(get_live_trials=lambda live=live: live)
            times = []
            for number in range(STEP_ROUNDS):
                ray.get(actor.release.remote(number % count))
                ray.wait([futures[number % count]])
                begun = time.perf_counter()
                scheduler.choose_trial_to_run(tune)
                if not manager.next(timeout=10):
                    raise RuntimeError("a report that was there did not come")
                times.append(time.perf_counter() - begun)
                futures[number % count] = actor.report.remote(number % count)
                events.track_future(futures[number % count], on_result=lambda result: None)
            found[count] = statistics.median(times)
            for number in range(count):
                ray.get(actor.release.remote(number))
    finally:
        ray.shutdown()
    return found


class _Reporter:
    """Stands for all trials: each call is one that runs until its report is there."""

    def __init__(self) -> None:
        import asyncio

        self.asyncio, self.waiting = asyncio, {}  # type: ignore[var-annotated]

    async def report(self, number: int) -> dict[str, Any]:
        await self.waiting.setdefault(number, self.asyncio.Event()).wait()
        del self.waiting[number]
        return {"kind": "Reported", "content": "x" * 700}

    async def release(self, number: int) -> None:
        self.waiting.setdefault(number, self.asyncio.Event()).set()


def reporting_trial(folder: Path, seconds: float) -> Callable[..., None]:
    def trial(config: dict[str, Any], shared: Any) -> None:
        import fashion.engine.tune_trial
        from benchmarks.big_record import report
        from fashion.engine.messages import Reported

        epochs = json.loads(config["config"])["train"]["epochs"]
        waits: list[float] = []
        for epoch in range(1, epochs + 1):
            time.sleep(seconds)
            if epoch == epochs:
                note(folder, event="waited", number=config["number"], seconds=waits)
            begun = time.perf_counter()
            # The last one does not return.
            fashion.engine.tune_trial._send(Reported(report(config["number"], epoch, epochs, 1.0)))
            waits.append(time.perf_counter() - begun)

    return trial


def noting_start(folder: Path) -> Callable[[Any, int], None]:
    from fashion.sweep.recorder import Recorder

    started = Recorder.started

    def noted(self: Recorder, number: int) -> None:
        note(folder, event="started", number=number, thread=time.thread_time(), cores=cores())
        started(self, number)

    return noted


def main() -> None:
    import fashion.engine.driver
    from fashion.cli import main as command_line
    from fashion.sweep.recorder import Recorder

    folder = Path(sys.argv[1])
    seconds = float(os.environ["FLEET_SECONDS"])
    setattr(fashion.engine.driver, "run_trial", reporting_trial(folder, seconds))  # noqa: B010 (mypy: not the same type)
    setattr(Recorder, "started", noting_start(folder))  # noqa: B010
    command_line.main(sys.argv[2:])


if __name__ == "__main__":
    main()
