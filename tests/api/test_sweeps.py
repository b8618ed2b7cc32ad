"""`load_spec` with Python values, and `run` over what starts a sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fashion
from fashion.record.run import Run
from fashion.spec.space import LogUniform
from fashion.sweep.outcome import outcome_of
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC

TEXT = """
name: small
data: {root: d}
model: {backbone: tiny, weights: none}
train: {epochs: 4, lr: {loguniform: [0.001, 1]}}
search: {trials: 2}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(TEXT)
    return tmp_path / "small.yaml"


def test_overrides_are_python_values(path: Path) -> None:
    spec = fashion.load_spec(
        path,
        {
            "train.epochs": np.int64(3), "train.weight_decay": 1e-05, "data.root": Path("e"), "data.eval_flip": True,
            "data.train_crop": None, "train.lr": {"loguniform": (0.01, 0.1)},
        },
    )  # fmt: skip
    assert spec.fixed["train.epochs"] == 3
    assert spec.fixed["train.weight_decay"] == 1e-5
    assert spec.fixed["data.root"] == "e"
    assert spec.fixed["data.eval_flip"] is True
    assert spec.space["train.lr"] == LogUniform(0.01, 0.1)
    assert fashion.load_spec(path) == fashion.load_spec(str(path), {})


@pytest.mark.parametrize("text", ["1e3", "12", "null", "yes", "{a: b}", "k=v # x", "é😀", "s3://bucket/a"])
def test_a_string_stays_a_string(path: Path, text: str) -> None:
    assert fashion.load_spec(path, {"data.root": text}).fixed["data.root"] == text


def test_all_mistakes_are_told_at_once_in_the_commands_words(path: Path) -> None:
    with pytest.raises(fashion.SpecError) as caught:
        fashion.load_spec(path, {"train.epoch": 3, "train.epochs": "3", "train.momentum": 2})
    told = str(caught.value)
    assert told.startswith(f"{path}: 3 problems")
    assert "--set train.epoch: unknown field. Did you mean train.epochs?" in told
    assert "--set train.epochs" in told
    assert "--set train.momentum" in told


@pytest.mark.parametrize("value", [float("nan"), object(), {"choice": [object()]}, {1, 2}])
def test_what_no_spec_can_hold_is_refused(path: Path, value: object) -> None:
    with pytest.raises(fashion.SpecError, match=r"--set train\.lr: must be a finite number, a string"):
        fashion.load_spec(path, {"train.lr": value})


def test_run_hands_over_to_the_engine(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    record = Run.create(tmp_path, "small", manifest)
    outcome, asked = outcome_of(record, 1), []

    def run_spec(spec: fashion.SweepSpec, **options: Any) -> tuple[Run, object]:
        asked.append((spec, options))
        return record, outcome

    double = ModuleType("fashion.engine.start")
    double.run_spec = run_spec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fashion.engine.start", double)
    spec = fashion.load_spec(path)
    run = fashion.run(spec, fresh=True, address="auto", mode="plain")
    assert asked == [(spec, {"address": "auto", "fresh": True, "mode": "plain"})]
    assert run.outcome is outcome
    assert run.record is record
    assert isinstance(run, fashion.RecordedRun)
