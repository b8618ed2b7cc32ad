"""In which precision a frozen network's passes are made."""

from __future__ import annotations

from typing import Any

import pytest

from fashion.config.trial import TrialConfig
from fashion.training.tail import passes
from fashion.training.tail.passes import precisions


def configured(precision: str, **data: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"root": "data", "resize": 36, "crop": 32, **data},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"mode": "probe", "precision": precision},
            "seed": 0,
        }
    )


@pytest.mark.parametrize(
    ("precision", "split", "native", "expected"),
    [
        ("auto", "train", True, (True, False)),
        ("auto", "train+val", True, (True, False)),
        ("auto", "train", False, (False, True)),
        ("bf16", "train", True, (True, False)),
        ("bf16", "train", False, (False, True)),  # imitated bf16 takes ten times as long as fp32
        ("fp32", "train", True, (False,)),
        ("auto", "val", True, (False,)),
        ("bf16", "val", True, (False,)),
    ],
)
def test_what_is_trained_on_is_made_in_bf16_where_the_device_computes_it(
    precision: str, split: str, native: bool, expected: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "computes_bf16", lambda device: native)
    assert precisions(configured(precision), split, "cpu") == expected


def test_out_of_fold_every_image_is_evaluated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "computes_bf16", lambda device: True)
    assert precisions(configured("auto", folds=5), "train", "cpu") == (False,)
