"""Heads that are solved: against scikit-learn's solution of the same problem, and as a trial of `optimizer: lbfgs`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fashion.data.layout import Dataset
from fashion.data.pack import Pack
from fashion.errors import SpecError
from fashion.model.classifier import build_model
from fashion.model.parts.composed import SignedRoot
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.spec.sweep_spec import load_spec
from fashion.training.features import Features, open_features
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit, train_trial
from fashion.training.solved import logistic
from fashion.training.solved.heads import solve_heads
from fashion.training.solved.logistic import FOLDS, STRENGTHS, WORSE, minimum, solve_head
from fashion.training.task import Note
from tests.support.labelled import configured, digits

linear_model = pytest.importorskip("sklearn.linear_model")
NO_WEIGHTS = ResolvedWeights("none")


def drawn(images: int, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised features (n, 8) in float64, three classes that go with them, and two traits, a few unknown."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((images, 8))
    features = (features - features.mean(0)) / features.std(0)
    to = np.random.default_rng(99).standard_normal((8, 5))
    scores = features @ to + noise * random.gumbel(size=(images, 5))
    traits = (scores[:, 3:] > 0).astype(np.int64)
    traits[random.random(traits.shape) < 0.2] = -1
    return torch.from_numpy(features), torch.from_numpy(scores[:, :3].argmax(1)), torch.from_numpy(traits)


def zero(classes: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(classes, 8, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_one_label_is_scikit_learns_logistic_regression(strength: float) -> None:
    features, classes, _ = drawn(200)
    weights = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 2, 200))
    weight, bias = minimum(features, classes, weights, strength, *zero(3))
    known = linear_model.LogisticRegression(C=1 / (strength * float(weights.sum())), tol=1e-10, max_iter=10_000)
    known.fit(features.numpy(), classes.numpy(), sample_weight=weights.numpy())
    np.testing.assert_allclose(weight.numpy(), known.coef_, atol=2e-5)
    # scikit-learn leaves the mean of the biases where it began, which moves no probability.
    np.testing.assert_allclose(
        bias.numpy() - bias.numpy().mean(), known.intercept_ - known.intercept_.mean(), atol=2e-5
    )


def test_several_labels_are_one_logistic_regression_for_each() -> None:
    features, _, traits = drawn(200)
    weight, bias = minimum(features, traits, torch.ones(200, dtype=torch.float64), 0.02, *zero(2))
    labels = int((traits >= 0).sum())
    for each in range(2):
        rows = traits[:, each] >= 0
        known = linear_model.LogisticRegression(C=1 / (0.02 * labels), tol=1e-10, max_iter=10_000)
        known.fit(features[rows].numpy(), traits[rows, each].numpy())
        np.testing.assert_allclose(weight[each].numpy(), known.coef_[0], atol=2e-5)
        assert float(bias[each]) == pytest.approx(float(known.intercept_[0]), abs=2e-5)


@pytest.mark.parametrize("noise", [0.3, 6.0])
def test_folds_choose_the_strength_that_images_left_out_ask_for(noise: float) -> None:
    features, classes, _ = drawn(150, noise=noise)
    fold = torch.arange(150) % FOLDS
    found = solve_head(features, classes, 3, fold)
    assert found is not None
    held = []
    for strength in STRENGTHS:
        total = 0.0
        for each in range(FOLDS):
            left = fold == each
            known = linear_model.LogisticRegression(
                C=1 / (strength * int((~left).sum())), tol=1e-8, max_iter=10_000
            ).fit(features[~left].numpy(), classes[~left].numpy())
            told = known.predict_log_proba(features[left].numpy())
            total -= told[np.arange(int(left.sum())), classes[left].numpy()].sum()
        held.append(total / 150)
    tried = len(found.losses)
    # Folds are solved roughly, most so with the weakest penalties, which are far from being chosen.
    np.testing.assert_allclose(found.losses[:-1], held[: tried - 1], atol=3e-3)
    np.testing.assert_allclose(found.losses[-1], held[tried - 1], rtol=2e-2)
    assert tried == len(STRENGTHS) or min(held[tried - WORSE : tried]) > min(held), "those that are left out are worse"
    assert found.strength == STRENGTHS[int(np.argmin(held))]
    assert (found.strength >= 0.1) == (noise > 1)  # what can't be learnt is better not learnt


def test_few_or_no_labels() -> None:
    features, classes, _ = drawn(30)
    fold = torch.arange(30) % FOLDS
    unknown = torch.full((30,), -1)
    assert solve_head(features, unknown, 3, fold) is None
    unknown[:4] = classes[:4]
    found = solve_head(features, unknown, 3, fold)
    assert found is not None
    assert (found.strength, found.losses) == (STRENGTHS[0], ())
    assert torch.isfinite(found.weight).all()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits") / "data")


def probe(dataset: Dataset, folder: Path, feature_norm: str = "none", flip: float = 0.0) -> tuple[Any, TrainingData]:
    train = {"mode": "probe", "optimizer": "lbfgs", "epochs": 1}
    config = configured(dataset.root, {"flip": flip}, **train)
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"feature_norm": feature_norm, "dropout": 0.5})}
    )
    packs = [Pack.open_or_build(dataset, split, *config.data.form, cache_dir=folder) for split in ("train", "val")]
    torch.manual_seed(config.seed)
    features = tuple(open_features(pack, config, NO_WEIGHTS) for pack in packs)
    assert len(features) == 2
    return config, TrainingData(packs[0], packs[1], dataset.attributes, dataset.fingerprint(), features)


@pytest.fixture
def few_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes seconds here."""
    monkeypatch.setattr(logistic, "STRENGTHS", (0.1, 0.01))


@pytest.mark.usefixtures("few_strengths")
def test_a_trial_of_one_epoch_has_the_solution(dataset: Dataset, tmp_path: Path) -> None:
    losses = {}
    for norm in ("none", "batch"):
        config, data = probe(dataset, tmp_path, norm)
        (report,) = fit(TrialInputs(config, data, NO_WEIGHTS, tmp_path / norm))
        losses[norm] = report.metrics["val_loss"]
        assert report.metrics["train_loss"] > 0
        assert (tmp_path / norm / "best-0001.safetensors").is_file()
    assert losses["none"] == pytest.approx(losses["batch"], rel=1e-3)  # one problem in other coordinates
    config, data = probe(dataset, tmp_path)
    train = config.train.model_copy(update={"optimizer": "adamw", "epochs": 8})
    trained = list(fit(TrialInputs(config.model_copy(update={"train": train}), data, NO_WEIGHTS, tmp_path / "adamw")))
    assert losses["none"] < min(report.metrics["val_loss"] for report in trained) + 0.03


@pytest.mark.usefixtures("few_strengths")
def test_heads_of_roots_are_solved_on_the_roots(dataset: Dataset, tmp_path: Path) -> None:
    config, data = probe(dataset, tmp_path)
    rooted = config.model_copy(update={"model": config.model.model_copy(update={"feature_root": True})})
    (found,) = fit(TrialInputs(rooted, data, NO_WEIGHTS, tmp_path / "rooted"))
    assert data.cached is not None
    by_hand = []
    for each in data.cached:
        assert isinstance(each, Features)
        by_hand.append(Features(SignedRoot()(torch.from_numpy(each.plain.copy())).numpy(), None, each.labels))
    (wanted,) = fit(TrialInputs(config, replace(data, cached=(by_hand[0], by_hand[1])), NO_WEIGHTS, tmp_path / "hand"))
    assert found.metrics["val_loss"] == pytest.approx(wanted.metrics["val_loss"], rel=1e-6)


@pytest.mark.usefixtures("few_strengths")
def test_the_strengths_are_noted_and_the_same_every_time(dataset: Dataset, tmp_path: Path) -> None:
    config, data = probe(dataset, tmp_path, flip=0.5)
    told = []
    for name in ("one", "two"):
        events = list(train_trial(TrialInputs(config, data, NO_WEIGHTS, tmp_path / name)))
        told.append([event.text for event in events if isinstance(event, Note)])
    assert told[0] == told[1]
    (line,) = told[0]
    assert line.startswith("L2 strengths by 5 folds of the training images: digit ")
    assert ", size " in line
    assert ", traits " in line


def test_an_image_and_its_mirror_count_as_often_as_training_would_see_them(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a flip of a third, the plain rows twice and the mirrored ones once make the same problem."""
    monkeypatch.setattr(logistic, "STRENGTHS", (0.1,))  # of which the folds can't choose another one
    config, data = probe(dataset, tmp_path, flip=1 / 3)
    assert data.cached is not None
    given = data.cached[0]
    assert isinstance(given, Features)
    assert given.mirrored is not None

    def solved(features: Features, flip: float) -> Tensor:
        torch.manual_seed(0)
        model = build_model(config.model, data.class_counts).without_backbone()
        flipped = config.model_copy(update={"data": config.data.model_copy(update={"flip": flip})})
        solve_heads(model, features, data.attributes, flipped)
        model.eval()
        with torch.no_grad():
            return torch.cat([head.softmax(1) for head in model(torch.from_numpy(given.plain.copy()))], dim=1)

    thrice = Features(np.concatenate([given.plain] * 2 + [given.mirrored]), None, np.concatenate([given.labels] * 3))
    torch.testing.assert_close(solved(given, 1 / 3), solved(thrice, 0.0), atol=2e-3, rtol=0)
    assert not torch.allclose(solved(given, 1 / 3), solved(given, 1.0), atol=2e-2)


@pytest.mark.parametrize(
    ("train", "rule"),
    [
        ("mode: full, epochs: 1", "mode must be probe for train.optimizer lbfgs"),
        ("mode: probe, epochs: 2", "epochs must be 1 for train.optimizer lbfgs"),
        ("mode: probe, epochs: 1, loss: focal", "loss must be cross_entropy for train.optimizer lbfgs"),
        ("mode: probe, epochs: 1, label_smoothing: 0.1", "label_smoothing must be 0 for train.optimizer lbfgs"),
        ("mode: probe, epochs: 1, ema: 0.9", "ema must be 0 for train.optimizer lbfgs"),
    ],
)
def test_what_is_no_convex_problem_is_refused(tmp_path: Path, train: str, rule: str) -> None:
    spec = tmp_path / "spec.yaml"
    text = "data: {{root: d, flip: 0.0}}\nmodel: {{backbone: tiny, weights: none}}\ntrain: {{optimizer: lbfgs, {}}}\n"
    spec.write_text(text.format(train))
    with pytest.raises(SpecError, match=rule):
        load_spec(spec)
    spec.write_text(text.format("mode: probe, epochs: 1"))
    assert load_spec(spec).trial(0).train.optimizer == "lbfgs"
