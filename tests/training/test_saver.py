"""An epoch's files are written while the next epoch trains; its report comes when they are on disk, never before."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fashion.errors import TrialDiverged
from fashion.record.trial_files import LAST
from fashion.training import checkpoint
from fashion.training.loop import TrialInputs, fit
from tests.support.trained import NONE, config, packs, training


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing of `last.pt` waits for this event."""
    event, save = threading.Event(), checkpoint.save_last

    def wait_and_save(folder: Path, state: Any) -> None:
        assert event.wait(60)
        save(folder, state)

    monkeypatch.setattr(checkpoint, "save_last", wait_and_save)
    return event


def test_training_goes_on_while_files_are_written_and_the_report_waits_for_them(
    demo_root: Path, tmp_path: Path, held: threading.Event
) -> None:
    wanted = config(demo_root, epochs=2, batch_size=8)
    steps: list[tuple[int, int]] = []

    def on_step(epoch: int, step: int, _: int) -> None:
        steps.append((epoch, step))
        if (epoch, step) == (2, 3):
            assert not (tmp_path / "trial" / LAST).exists()
            held.set()

    first = next(iter(fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path / "trial", on_step=on_step))))
    assert first.epoch == 1
    assert steps[-1] >= (2, 3)  # the loop did not wait
    assert (tmp_path / "trial" / LAST).exists()
    assert (tmp_path / "trial" / "best-0001.safetensors").exists()


def test_what_is_written_is_the_epochs_end_and_not_what_training_made_of_it(
    demo_root: Path, tmp_path: Path, held: threading.Event
) -> None:
    wanted = config(demo_root, epochs=3, batch_size=8)
    data = packs(demo_root, wanted)

    def release(epoch: int, step: int, _: int) -> None:
        if (epoch, step) == (2, 5):
            held.set()

    late = training(TrialInputs(wanted, data, NONE, tmp_path / "late", on_step=release))
    next(late)
    late.close()
    at_once = training(TrialInputs(wanted, data, NONE, tmp_path / "at once"))  # held is set by now
    next(at_once)
    at_once.close()
    states = [checkpoint.load_last(tmp_path / name / LAST) for name in ("late", "at once")]
    assert states[0]["model"].keys() == states[1]["model"].keys()
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


def test_an_error_of_the_writer_is_the_trials(demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, state: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_last", full)
    wanted = config(demo_root, epochs=2)
    with pytest.raises(OSError, match="No space left"):
        next(iter(fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path))))


def test_an_epoch_is_reported_before_the_failure_of_the_next(
    demo_root: Path, tmp_path: Path, held: threading.Event
) -> None:
    wanted = config(demo_root, epochs=3, batch_size=8)

    def fail(epoch: int, step: int, _: int) -> None:
        if (epoch, step) == (2, 2):
            held.set()
            raise TrialDiverged("told to")

    trial = fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path, on_step=fail))
    assert next(trial).epoch == 1
    with pytest.raises(TrialDiverged, match="told to"):
        next(trial)
