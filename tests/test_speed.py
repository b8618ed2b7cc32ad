"""The choice of precision and layout: by hand it is obeyed, else measured once, and never at the loss's expense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fashion import speed
from fashion.config import TrialConfig
from fashion.speed import Setting, candidates, choose, fastest, measure

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
def test_what_is_fixed_by_hand_is_no_candidate(options: dict[str, Any], expected: list[Setting]) -> None:
    found = candidates(configured(**options), CPU)
    assert found[0] == expected[0]
    assert set(found) == set(expected)


@pytest.mark.parametrize(
    ("seconds", "losses", "expected"),
    [
        ((1.0, 1.5, 0.5), (2.0, 2.0, 2.01), BF16),
        ((1.0, 1.5, 0.5), (2.0, 2.0, 2.2), LAST),  # fast and wrong
        ((1.0, 1.5, 0.5), (2.0, 2.0, float("nan")), LAST),
        ((1.0, 0.97, 0.99), (2.0, 2.0, 2.0), LAST),  # within the noise
        ((1.0, 0.8, 0.9), (2.0, 2.0, 2.0), NCHW),
    ],
)
def test_the_fastest_sound_setting_is_taken(
    seconds: tuple[float, ...], losses: tuple[float, ...], expected: Setting
) -> None:
    allowed = [LAST, NCHW, BF16]
    assert (
        fastest(allowed, dict(zip(allowed, seconds, strict=True)), dict(zip(allowed, losses, strict=True))) == expected
    )


def test_on_a_gpu_bf16_is_the_usual_setting_but_must_be_right() -> None:
    allowed = [BF16, LAST]
    quick = {BF16: 1.0, LAST: 2.0}
    assert fastest(allowed, quick, {BF16: 2.0, LAST: 2.01}) == BF16
    assert fastest(allowed, quick, {BF16: 9.0, LAST: 2.0}) == LAST


def test_one_process_measures_and_the_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured()
    first = choose(config, (3, 2), CPU, tmp_path)
    (path,) = tmp_path.glob("speed-*.json")
    content = json.loads(path.read_text())
    assert content["choice"] == str(first)
    assert set(content["seconds_per_step"]) == {"fp32 channels_last", "fp32 nchw", "bf16 channels_last"}
    assert content["torch"] == torch.__version__
    monkeypatch.setattr(speed, "measure", lambda *arguments: pytest.fail("measured again"))
    content["choice"] = "fp32 nchw"
    path.write_text(json.dumps(content))
    assert choose(config, (3, 2), CPU, tmp_path) == NCHW
    assert choose(configured(layout="channels_last", precision="fp32"), (3, 2), CPU, tmp_path / "none") == LAST
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"choice": "fp64 nchw"}', '{"choice": 3}'])
def test_a_damaged_finding_is_measured_again(tmp_path: Path, content: str) -> None:
    config = configured()
    choose(config, (3, 2), CPU, tmp_path)
    (path,) = tmp_path.glob("speed-*.json")
    path.write_text(content)
    choose(config, (3, 2), CPU, tmp_path)
    assert "seconds_per_step" in json.loads(path.read_text())


def test_measuring_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    choose(configured(), (3, 2), CPU, tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_all_settings_train_alike() -> None:
    """From the same weights on the same images; bf16 within its few digits."""
    allowed = [LAST, NCHW, BF16]
    seconds, losses = measure(configured(), (3, 2), CPU, allowed)
    assert all(value > 0 for value in seconds.values())
    assert losses[NCHW] == pytest.approx(losses[LAST], rel=1e-4)
    assert losses[BF16] == pytest.approx(losses[LAST], rel=speed.TOLERANCE)


@pytest.fixture(autouse=True)
def unchanged_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
