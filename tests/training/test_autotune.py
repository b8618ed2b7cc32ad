"""The choice of precision and layout: by hand it is obeyed, else measured once, and never at the loss's expense."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fashion.config.trial import TrialConfig
from fashion.errors import ResourcesError
from fashion.model.precision import Setting
from fashion.training import autotune
from fashion.training.autotune import Measured, candidates, choose, fastest, measure

CPU = torch.device("cpu")
NCHW, LAST, BF16 = Setting(False, False), Setting(False, True), Setting(True, True)


def configured(**train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"root": "x", "resize": 36, "crop": 32},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"batch_size": 4, **train},
        }
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precision": "fp32", "layout": "nchw"}, [NCHW]),
        ({"precision": "bf16", "layout": "nchw"}, [Setting(True, False)]),
        ({"precision": "fp32"}, [LAST, NCHW]),
        ({"layout": "channels_last"}, [LAST, BF16]),
        ({}, [LAST, NCHW, BF16]),
        ({"mode": "probe"}, [LAST]),
    ],
)
def test_what_is_fixed_by_hand_is_no_candidate(
    options: dict[str, Any], expected: list[Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "computes_bf16", lambda device: True)
    found = candidates(configured(**options), CPU)
    assert found[0] == expected[0]
    assert set(found) == set(expected)


def test_bf16_is_no_candidate_where_it_is_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "computes_bf16", lambda device: False)
    assert candidates(configured(), CPU) == [LAST, NCHW]
    assert candidates(configured(precision="bf16", layout="nchw"), CPU) == [Setting(True, False)]  # by hand: obeyed


def test_a_setting_that_is_far_slower_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, clock = {LAST: 0, NCHW: 0, BF16: 0}, [0.0]

    def step(model: Any, images: Any, targets: Any, setting: Setting, optimizer: Any) -> float:
        steps[setting] += 1
        clock[0] += 1.0 if setting == BF16 else 0.1
        return 1.0

    monkeypatch.setattr(autotune, "_step", step)
    monkeypatch.setattr(autotune, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    measured = measure(configured(), (3, 2), CPU, [LAST, NCHW, BF16])
    assert steps[BF16] == 2  # the first of all, which tells nothing, and a measured one
    assert min(steps[LAST], steps[NCHW]) > autotune.ROUNDS
    assert measured[BF16].seconds == pytest.approx(1.0)
    assert fastest(measured) in (LAST, NCHW)


def found(*rows: tuple[Setting, float, float]) -> dict[Setting, Measured]:
    """What was measured: (setting, seconds a step, loss) each."""
    return {setting: Measured(seconds, 2 * seconds, loss) for setting, seconds, loss in rows}


@pytest.mark.parametrize(
    ("seconds", "losses", "expected"),
    [
        ((1.0, 1.5, 0.5), (2.0, 2.0, 2.01), BF16),
        ((1.0, 1.5, 0.5), (2.0, 2.0, 2.2), LAST),  # fast and wrong
        ((1.0, 1.5, 0.5), (2.0, 2.0, float("nan")), LAST),
        ((1.0, 0.97, 0.99), (2.0, 2.0, 2.0), LAST),  # within the noise
        ((1.0, 0.8, 0.9), (2.0, 2.0, 2.0), NCHW),
        ((math.inf, 0.8, 0.9), (math.inf, 2.0, 2.0), NCHW),  # the first ran out of memory
    ],
)
def test_the_fastest_sound_setting_is_taken(
    seconds: tuple[float, ...], losses: tuple[float, ...], expected: Setting
) -> None:
    assert fastest(found(*zip([LAST, NCHW, BF16], seconds, losses, strict=True))) == expected


def test_on_a_gpu_bf16_is_the_usual_setting_but_must_be_right() -> None:
    assert fastest(found((BF16, 1.0, 2.0), (LAST, 2.0, 2.01))) == BF16
    assert fastest(found((BF16, 1.0, 9.0), (LAST, 2.0, 2.0))) == LAST


def test_compilation_must_pay_for_itself_within_the_trial() -> None:
    compiled = replace(LAST, compile="default")
    measured = {LAST: Measured(1.0, 1.0, 2.0), compiled: Measured(0.5, 40.0, 2.0)}
    assert fastest(measured, steps=50) == LAST  # 50 s against 65 s
    assert fastest(measured, steps=500) == compiled


def test_what_does_not_fit_into_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that fails as one does on a full GPU."""

    def full(*_: Any) -> float:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(autotune, "_step", full)
    with pytest.raises(ResourcesError, match=r"gpus_per_worker.*tiny at 32 px with 4 images does not fit.*Lower"):
        choose(configured(), (3, 2), CPU, tmp_path, 100)
    with pytest.raises(ResourcesError):  # as the finding says
        choose(configured(), (3, 2), CPU, tmp_path, 100)


def test_losses_are_compared_over_the_steps_that_all_have_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest is soon measured no further, while the losses of the others go on falling."""

    def steps(config: Any, counts: Any, device: Any, setting: Setting, count: int, side: int) -> Iterator[float]:
        for loss in range(100, 0, -1):
            time.sleep(0.05 if setting == LAST else 0.001)
            yield float(loss)

    monkeypatch.setattr(autotune, "_steps", steps)
    found = measure(configured(), (3, 2), CPU, [LAST, NCHW, BF16])
    assert {setting: measured.loss for setting, measured in found.items()} == dict.fromkeys((LAST, NCHW, BF16), 99.5)
    assert fastest(found) != LAST


def test_one_process_measures_and_the_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured()
    first = choose(config, (3, 2), CPU, tmp_path, 100)
    (path,) = tmp_path.glob("speed-*.json")
    content = json.loads(path.read_text())
    rows = {Setting(row["bf16"], row["channels_last"], row["compile"]): row for row in content["settings"]}
    assert set(rows) == set(candidates(config, CPU))
    assert first in rows
    assert content["torch"] == torch.__version__
    monkeypatch.setattr(autotune, "measure", lambda *arguments: pytest.fail("measured again"))
    rows[NCHW]["seconds"] = 1e-9
    path.write_text(json.dumps(content))
    assert choose(config, (3, 2), CPU, tmp_path, 100) == NCHW
    assert choose(configured(layout="channels_last", precision="fp32"), (3, 2), CPU, tmp_path / "none", 100) == LAST
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": [{"bf16": true}]}', '{"settings": 3}'])
def test_a_damaged_finding_is_measured_again(tmp_path: Path, content: str) -> None:
    config = configured()
    choose(config, (3, 2), CPU, tmp_path, 100)
    (path,) = tmp_path.glob("speed-*.json")
    path.write_text(content)
    choose(config, (3, 2), CPU, tmp_path, 100)
    assert len(json.loads(path.read_text())["settings"]) == len(candidates(config, CPU))


@pytest.mark.slow
def test_a_compiled_setting_is_measured_and_trains(tmp_path: Path) -> None:
    """The real compiler, on the smallest network."""
    chosen = choose(configured(compile="auto", precision="fp32"), (3, 2), CPU, tmp_path, 10**9)
    (path,) = tmp_path.glob("speed-*.json")
    rows = json.loads(path.read_text())["settings"]
    (compiled,) = (row for row in rows if row["compile"] == "default")
    (eager,) = (row for row in rows if row["compile"] == "none" and row["channels_last"] == compiled["channels_last"])
    assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-3)
    assert compiled["first"] > compiled["seconds"]
    assert str(chosen).startswith("fp32")


def test_measuring_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    choose(configured(), (3, 2), CPU, tmp_path, 100)
    assert torch.equal(torch.rand(3), expected)


def test_all_settings_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same weights on the same images; bf16 within its few digits."""
    monkeypatch.setattr(autotune, "FAR", math.inf)  # equally many steps of all, also where bf16 is imitated
    allowed = [LAST, NCHW, BF16]
    measured = measure(configured(), (3, 2), CPU, allowed)
    assert all(each.seconds > 0 for each in measured.values())
    assert measured[NCHW].loss == pytest.approx(measured[LAST].loss, rel=1e-4)
    assert measured[BF16].loss == pytest.approx(measured[LAST].loss, rel=autotune.TOLERANCE)


@pytest.fixture(autouse=True)
def unchanged_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
