"""What 10, 100 and 1,000 GPUs do to the driver, the record and the bucket: measured inputs, a simulation, and its
check.

    python -m benchmarks.fleet measure     this machine's inputs into benchmarks/fleet.json (10 minutes, starts Ray)
    python -m benchmarks.fleet simulate    the tables of docs/scale.md from them (2 minutes)
    python -m benchmarks.fleet check       real sweeps of trials that only report, and the simulation of the same

`fleet_inputs` and `fleet_driver` measure, `fleet_sim` simulates. What can't be measured here (a real bucket, its prices
and limits, a real network) is a constant below with where it is from.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from benchmarks.fleet_sim import Fleet, Service, Work
from fashion.files import write_atomic
from fashion.schedulers.asha import Asha
from fashion.schedulers.base import Fifo
from fashion.schedulers.median import Median

PLACE = Path(__file__).with_name("fleet.json")
GPUS = (10, 100, 1000)
TRIALS = 10  # a GPU

# Assumed; AWS's guide "Best practices design patterns: optimizing Amazon S3 performance" says roughly 100 to 200 ms for
# small objects, and instances of the g6 and g5 families have a network of 2.5 to 10 Gbit/s.
LATENCY, BANDWIDTH = 0.15, 250e6  # seconds a request, bytes/s of one worker
LIST_SECONDS = 0.1  # a request of 1,000 names, one after another
# The same guide: at least so many writes (PUT, COPY, POST, DELETE) a second for a partitioned prefix; more after
# minutes, as the store splits it.
WRITES = 3500
# aws.amazon.com/s3/pricing, us-east-1, Standard: USD for a PUT or LIST, and for a GB a month; deletions and traffic
# within the region are free. A g6.xlarge's hour on demand, which cluster.yaml says.
PUT_PRICE, MONTH_PRICE, GPU_PRICE = 0.005 / 1000, 0.023, 0.80
LEASE_SECONDS, MERGED = 5, 60  # a lease is renewed; so many journal segments become one
RAY_SECONDS = 16  # until the first trial is handed out: docs/performance.md
BASE_MEMORY = 0.3e9  # of the driver's process without a record
REPORTED_PROBE = 5.0  # seconds of a probe trial of 20 epochs: docs/results.md

EPOCHS = 20  # of a trial of the check
CHECKS = ((1, 0.02), (2, 0.1), (4, 0.1), (4, 0.0))  # slots, seconds of an epoch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--inputs", type=click.Path(path_type=Path), default=PLACE, help="Default: benchmarks/fleet.json.")
@click.pass_context
def main(context: click.Context, inputs: Path) -> None:
    """What 10, 100 and 1,000 GPUs do to a sweep.

    \b
    Example: python -m benchmarks.fleet simulate
    """
    context.obj = inputs


@main.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["ray", "record", "decisions", "files"]),
    help="This part; may be repeated.",
)
@click.pass_obj
def measure(inputs: Path, only: tuple[str, ...]) -> None:
    """Measure the inputs on this machine."""
    found: dict[str, Any] = json.loads(inputs.read_text()) if inputs.exists() else {}
    parts = {"ray": ray_inputs, "record": record_inputs, "decisions": decision_inputs, "files": file_inputs}
    for name, part in parts.items():
        if not only or name in only:
            begun = time.monotonic()
            found |= {"machine": machine(), **part()}
            write_atomic(inputs, (json.dumps(found, indent=1) + "\n").encode())
            click.echo(f"{name}: {time.monotonic() - begun:.0f} s", err=True)


def record_inputs() -> dict[str, Any]:
    from benchmarks.fleet_inputs import report_seconds

    cells = [(100_000, 100), (10_000, 1000), (10_000, 100), (10_000, 10), (0, 10)]  # memory is counted in the first
    return {"record": [report_seconds(reports, live) for reports, live in cells]}


def decision_inputs() -> dict[str, Any]:
    """Seconds by trials so far: of a decision, of a configuration, of a picture."""
    from benchmarks import fleet_inputs as of

    counts = (100, 1000, 10_000)
    return {
        "asha": {trials: of.decision_seconds(Asha, trials) for trials in counts},
        "median": {trials: of.decision_seconds(Median, trials) for trials in counts},
        "optuna": {trials: of.optuna_seconds(trials) for trials in counts},
        "picture": {trials: of.picture_seconds(trials // 10, trials) for trials in counts},
    }


def file_inputs() -> dict[str, Any]:
    from benchmarks.fleet_inputs import CASES, checkpoint_bytes, store_figures

    files = {name: checkpoint_bytes(name) for name in CASES}
    sizes = {size for each in files.values() for size in each.values()} | {PROBE_STATE, PROBE_BEST}
    return {"files": files, "store": store_figures(sorted(sizes))}


def machine() -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text()
    name = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
    packages = {name: version(name) for name in ("ray", "torch", "obstore", "optuna", "rich")}
    return {
        "processor": name, "cores": os.cpu_count(), "python": platform.python_version(), **packages,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def ray_inputs() -> dict[str, Any]:
    """Seconds of the driver's main thread for a report and for a trial, from trials of 1 and of 21 reports; of a step
    of Tune's by trials that run; and of what a trial waits for a report while the driver has little to do."""
    from benchmarks.fleet_driver import drive, steps

    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        one, many = (drive(Path(name) / str(epochs), 60, epochs, 2, 0.02) for epochs in (1, 21))
    report = (many.thread / many.trials - one.thread / one.trials) / 20
    return {
        "driver": {
            "report": report, "trial": one.thread / one.trials - report, "wait": statistics.median(many.waits),
            "steps": steps([2, 10, 100, 1000]),
        }
    }  # fmt: skip


PROBE_STATE, PROBE_BEST = 3 * 4 * 26 * 1281, 4 * 26 * 1281  # bytes: 26 classes' heads on 1,280 features, AdamW


def works(inputs: dict[str, Any]) -> list[Work]:
    """The three kinds of trial: the report's network, epochs of 5 s, and probes."""

    def work(name: str, epochs: tuple[int, ...], seconds: float, state: int, best: int) -> Work:
        val = inputs["files"]["resnet18"]["val"]
        return Work(
            name, epochs, seconds, 0.1, state, best + val, puts(inputs, state), puts(inputs, best) + 1,
            LATENCY + state / BANDWIDTH, 2 * LATENCY + (best + val) / BANDWIDTH,
        )  # fmt: skip

    b3, resnet = inputs["files"]["efficientnet_b3"], inputs["files"]["resnet18"]
    return [
        work("EfficientNet-B3, epochs of 60 s", (10, 20, 30, 50), 60.0, b3["last"], b3["best"]),
        work("ResNet-18, epochs of 5 s", (10, 20, 30, 50), 5.0, resnet["last"], resnet["best"]),
        work("probes of 5 s", (10, 20, 40), REPORTED_PROBE / 20, PROBE_STATE, PROBE_BEST),
    ]


def puts(inputs: dict[str, Any], size: int) -> int:
    """Requests of one object, as counted: one, or one a part of 8 MiB and two more."""
    counts: dict[int, int] = dict(inputs["store"]["puts"])
    return counts[size]


def service(inputs: dict[str, Any]) -> Service:
    """The driver, under Ray with two trials as measured; what more trials add is the slope of Tune's step."""
    found = inputs["driver"]
    steps = {int(count): seconds for count, seconds in found["steps"].items()}
    each = max(0.0, (steps[1000] - steps[10]) / 990)
    fsync = fsync_seconds(inputs)
    # A trial is three lines in the journal beside its reports': configuration, attempt, end.
    return Service(found["report"] + fsync, found["trial"] + 3 * fsync, each)


def fsync_seconds(inputs: dict[str, Any]) -> float:
    """Of one line on disk: the median of medians, since the disk was busy with something else now and then."""
    medians: list[float] = [row["fsync"] for row in inputs["record"]]
    return statistics.median(medians)


@main.command()
@click.option("--chart", type=click.Path(path_type=Path), help="Draw docs/scale.svg there, too.")
@click.pass_obj
def simulate(inputs: Path, chart: Path | None) -> None:
    """Print the tables, as docs/scale.md has them."""
    from benchmarks import fleet_tables

    found = json.loads(inputs.read_text())
    fleet_tables.show(found)
    if chart is not None:
        fleet_tables.chart(found, chart)


@main.command()
@click.pass_obj
def check(inputs: Path) -> None:
    """Real sweeps of trials that only report, and what the simulation says of them."""
    from benchmarks.fleet_driver import drive

    known = json.loads(inputs.read_text())
    # Slots are processes of this machine: what a report takes besides the driver is what it took there, with two slots.
    found = service(known)
    found = replace(found, hop=max(0.0, known["driver"]["wait"] - found.report) / 2)
    heads = (
        "slots",
        "epoch, s",
        "reports/s, real",
        "simulated",
        "error",
        "driver's s a report, real",
        "simulated",
        "cores idle %",
    )
    click.echo(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for slots, seconds in CHECKS:
        with tempfile.TemporaryDirectory(prefix="fleet-") as name:
            real = drive(Path(name), 20 * slots, EPOCHS, slots, seconds)
        out = Fleet(slots, 20 * slots, Work("", (EPOCHS,), seconds), found, Fifo()).run()
        rate, said = real.trials * EPOCHS / real.wall, out.reports / out.span
        used = known["driver"]["report"] + known["driver"]["trial"] / EPOCHS  # of its processor, the disk apart
        cost = 1e3 * real.thread / real.trials / EPOCHS, 1e3 * used
        click.echo(
            f"| {slots} | {seconds:g} | {rate:.0f} | {said:.0f} | {said / rate - 1:+.0%} "
            f"| {cost[0]:.1f} ms | {cost[1]:.1f} ms | {100 * real.idle:.0f} |"
        )


if __name__ == "__main__":
    main()
