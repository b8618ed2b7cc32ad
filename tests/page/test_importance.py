"""What mattered: a field that decides is told from those that don't; nothing is said of too few trials."""

from __future__ import annotations

import math

import numpy as np

from fashion.page.importance import importance_at
from fashion.record.trial import Trial

FIELDS = ("train.lr", "train.dropout", "train.momentum")


def trials(count: int, weight: float) -> tuple[dict[int, Trial], dict[int, float]]:
    """Trials whose loss is decided by lr alone, as far as `weight` says; momentum is set for every other trial."""
    drawn = np.random.default_rng(0)
    made, losses = {}, {}
    for number in range(count):
        lr = float(np.exp(drawn.uniform(np.log(1e-4), 0)))
        train = {"lr": lr, "dropout": float(drawn.random()), "momentum": float(drawn.random()) if number % 2 else None}
        made[number] = Trial(number, {"train": train})
        losses[number] = weight * (math.log10(lr) + 2) ** 2 + float(drawn.normal(0, 0.1))
    return made, losses


def test_the_field_that_decides_is_told_from_chance() -> None:
    made, losses = trials(60, 1.0)
    found = importance_at("at epoch 1", losses, made, FIELDS, ("train.lr",))
    assert [each.field for each in found.fields if each.told] == ["train.lr"]
    assert found.fields[0].low > 0.3


def test_where_nothing_decides_nothing_is_told() -> None:
    made, losses = trials(40, 0.0)
    found = importance_at("at epoch 1", losses, made, FIELDS, ("train.lr",))
    assert not any(each.told for each in found.fields)


def test_few_trials_tell_nothing() -> None:
    made, losses = trials(8, 1.0)
    found = importance_at("at epoch 1", losses, made, FIELDS, ("train.lr",))
    assert found.fields == ()
    assert "fewer than 12" in found.why
