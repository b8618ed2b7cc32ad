"""Every message survives the way through Tune's result dictionary, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from fashion.engine.messages import (
    Alive,
    Began,
    Blocked,
    Failed,
    Moving,
    Noted,
    Reported,
    TrialMessage,
    from_result,
    message_of,
    to_result,
)
from fashion.record.trial import EpochReport
from fashion.training.task import Heartbeat, Note

REPORT = EpochReport(3, 1, 2, 5, {"val_loss": float("nan"), "val_accuracy": 0.5}, 1.25, "2026-01-02T03:04:05+00:00")
MESSAGES: list[TrialMessage] = [
    Began("host 12", "host"), Noted("fetched"), Alive(), Moving(), Blocked("the disk is full"), Failed("diverged"),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: TrialMessage) -> None:
    result = {**to_result(message), "trial_id": "a", "time_total_s": 3.0}  # Tune adds entries of its own
    assert from_result(result) == message


def test_a_report_comes_back_to_the_last_digit() -> None:
    found = from_result(to_result(Reported(REPORT)))
    assert isinstance(found, Reported)
    assert found.report.to_json() == REPORT.to_json()


@pytest.mark.parametrize(
    "result", [{}, {"kind": "Reported"}, {"kind": "Other", "content": "{}"}, {"kind": "Noted", "content": "{}"}]
)
def test_what_is_no_message_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_result(result)


def test_what_the_loop_tells_is_told_on() -> None:
    assert [message_of(each) for each in (REPORT, Note("x"), Heartbeat())] == [Reported(REPORT), Noted("x"), Alive()]
