"""What a report, a trial, a checkpoint and a bucket's list cost on this machine, in seconds and bytes: the inputs of
`benchmarks.fleet`, measured through the program's own code, without Ray.

A report goes the driver's whole way (`Recorder.received`: decide, put on disk, TensorBoard's events, display), with as
many reports in the journal and as many trials under way as are asked for. Medians; processor time where it is known,
since disk and cores may not be this program's alone.
"""

from __future__ import annotations

import io
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.big_record import FINGERPRINT, SPEC, report
from benchmarks.noted import resident
from fashion.data.demo import ATTRIBUTES, write_demo
from fashion.display.live import Display
from fashion.display.tensorboard import EventFiles
from fashion.record.run import Run
from fashion.record.scheduler import scheduler_of
from fashion.schedulers.base import Scheduler
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.observers import OnTensorBoard
from fashion.sweep.recorder import Recorder
from fashion.sweep.search import OptunaSource

EPOCHS = 50
ROUNDS = 200  # reports, or whatever else is repeated
CASES = {"efficientnet_b3": 4, "resnet18": 4}
VAL_IMAGES = 1000  # of the challenge's data
LISTED = 3000  # objects
MOST = 1_000_000  # trials that a spec may ask for


def new_run(folder: Path, trials: int) -> tuple[Run, SweepSpec]:
    path = folder / "large.yaml"
    path.write_text(SPEC.format(name="large", trials=trials, epochs=EPOCHS, storage=folder / "runs"))
    spec = load_spec(path)
    attributes = [{"name": name, "classes": list(classes)} for name, classes in ATTRIBUTES.items()]
    counts = [[100] * len(classes) for classes in ATTRIBUTES.values()]
    manifest = {
        "spec": spec.to_json(), "data_root": "data", "data_fingerprint": FINGERPRINT, "attributes": attributes,
        "label_counts": {"train": counts, "val": counts},
    }  # fmt: skip
    return Run.create(folder / "runs", spec.name, manifest), spec


def filled(run: Run, spec: SweepSpec, ended: int, live: int) -> int:
    """Record `ended` whole trials beside those that are there, and `live` that have begun; returns the first live
    one."""
    first = len(run.trials)
    finals = np.random.default_rng(first).uniform(0.5, 1.5, ended + live).tolist()
    with mock.patch.object(os, "fsync"):
        for number in range(first, first + ended + live):
            run.record_trial(number, spec.trial(number).model_dump(mode="json"))
            run.record_attempt(number)
            for epoch in range(1, 1 + (EPOCHS if number < first + ended else 1)):
                run.record_report(report(number, epoch, EPOCHS, finals[number - first]), "continue")
            if number < first + ended:
                run.record_end(number, "completed")
    return first + ended


def report_seconds(reports: int, live: int) -> dict[str, float]:
    """Of one report and of one trial's start and end, with `reports` journalled and `live` trials under way; the
    seconds of it that the disk takes (`fsync`), and the journal's bytes for each."""
    synced, fsync = [0.0], os.fsync

    def timed_fsync(handle: int) -> None:
        begun = time.perf_counter()
        fsync(handle)
        synced[0] += time.perf_counter() - begun

    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        run, spec = new_run(Path(name), MOST)
        empty = resident()
        first = filled(run, spec, reports // EPOCHS, live)
        held = resident() - empty
        with EventFiles(run) as events, Display(run, spec, io.StringIO(), "plain") as display:
            recorder = Recorder(run, scheduler_of(run), spec.total_trials, [OnTensorBoard(events), display])
            recorder.catch_up()
            for number in range(first, first + live):
                events._open(run.trials[number])  # it has reported once
            size, times, syncs, used = run.offset, [], [], []
            with mock.patch.object(os, "fsync", timed_fsync):
                for turn in range(ROUNDS):
                    number, epoch = first + turn % live, 2 + turn // live
                    synced[0], begun, cpu = 0.0, time.perf_counter(), time.thread_time()
                    recorder.received(report(number, epoch, EPOCHS, 0.1))
                    times.append(time.perf_counter() - begun)
                    used.append(time.thread_time() - cpu)
                    syncs.append(synced[0])
                size, grown = run.offset, run.offset - size
                starts = [_trial_seconds(recorder, spec, len(run.trials)) for _ in range(ROUNDS // 4)]
            opened: list[Run] = []
            read = _seconds(lambda: opened.append(Run.open(run.path)))
            reread = opened[0]
            replayed = _seconds(lambda: scheduler_of(reread))
            known = len(run.history)
        run.close()
    return {
        "reports": reports, "live": live, "report": statistics.median(times),
        "report_p99": float(np.quantile(times, 0.99)), "report_cpu": statistics.median(used),
        "fsync": statistics.median(syncs), "trial": statistics.median(starts), "report_bytes": grown / ROUNDS,
        "trial_bytes": (reread.offset - size) / len(starts), "read_per_report": read / max(known, 1),
        "replay_per_report": replayed / max(known, 1), "memory_per_report": held / max(known, 1),
    }  # fmt: skip


def _trial_seconds(recorder: Recorder, spec: SweepSpec, number: int) -> float:
    """To draw a trial's configuration, record it and its attempt, and its end; its folder and event file included."""
    begun = time.perf_counter()
    recorder.run.record_trial(number, spec.trial(number).model_dump(mode="json"))
    recorder.started(number)
    recorder.ended(number, "failed", "nothing was wrong")
    return time.perf_counter() - begun


def decision_seconds(make: Callable[[], Scheduler], trials: int) -> float:
    """Of one more decision after `trials` trials of ten epochs."""
    scheduler = make()
    finals = np.random.default_rng(0).uniform(0.5, 1.5, trials + 1).tolist()
    entries = [report(number, epoch, 10, finals[number]) for number in range(trials) for epoch in range(1, 11)]
    for entry in entries:
        scheduler.observe(entry)
    return statistics.median(_seconds(lambda e=e: scheduler.observe(report(trials, e, 10, 0.1))) for e in range(1, 11))  # type: ignore[misc]


def optuna_seconds(trials: int) -> float:
    """Of one more configuration from Optuna's estimator after `trials` trials that ended."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        run, spec = new_run(Path(name), MOST)
        source = OptunaSource(spec, run)
        finals = np.random.default_rng(0).uniform(0.5, 1.5, trials).tolist()
        study, distributions, values = source.study, *_drawn(source, trials)
        for number in range(trials):
            study.add_trial(source.optuna.trial.create_trial(
                params=values[number], distributions=distributions, value=finals[number]
            ))  # fmt: skip
        return statistics.median(_seconds(lambda n=n: source.config(trials + n)) for n in range(1, 6))  # type: ignore[misc]


def _drawn(source: OptunaSource, trials: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The space as Optuna has it, and points of it."""
    source.config(0)
    asked = source.asked.pop(0)
    distributions = dict(asked.distributions)
    sampler = source.optuna.samplers.RandomSampler(seed=0)
    other = source.optuna.create_study(sampler=sampler)
    return distributions, [other.ask(distributions).params for _ in range(trials)]


def picture_seconds(live: int, ended: int) -> float:
    """Of one refresh of the live display, which has four a second in a thread of the driver."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        run, spec = new_run(Path(name), MOST)
        filled(run, spec, 0, live + ended)
        from rich.console import Console

        from fashion.display.screen import Screen

        display = Display(run, spec, io.StringIO(), "plain")
        for number in range(live):
            display._active.add(number)
            display._update(number)
        console = Console(file=io.StringIO(), force_terminal=True, width=150, height=50)
        screen = Screen(display._view)
        return statistics.median(_seconds(lambda: console.print(screen)) for _ in range(5))


def checkpoint_bytes(backbone: str) -> dict[str, int]:
    """Sizes of what a trial leaves after an epoch of `fit` (SGD with momentum, no average of weights)."""
    from benchmarks.case import Case, first_images
    from fashion.config.trial import TrialConfig
    from fashion.data.layout import read_dataset
    from fashion.model.pretrained.weights import resolve_weights
    from fashion.training import checkpoint
    from fashion.training.loop import TrialInputs, fit

    case = Case(backbone, 72, 64, CASES[backbone])  # the images' size is none of the files'
    with tempfile.TemporaryDirectory(prefix="fleet-") as name, mock.patch.dict(os.environ, FASHION_CACHE=name):
        folder = Path(name) / "trial"
        folder.mkdir()
        dataset = read_dataset(write_demo(Path(name) / "data", train=8, val=8, test=8, size=72))
        data = first_images(dataset, case, 8, 8, Path(name))
        found = case.config().model_dump(mode="json")
        found["train"] |= {"precision": "fp32"}  # nothing to find out
        config = TrialConfig.model_validate(found)
        list(fit(TrialInputs(config, data, resolve_weights(config.model), folder)))
        rng = np.random.default_rng(0)
        heads = [np.asarray(rng.dirichlet(np.ones(len(c)), VAL_IMAGES), np.float32) for c in ATTRIBUTES.values()]
        images = [f"img/{number:05d}.jpg" for number in range(VAL_IMAGES)]
        checkpoint.save_predictions(folder / "val.parquet", images, list(ATTRIBUTES), heads)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return {"last": sizes["last.pt"], "best": sizes["best-0001.safetensors"], "val": sizes["val.parquet"]}


@contextmanager
def counted_store() -> Any:
    """A `Store` over moto's S3 server on loopback, and the list of requests that it gets."""
    import boto3
    from moto.server import ThreadedMotoServer

    from fashion.bucket.address import parse_address
    from fashion.bucket.store import Store

    seen: list[str] = []

    class Counter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    counter = Counter()
    logger = logging.getLogger("werkzeug")
    logger.addHandler(counter)
    logger.setLevel(logging.INFO)
    keys = {"AWS_ACCESS_KEY_ID": "fleet", "AWS_SECRET_ACCESS_KEY": "fleet", "AWS_REGION": "us-east-1"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
    with redirect_stderr(io.StringIO()):
        server.start()
        try:
            endpoint = "http://{}:{}".format(*server.get_host_and_port())
            with mock.patch.dict(os.environ, {**keys, "AWS_ENDPOINT_URL": endpoint}):
                boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="fleet")
                seen.clear()
                yield Store(parse_address("s3://fleet/sweeps/large")), seen
        finally:
            server.stop()
            logger.removeHandler(counter)


def store_figures(sizes: list[int]) -> dict[str, Any]:
    """Requests of one put of each size, and the client's own seconds of processor time to list LISTED objects."""
    with counted_store() as (store, seen), tempfile.TemporaryDirectory(prefix="fleet-") as name:
        requests = {}
        for size in sizes:
            path = Path(name) / "file"
            path.write_bytes(bytes(size))
            seen.clear()
            store.put("file", path)
            requests[size] = len(seen)
        for number in range(LISTED):
            store.put(f"trials/{number:04d}/best-0001.safetensors", b"x")
        seen.clear()
        begun, used = time.perf_counter(), time.thread_time()
        count = sum(1 for _ in store.objects("trials"))
        used, wall = time.thread_time() - used, time.perf_counter() - begun
        listed = len(seen)
    return {
        "puts": [[size, count] for size, count in requests.items()], "listed": count, "list_requests": listed,
        "list_client": used, "list_wall": wall,
    }  # fmt: skip


def _seconds(action: Callable[[], Any]) -> float:
    """Of processor time of this thread: the machine is not this program's alone."""
    begun = time.thread_time()
    action()
    return time.thread_time() - begun
