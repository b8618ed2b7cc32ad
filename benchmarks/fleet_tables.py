"""The tables of docs/scale.md: the fleet simulated at each size and kind of trial, and what follows for the bucket."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import fleet
from benchmarks.__main__ import shown
from benchmarks.fleet_sim import Fleet, Outcome, Service, Work
from fashion.schedulers.asha import Asha

GROUPED = 8  # reports that would share one fsync
SLOW_DISK = 0.005  # seconds of an fsync on a disk that others use, too
LARGER_PART = 64 << 20  # bytes
CHARTED = (10, 30, 100, 300, 1000)  # GPUs


@dataclass(frozen=True)
class Bucket:
    """What a sweep does to the bucket. `writes` a second on average and in the busiest 1 % of seconds; `cost` in USD for
    requests, `month` for what is kept, a month; seconds to list what is there at the end, one request after another, and
    until a new driver hands out a trial: list, fetch and read the record, start Ray."""

    requests: dict[str, int]
    writes: float
    busiest: float
    cost: float
    month: float
    journal: int
    objects: int
    listing: float
    recovery: float


def bucket(out: Outcome, inputs: dict[str, Any]) -> Bucket:
    record = inputs["record"][0]
    segments = len(out.journal_seconds)
    merged = segments // fleet.MERGED
    requests = {
        "state": out.puts["state"], "best": out.puts["best"], "events": out.puts["events"],
        "journal": segments + merged, "lease": int(out.span / fleet.LEASE_SECONDS), "lists": out.lists,
    }  # fmt: skip
    paid = sum(requests.values())
    journal = int(out.reports * record["report_bytes"] + out.trials * record["trial_bytes"])
    left = merged + segments % fleet.MERGED
    objects = out.objects + left + 3
    store = inputs["store"]
    listing = math.ceil(objects / 1000) * fleet.LIST_SECONDS + objects * store["list_client"] / store["listed"]
    fetch = left * fleet.LATENCY / 8 + journal / fleet.BANDWIDTH  # eight at a time
    reading = out.reports * (record["read_per_report"] + record["replay_per_report"])
    seconds = np.zeros(max(1, int(out.full[0])))  # while every slot has work
    for second, count in out.writes.items():
        if second < len(seconds):
            seconds[second] += count
    return Bucket(
        requests, float(seconds.mean()), float(np.quantile(seconds, 0.99)), paid * fleet.PUT_PRICE,
        out.kept / 1e9 * fleet.MONTH_PRICE, journal, objects, listing, listing + fetch + reading + fleet.RAY_SECONDS,
    )  # fmt: skip


def simulated(work: Work, gpus: int, found: Service, seed: int = 0) -> Outcome:
    return Fleet(gpus, gpus * fleet.TRIALS, work, found, Asha(), seed).run()


def show(inputs: dict[str, Any]) -> None:
    found, works = fleet.service(inputs), fleet.works(inputs)
    click.echo(
        f"service: report {1e3 * found.report:.2f} ms, hand-out {1e3 * found.hand_out:.2f} ms, "
        f"each live trial {1e6 * found.each_live:.2f} us\n"
    )
    outcomes = {(work.name, gpus): simulated(work, gpus, found) for work in works for gpus in fleet.GPUS}
    driver_table(outcomes)
    record_table(outcomes, inputs)
    bucket_table(outcomes, inputs)
    what_if(works, found, inputs)


def heads(*names: str) -> None:
    click.echo("\n| " + " | ".join(names) + " |\n|" + "---|" * len(names))


def line(*cells: str) -> None:
    click.echo("| " + " | ".join(cells) + " |")


def driver_table(outcomes: dict[tuple[str, int], Outcome]) -> None:
    heads(
        "trials", "GPUs", "hours", "trials run", "reports", "reports/s", "driver busy %", "report decided, ms p50", "p99",
        "next trial handed out, ms p50", "p99", "GPU idle for the driver %", "for uploads %", "trained in vain %",
        "end without trials %",
    )  # fmt: skip
    for (name, gpus), out in outcomes.items():
        whole = out.slots * out.span
        delay, gap = np.quantile(out.delays, (0.5, 0.99)) * 1e3, np.quantile(out.gaps[gpus:] or out.gaps, (0.5, 0.99))
        shares = (out.decisions + out.handed, out.uploads, out.vain, out.tail)
        line(
            name, f"{gpus:,}", f"{out.span / 3600:.2f}", f"{out.trials:,}", f"{out.reports:,}",
            shown(out.full[2] / out.full[0]), f"{100 * out.full[1] / out.full[0]:.1f}", shown(delay[0]), shown(delay[1]), shown(1e3 * gap[0]), shown(1e3 * gap[1]),
            *(f"{100 * share / whole:.2f}" for share in shares),
        )  # fmt: skip


def record_table(outcomes: dict[tuple[str, int], Outcome], inputs: dict[str, Any]) -> None:
    heads(
        "trials", "GPUs", "journal, MB", "driver's memory, GB", "objects at the end", "list them, s", "a new driver, s"
    )
    for (name, gpus), out in outcomes.items():
        found = bucket(out, inputs)
        memory = fleet.BASE_MEMORY + out.reports * inputs["record"][0]["memory_per_report"]
        line(
            name, f"{gpus:,}", f"{found.journal / 1e6:.1f}", f"{memory / 1e9:.2f}", f"{found.objects:,}",
            f"{found.listing:.1f}", f"{found.recovery:.0f}",
        )  # fmt: skip


def bucket_table(outcomes: dict[tuple[str, int], Outcome], inputs: dict[str, Any]) -> None:
    heads(
        "trials", "GPUs", "writes/s mean", "busiest 1 %", "of them state %", "sent, GB", "MB/s", "requests, USD",
        "USD a GPU hour", "of the GPU's price %", "kept, GB", "USD a month",
    )  # fmt: skip
    for (name, gpus), out in outcomes.items():
        found = bucket(out, inputs)
        hours = out.slots * out.span / 3600
        line(
            name, f"{gpus:,}", shown(found.writes), shown(found.busiest),
            f"{100 * found.requests['state'] / sum(found.requests.values()):.0f}", f"{out.sent / 1e9:,.0f}",
            shown(out.sent / out.span / 1e6), f"{found.cost:.2f}", f"{found.cost / hours:.4f}",
            f"{100 * found.cost / hours / fleet.GPU_PRICE:.2f}", f"{out.kept / 1e9:,.0f}", f"{found.month:.2f}",
        )  # fmt: skip


def what_if(works: list[Work], found: Service, inputs: dict[str, Any]) -> None:
    """What makes it worse, and what mends it, at the largest size."""
    gpus, fsync = fleet.GPUS[-1], fleet.fsync_seconds(inputs)
    slow = replace(found, report=found.report + SLOW_DISK - fsync, hand_out=found.hand_out + 3 * (SLOW_DISK - fsync))
    costs = {int(count): seconds for count, seconds in inputs["optuna"].items()}
    asked = float(np.interp(gpus * fleet.TRIALS / 2, list(costs), list(costs.values())))  # half way through the sweep
    others = {
        "as it is": found,
        f"a disk of {1e3 * SLOW_DISK:g} ms an fsync": slow,
        f"the same, one fsync for {GROUPED} reports": replace(slow, report=slow.report - SLOW_DISK * (1 - 1 / GROUPED)),
        "search.method: optuna": replace(found, hand_out=found.hand_out + asked),
        "without what each live trial adds": replace(found, each_live=0.0),
    }
    heads(
        "trials",
        "GPUs",
        "with",
        "reports/s",
        "driver busy %",
        "report decided, ms p99",
        "GPU idle for the driver %",
        "writes/s",
    )
    for work in works:
        for name, other in others.items():
            row(work, gpus, name, simulated(work, gpus, other))
        row(work, gpus // 4, "four sweeps of a quarter, each", simulated(work, gpus // 4, found))
        if work.state_puts > 1:
            row(work, gpus, "parts of 64 MiB", simulated(larger_parts(work), gpus, found))


def larger_parts(work: Work) -> Work:
    """The same with objects sent in parts of 64 MiB: of one part one request, of more two requests besides."""

    def puts(size: int) -> int:
        return 1 if size <= LARGER_PART else math.ceil(size / LARGER_PART) + 2

    return replace(work, state_puts=puts(work.state), best_puts=puts(work.best) + 1)


def row(work: Work, gpus: int, name: str, out: Outcome) -> None:
    idle = (out.decisions + out.handed) / (out.slots * out.span)
    writes = sum(count for second, count in out.writes.items() if second < out.full[0]) / out.full[0]
    line(
        work.name, f"{gpus:,}", name, shown(out.full[2] / out.full[0]), f"{100 * out.full[1] / out.full[0]:.1f}", shown(float(1e3 * np.quantile(out.delays, 0.99))),
        f"{100 * idle:.2f}", f"{writes:,.0f}",
    )  # fmt: skip


def chart(inputs: dict[str, Any], place: Path) -> None:
    """The driver's load and what it costs the GPUs, by their number."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fleet"  # the same picture is the same file
    from matplotlib import pyplot as plt

    found = fleet.service(inputs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True)
    for work in fleet.works(inputs):
        outs = [simulated(work, gpus, found) for gpus in CHARTED]
        left.plot(CHARTED, [100 * out.full[1] / out.full[0] for out in outs], marker="o", label=work.name)
        idle = [100 * (out.decisions + out.handed) / (out.slots * out.span) for out in outs]
        right.plot(CHARTED, idle, marker="o", label=work.name)
    for axes, title in ((left, "driver busy, %"), (right, "GPUs idle for the driver, %")):
        axes.set(xscale="log", title=title, xlabel="GPUs", ylim=(0, 105))
        axes.set_xticks(CHARTED, [f"{gpus:,}" for gpus in CHARTED])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    right.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(place, metadata={"Date": None})
