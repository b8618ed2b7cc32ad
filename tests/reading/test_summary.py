"""Which field mattered most: found where one does, and rarely named where none does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion.reading.summary import most_important
from fashion.record.run import Run
from fashion.record.trial import EpochReport, Trial

SAMPLED: dict[str, Any] = {
    "model": {"backbone": {"choice": ["a", "b", "c"]}, "dropout": {"choice": [0.0, 0.5]}},
    "train": {"lr": {"loguniform": [0.001, 1]}, "epochs": 1},
}


def recorded(seed: int, trials: int, effect: str) -> Run:
    """A run in memory whose losses are noise and, with `effect`, what one field adds."""
    random = np.random.default_rng(seed)
    manifest = {"spec": SAMPLED, "attributes": [], "label_counts": {}}
    run = Run(Path("nowhere"), manifest)
    for number in range(trials):
        model = {"backbone": "abc"[random.integers(3)], "dropout": float(random.integers(2)) / 2}
        lr = float(10 ** random.uniform(-3, 0))
        added = {"": 0.0, "lr": abs(np.log10(lr)), "backbone": 2.0 * "bac".index(str(model["backbone"]))}[effect]
        report = EpochReport(number, 1, 1, 1, {"val_loss": 1 + added + random.normal() * 0.5}, 1.0, "")
        config = {"model": model, "train": {"lr": lr, "epochs": 1}}
        run.trials[number] = Trial(number, config, [report], {1: "continue"})
    return run


@pytest.mark.parametrize(("effect", "field"), [("lr", "train.lr"), ("backbone", "model.backbone")])
def test_what_matters_is_named(effect: str, field: str) -> None:
    found, why = most_important(recorded(0, 40, effect))
    assert why == ""
    assert found is not None
    assert (found.field, found.clear) == (field, True)
    assert 0.4 < found.share <= 1.0


def test_where_nothing_matters_nothing_is_named_as_a_rule() -> None:
    found = [most_important(recorded(seed, 20, ""))[0] for seed in range(40)]
    # 2 of 40 are expected; more than 6 come in 1 of 300 such experiments.
    assert sum(each.clear for each in found if each is not None) <= 6


def test_where_nothing_can_be_said() -> None:
    assert most_important(recorded(0, 9, "lr")) == (None, "9 trials are too few to tell")
    assert most_important(recorded(0, 1, "lr")) == (None, "one trial can't tell")
    run = recorded(0, 12, "lr")
    run.manifest["spec"] = {"train": {"epochs": 1}}
    assert most_important(run) == (None, "nothing was sampled")
