"""Train inside Tune as Ray 2.60 documents it: a Tune function that builds a TorchTrainer with TuneReportCallback.

    python -m benchmarks.documented FILE        (see `child.module`)

After Ray's user guide "Hyperparameter Tuning with Ray Tune" (ray-project/ray,
doc/source/train/doc_code/train_tune_interop.py): one Train run a trial, named after it, the driver functions on a
resource of their own, as many at once as `max_concurrent_trials` says.

The controller of a Train run dies with the trial that Tune stops, and what frees its workers' CPUs then, Train's
cleaner, asks the full dashboard (the extra ray[default]) whether it lives; without it the CPUs are held for ever, and a
sweep stands still after a few stops. Here they are freed as the cleaner would, looked at as often as it looks.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray import tune
from ray.train import CheckpointConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.util.placement_group import remove_placement_group

from benchmarks.child import arguments_of, note
from benchmarks.plain import Settings, epochs
from fashion.engine.worker_group import orphaned_groups

DRIVER = "TRAIN_DRIVER_RESOURCE"
SAMPLE_SECONDS = 0.05  # how often the cluster's free CPUs are looked at
CLEAN_SECONDS = 1.0  # how often Train's cleaner looks
PATIENCE = 60  # seconds after which the one-step loop ends by itself
FREED_WITHIN = 15  # seconds after the last trial's end


def one_step(config: dict[str, Any]) -> None:
    """One training step of next to nothing, reported again and again until the trial is stopped."""
    model = prepare_model(torch.nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = model(torch.ones(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
    if ray.train.get_context().get_world_rank() == 0:
        note(config["notes"], event="first step", number=config["number"])
    for epoch in range(1, PATIENCE):
        ray.train.report({"epoch": epoch, "val_loss": loss.item()})
        time.sleep(1)


def training(config: dict[str, Any]) -> None:
    """The report's loop; a checkpoint goes with every epoch, as in the guide."""
    settings = Settings(**config["settings"])
    for epoch, val_loss, model in epochs(settings, Path(config["root"])):
        note(config["notes"], event="epoch", number=settings.number, epoch=epoch, val_loss=val_loss)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "model.pt")
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"epoch": epoch, "val_loss": val_loss}, checkpoint=checkpoint)


LOOPS: dict[str, Callable[[dict[str, Any]], None]] = {"one_step": one_step, "training": training}


def train_driver(config: dict[str, Any]) -> None:
    """What Tune runs for a trial."""
    keep = CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="val_loss", checkpoint_score_order="min")
    trainer = TorchTrainer(
        LOOPS[config["loop"]],
        train_loop_config=config["train_loop_config"],
        scaling_config=ScalingConfig(num_workers=config["workers"]),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={tune.get_context().get_trial_id()}",
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray names two classes Callback
            checkpoint_config=keep,
        ),
    )
    trainer.fit()


class StopAtOnce(FIFOScheduler):
    """Stops each trial at its first report, and notes when."""

    def __init__(self, folder: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder = folder

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        note(self.folder, event="started", number=trial.config["train_loop_config"]["number"])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        note(self.folder, event="stopped", number=trial.config["train_loop_config"]["number"])
        return TrialScheduler.STOP


def watch_cpus(folder: str, ended: threading.Event) -> None:
    """Note how many CPUs are free each time that it changes, and at last."""
    total, free, until = ray.cluster_resources()["CPU"], -1.0, math.inf
    while time.monotonic() < until and not (ended.is_set() and free == total):
        if ended.is_set():
            until = min(until, time.monotonic() + FREED_WITHIN)
        before, free = free, ray.available_resources().get("CPU", 0.0)
        if free != before:
            note(folder, event="free CPUs", cpus=free)
        time.sleep(SAMPLE_SECONDS)
    note(folder, event="free CPUs", cpus=free)


def free_orphans(left: threading.Event) -> None:
    """Free what dead controllers hold."""
    while not left.wait(CLEAN_SECONDS):
        for group in orphaned_groups():
            remove_placement_group(group)


def main() -> None:
    given = arguments_of()
    cores, concurrent = given["cores"], given["concurrent"]
    ray.init(address="local", num_cpus=cores, resources={DRIVER: 1}, include_dashboard=False, log_to_driver=False)
    scheduler: TrialScheduler = StopAtOnce(given["notes"])
    if given["loop"] == "training":
        most = max(config["settings"]["epochs"] for config in given["configs"])
        scheduler = ASHAScheduler(
            "epoch", "val_loss", "min", max_t=most, grace_period=given["grace"], reduction_factor=given["reduction"]
        )
    ended, left = threading.Event(), threading.Event()
    cleaner = threading.Thread(target=free_orphans, args=(left,))
    cleaner.start()
    watch = threading.Thread(target=watch_cpus, args=(given["notes"], ended))
    if given["loop"] == "one_step":  # a sweep has better things to do
        watch.start()
    tune.Tuner(
        tune.with_resources(train_driver, {DRIVER: 0.01}),
        param_space={
            "loop": given["loop"],
            "workers": given["workers"],
            "storage": given["storage"],
            "train_loop_config": tune.grid_search(given["configs"]),
        },
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(name="tune", storage_path=given["storage"], verbose=0),
    ).fit()
    ended.set()
    if watch.is_alive():
        watch.join()
    left.set()
    cleaner.join()
    ray.shutdown()


if __name__ == "__main__":
    main()
