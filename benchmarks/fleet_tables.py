"""The tables of docs/scale.md: the fleet simulated at each size and kind of trial, and what follows for the bucket."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np

from benchmarks import fleet
from benchmarks.fleet_sim import Fleet, Outcome, Service, Work
from fashion.schedulers import Asha

GROUPED = 8  # reports that would share one fsync


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
        "slot waits for the next trial, s p50", "p99", "GPU idle for the driver %", "for uploads %", "trained in vain %",
        "end without trials %",
    )  # fmt: skip
    for (name, gpus), out in outcomes.items():
        whole = out.slots * out.span
        delay, gap = np.quantile(out.delays, (0.5, 0.99)) * 1e3, np.quantile(out.gaps[gpus:] or out.gaps, (0.5, 0.99))
        shares = (out.decisions + out.handed, out.uploads, out.vain, out.tail)
        line(
            name, f"{gpus:,}", f"{out.span / 3600:.2f}", f"{out.trials:,}", f"{out.reports:,}",
            f"{out.full[2] / out.full[0]:.3g}", f"{100 * out.full[1] / out.full[0]:.1f}", f"{delay[0]:.1f}", f"{delay[1]:.1f}", f"{gap[0]:.3f}", f"{gap[1]:.3f}",
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
            name, f"{gpus:,}", f"{found.writes:.2g}", f"{found.busiest:.2g}",
            f"{100 * found.requests['state'] / sum(found.requests.values()):.0f}", f"{out.sent / 1e9:,.0f}",
            f"{out.sent / out.span / 1e6:,.1f}", f"{found.cost:.2f}", f"{found.cost / hours:.4f}",
            f"{100 * found.cost / hours / fleet.GPU_PRICE:.2f}", f"{out.kept / 1e9:,.0f}", f"{found.month:.2f}",
        )  # fmt: skip


def what_if(works: list[Work], found: Service, inputs: dict[str, Any]) -> None:
    """The remedies, at the largest size: fewer parts of an object, fewer fsyncs, a step whose cost does not grow."""
    gpus, fsync = fleet.GPUS[-1], float(np.median([row["fsync"] for row in inputs["record"]]))
    others = {
        "as it is": found,
        f"one fsync for {GROUPED} reports": replace(found, report=found.report - fsync * (1 - 1 / GROUPED)),
        "no cost of each live trial": replace(found, each_live=0.0),
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
        if work.state_puts > 1:
            whole = replace(work, state_puts=1, best_puts=2)
            row(work, gpus, "objects in one request", simulated(whole, gpus, found))


def row(work: Work, gpus: int, name: str, out: Outcome) -> None:
    idle = (out.decisions + out.handed) / (out.slots * out.span)
    line(
        work.name, f"{gpus:,}", name, f"{out.full[2] / out.full[0]:.3g}", f"{100 * out.full[1] / out.full[0]:.1f}", f"{1e3 * np.quantile(out.delays, 0.99):.1f}",
        f"{100 * idle:.2f}", f"{sum(out.writes.values()) / out.span:,.0f}",
    )  # fmt: skip
