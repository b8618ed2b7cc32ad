"""Which trial hangs: time in which the driver itself stood still does not count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from fashion.engine.epoch_timeout import EpochTimeout

TIMEOUT = 60.0


class Sweep:
    """Trials 1 and 2, and Tune, which takes a step every `step` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.killed, self.hung = 1000.0, list[str](), dict[int, str]()
        monkeypatch.setattr(ray, "kill", self.killed.append)
        self.watch = EpochTimeout(TIMEOUT, cast(Any, SimpleNamespace(hung=self.hung)), lambda: self.now)
        for number in (1, 2):
            self.watch.on_trial_start(0, [], self.trial(number))

    def trial(self, number: int) -> Any:
        state = SimpleNamespace(ray_actor=f"actor {number}")
        return SimpleNamespace(trial_id=f"t{number}", config={"number": number}, temporary_state=state)

    def steps(self, seconds: float, step: float = 0.2) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self.watch.on_step_end(0, [])


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    return Sweep(monkeypatch)


def test_a_silent_trial_is_killed_and_one_that_reports_is_not(sweep: Sweep) -> None:
    for _ in range(4):
        sweep.steps(TIMEOUT / 3)
        sweep.watch.on_trial_result(0, [], sweep.trial(2), {})
    assert sweep.killed == ["actor 1"]
    assert list(sweep.hung) == [1]
    assert "resources.epoch_timeout" in sweep.hung[1]


@pytest.mark.parametrize("pause", [TIMEOUT + 1, 100_000.0])
def test_a_pause_of_the_driver_is_nobodys_hang(sweep: Sweep, pause: float) -> None:
    """SIGSTOP, a laptop's sleep, a virtual machine that is moved."""
    for _ in range(3):
        sweep.steps(10.0)
        sweep.now += pause
        sweep.steps(1.0)
    assert sweep.killed == []
    sweep.steps(TIMEOUT)  # what hangs is found all the same
    assert sweep.killed == ["actor 1", "actor 2"]


def test_a_driver_that_swaps_counts_little(sweep: Sweep) -> None:
    sweep.steps(10 * TIMEOUT, step=30.0)
    assert sweep.killed == []


def test_a_trial_that_has_ended_is_not_looked_at(sweep: Sweep) -> None:
    sweep.watch.on_trial_complete(0, [], sweep.trial(1))
    sweep.watch.on_trial_error(0, [], sweep.trial(2))
    sweep.steps(2 * TIMEOUT)
    assert sweep.killed == []
