"""Heads that begin as a linear probe are the minimum of a convex problem, in whatever form the model takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad, minimize
from scipy.special import log_softmax

from fashion.config.model import ModelConfig
from fashion.data.lists import Attribute
from fashion.model.classifier import MultiHeadClassifier, build_model
from fashion.training.feed import with_cached
from fashion.training.initial.heads import HEAD_INITS, probe_heads, solved
from fashion.training.loop import TrialInputs, fit
from fashion.training.solved.logistic import minimum
from tests.support.trained import NONE, config, packs

COLOURS = Attribute("colour", ("a", "b", "c"))
MARKS = Attribute("marks", ("x", "y"), multi_label=True)


def made(images: int = 120, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(1)
    features = random.normal(size=(images, width)).astype(np.float32)
    targets = (features[:, :3] + random.normal(size=(images, 3))).argmax(1)
    return torch.from_numpy(features), torch.from_numpy(targets)


def test_it_is_the_minimum_that_scipy_finds() -> None:
    features, targets = made()
    x, y, strength = features.double().numpy(), targets.numpy(), 0.05

    def objective(flat: np.ndarray) -> float:
        weight, bias = flat[:18].reshape(3, 6), flat[18:]
        told = log_softmax(x @ weight.T + bias, axis=1)[np.arange(len(y)), y]
        return float(-told.mean() + strength / 2 * (weight**2).sum())

    expected = minimize(objective, np.zeros(21), method="BFGS", options={"gtol": 1e-7})
    weight, bias = minimum(features, targets, torch.ones(len(targets)), strength, torch.zeros(3, 6), torch.zeros(3))
    found = np.concatenate([weight.double().numpy().ravel(), bias.double().numpy()])
    assert objective(found) == pytest.approx(expected.fun, abs=1e-6)
    np.testing.assert_allclose(weight.numpy().ravel(), expected.x[:18], atol=2e-3)
    assert check_grad(objective, lambda flat: np.zeros_like(flat), found) < 1e-3


@pytest.mark.parametrize("size", [1.0, 0.005])  # of features so small that the normalisation's eps counts
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_model_takes_the_solution_in_its_own_form(norm: str, size: float) -> None:
    """Raw features of any scale go into the model; its logits are those of the solution for standardised ones."""
    standard, targets = made()
    raw = size * (standard * torch.tensor([0.5, 3.0, 1.0, 5.0, 1.0, 2.0]) + torch.arange(6.0))
    labels = torch.stack([targets, (standard[:, 0] > 0).long(), (standard[:, 1] > 0.5).long()], 1).numpy()
    model = MultiHeadClassifier(torch.nn.Identity(), 6, (3, 2), 0.0, feature_norm=norm == "batch").eval()
    probe_heads(model, raw.numpy(), labels, [COLOURS, MARKS])
    logits = model(raw)
    standard = (raw - raw.mean(0)) / raw.std(0, correction=0)
    for outputs, their, classes in zip(logits, (targets, torch.from_numpy(labels[:, 1:])), (3, 2), strict=True):
        rows = np.random.default_rng(0).permutation(len(raw))
        found = solved(standard[rows], their[rows], classes)
        assert found is not None
        torch.testing.assert_close(outputs, standard @ found.weight.T + found.bias, rtol=1e-2, atol=1e-2)
    assert (logits[0].argmax(1) == targets).float().mean() > 0.6
    assert ((logits[1] > 0) == torch.from_numpy(labels[:, 1:] > 0)).float().mean() > 0.85


def test_a_feature_that_is_nearly_always_the_same_gets_no_huge_weight() -> None:
    standard, targets = made()
    raw = torch.cat([standard, standard[:, :1] * 1e-6], 1)  # as telling as the first, in all its smallness
    model = MultiHeadClassifier(torch.nn.Identity(), 7, (3,), 0.0).eval()
    probe_heads(model, raw.numpy(), targets[:, None].numpy(), [COLOURS])
    weight = model.heads[0].weight
    assert isinstance(weight, torch.Tensor)
    assert weight[:, 6].abs().max() < weight[:, :3].abs().max()


def test_missing_labels_are_left_out() -> None:
    features, targets = made()
    unknown = targets.clone()
    unknown[::3] = -1
    some, same = solved(features, unknown, 3), solved(features[unknown >= 0], unknown[unknown >= 0], 3)
    assert some is not None
    assert same is not None
    assert torch.equal(some.weight, same.weight)
    assert solved(features, torch.full_like(targets, -1), 3) is None
    marks = torch.stack([(features[:, 0] > 0).long(), torch.full_like(targets, -1)], 1)
    found = solved(features, marks, 2)
    assert found is not None
    assert found.weight[0].norm() > 0.1
    assert found.weight[1].norm() == 0


def test_a_few_images_are_enough() -> None:
    features, targets = made(3)
    assert solved(features, targets, 3) is not None
    assert solved(features[:1], targets[:1], 3) is not None


def test_heads_at_random_stay_and_a_probe_needs_features() -> None:
    model = build_model(ModelConfig(backbone="tiny", weights="none"), (3,))
    before = model.heads[0].weight.clone()  # type: ignore[operator]
    HEAD_INITS["random"](model, None, np.zeros((4, 1), np.int64), [COLOURS])
    assert torch.equal(model.heads[0].weight, before)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="init_heads: probe needs the features"):
        HEAD_INITS["probe"](model, None, np.zeros((4, 1), np.int64), [COLOURS])


@pytest.mark.parametrize("mode", ["full", "probe", "tail"])
def test_a_trial_begins_where_its_probe_ends(demo_root: Path, tmp_path: Path, mode: str) -> None:
    """After one epoch of next to no steps the losses are those of the solution, far below those of random heads."""
    more: dict[str, Any] = {"mode": mode, "freeze_stages": 2 if mode == "tail" else 0, "epochs": 1, "lr": 1e-7}
    more["freeze_bn_stats"] = True  # those of random weights would change the features beyond recognition
    wanted = config(demo_root, **more)
    wanted = wanted.model_copy(update={"data": wanted.data.model_copy(update={"crop_mode": "center", "flip": 0.0})})
    losses = {}
    for begin in ("random", "probe"):
        each = wanted.model_copy(update={"train": wanted.train.model_copy(update={"init_heads": begin})})
        data = with_cached(packs(demo_root, each), each, NONE)
        (report,) = fit(TrialInputs(each, data, NONE, tmp_path / begin / "0000"))
        losses[begin] = report.metrics["val_loss"]
    assert losses["probe"] < losses["random"] - 0.1
