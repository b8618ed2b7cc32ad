"""The simulated fleet: nothing is lost or made up, small cases come out as by hand, and a queue as theory has it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.fleet_sim import Fleet, Outcome, Service, Work, losses
from fashion.schedulers.asha import Asha
from fashion.schedulers.base import Fifo, Scheduler

FREE = Service(0.0, 0.0, hop=0.0, start=0.0)


def falling(number: int, epochs: int, rng: random.Random) -> list[float]:
    return [1 / epoch for epoch in range(1, epochs + 1)]


def accounted(out: Outcome) -> float:
    return out.trained + out.vain + out.decisions + out.handed + out.starting + out.uploads + out.tail


def near(value: float) -> Any:
    """pytest.approx, which a type checker takes for what no number equals."""
    return pytest.approx(value)


def test_one_trial_by_hand() -> None:
    service = Service(report=0.5, hand_out=2.0, hop=0.25, start=1.0)
    work = Work("", (3,), 10.0, state_upload=4.0, best_upload=1.0, state=100, best=7, state_puts=3, best_puts=2)
    out = Fleet(1, 1, work, service, Fifo(), curve=falling).run()
    # 2.25 until it is handed out, 1 to start, 30 of training, 1 for each of three decisions, 5 for the last upload.
    assert out.span == pytest.approx(2.25 + 1 + 30 + 3 * 1 + 5)
    assert (out.trials, out.reports, out.delays) == (1, 3, [near(1.0)] * 3)
    assert out.busy == pytest.approx(2 + 3 * 0.5)
    assert out.full == (2.25, 2.0, 0)
    assert (out.trained, out.vain, out.tail) == (near(30), 0, 0)
    assert (out.decisions, out.uploads) == (near(3), near(5))
    assert (out.puts["state"], out.puts["best"], out.sent, out.kept) == (9, 6, 321, 7)
    assert sum(out.writes.values()) == 9 + 6 + 3 + 2  # and a deletion an epoch, events and a deletion at the end


def test_a_free_driver_costs_nothing() -> None:
    out = Fleet(4, 8, Work("", (5,), 2.0), FREE, Fifo()).run()
    assert out.span == pytest.approx(20)
    assert out.trained == pytest.approx(8 * 10)
    assert accounted(out) == pytest.approx(out.trained)


def test_a_stop_reaches_the_epoch_in_progress() -> None:
    # The second trial is worse at the first rung (1 of 10 epochs): stopped when the decision is there, 3 s into its
    # second.
    def curve(number: int, epochs: int, rng: random.Random) -> list[float]:
        return [1.0 + number] * epochs

    out = Fleet(1, 2, Work("", (10,), 10.0, state_upload=3.0), FREE, Asha(), curve=curve).run()
    assert out.reports == 10 + 1
    assert out.vain == pytest.approx(3)
    assert out.trained == pytest.approx(100 + 10)
    assert out.span == pytest.approx(103 + 13)


def test_an_upload_slower_than_an_epoch_delays_reports_and_stops_nobody() -> None:
    out = Fleet(1, 1, Work("", (4,), 1.0, state_upload=5.0), FREE, Fifo()).run()
    assert out.span == pytest.approx(1 + 4 * 5)
    assert out.uploads == pytest.approx(out.span - 4)


@pytest.mark.parametrize("scheduler", [Asha, Fifo])
@pytest.mark.parametrize("service", [Service(0.004, 0.01, 1e-5), Service(0.2, 0.5)], ids=["quick", "saturated"])
def test_every_second_of_every_slot_is_accounted_for(service: Service, scheduler: type[Scheduler]) -> None:
    work = Work("", (1, 3, 10), 1.0, 0.3, state_upload=0.4, best_upload=0.8)
    out = Fleet(7, 50, work, service, scheduler(), seed=3).run()
    assert out.trials == 50
    assert accounted(out) == pytest.approx(out.span * 7)
    assert min(out.trained, out.vain, out.decisions, out.handed, out.uploads, out.tail) >= 0
    assert out.busy <= out.span + 1e-9
    assert len(out.delays) == out.reports
    if scheduler is Fifo:
        assert out.vain == pytest.approx(0)


def test_a_saturated_driver_is_the_bound() -> None:
    service = Service(report=0.01, hand_out=0.02, hop=0.0, start=0.0)
    out = Fleet(50, 500, Work("", (20,), 0.001), service, Fifo()).run()
    assert out.busy == pytest.approx(500 * (20 * 0.01 + 0.02))
    assert out.span == pytest.approx(out.busy, rel=0.01)


def test_a_closed_queue_with_equal_times_is_the_textbook_s() -> None:
    # N slots that think for Z and are served for S in turn: throughput min(N / (Z + S), 1 / S) (asymptotic bounds,
    # which deterministic times reach).
    for slots, think, serve in ((3, 1.0, 0.1), (5, 1.0, 0.5)):
        service = Service(report=serve, hand_out=0.0, hop=0.0, start=0.0)
        out = Fleet(slots, slots, Work("", (400,), think), service, Fifo()).run()
        assert out.reports / out.span == pytest.approx(min(slots / (think + serve), 1 / serve), rel=0.02)


def test_each_live_trial_adds_to_the_service() -> None:
    service = Service(report=0.01, hand_out=0.0, each_live=0.001, hop=0.0, start=0.0)
    out = Fleet(10, 10, Work("", (100,), 1e-6), service, Fifo()).run()
    assert out.busy == pytest.approx(10 * 100 * (0.01 + 10 * 0.001), rel=0.02)


def test_the_same_seed_is_the_same_sweep() -> None:
    work = Work("", (5, 10), 1.0, 0.2)
    outs = [Fleet(5, 40, work, Service(0.004, 0.01), Asha(), seed=seed).run() for seed in (1, 1, 2)]
    assert outs[0] == outs[1]
    assert outs[0].span != outs[2].span


def test_losses_fall_and_halving_saves_most_of_the_work() -> None:
    rng = random.Random(0)
    curves = [losses(number, 20, rng) for number in range(50)]
    assert all(curve[0] > curve[-1] for curve in curves)
    kinds = [Fleet(10, 200, Work("", (30,), 1.0), FREE, make(), seed=0).run().reports for make in (Asha, Fifo)]
    assert kinds[1] == 200 * 30
    assert kinds[0] < 0.6 * kinds[1]
