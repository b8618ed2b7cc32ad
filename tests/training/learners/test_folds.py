"""`data.folds`: K models in one trial, measured by out-of-fold predictions, against K ordinary trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import log_loss

from fashion.config.trial import TrialConfig
from fashion.data.layout import Dataset
from fashion.data.splits.folds import in_folds
from fashion.errors import CheckpointError, Leaving
from fashion.model.folds.fold_mean import FoldMean
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.prediction.predict import predict
from fashion.prediction.promoted import load_promoted
from fashion.reading.certainty import certainty
from fashion.reading.cost import images_per_second
from fashion.record.ranking import best
from fashion.record.trial import EpochReport
from fashion.training.feed import TrainingData, with_cached
from fashion.training.loop import TrialInputs, fit
from tests.support.labelled import DIGIT, SIZE, configured, digits, labelled_run, opened

NONE = ResolvedWeights("none")
FOLDS = 3
pytestmark = pytest.mark.usefixtures("cache_of_module")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def folded(listed: Dataset) -> Dataset:
    return in_folds(listed, FOLDS, None)


def of_folds(dataset: Dataset, **train: object) -> TrialConfig:
    return configured(dataset.root, {"folds": FOLDS}, epochs=2, layout="nchw", **train)


def with_dropout(config: TrialConfig) -> TrialConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.2})})


def reports(
    config: TrialConfig, data: TrainingData, folder: Path, leaves: Callable[[], bool] = lambda: False
) -> list[EpochReport]:
    return list(fit(TrialInputs(config, data, NONE, folder, leaves=leaves)))


def metrics(found: list[EpochReport]) -> list[dict[str, float]]:
    return [each.metrics for each in found]


def test_each_fold_is_what_an_ordinary_trial_makes_of_that_division(folded: Dataset, tmp_path: Path) -> None:
    """To the last bit, dropout and an average included."""
    train = {"ema": 0.9, "clip_grad": 1.0}
    config = with_dropout(of_folds(folded, **train))
    found = reports(config, opened(folded, config), tmp_path / "folds")
    assert folded.folds is not None
    whole = folded.splits["train"]
    assert whole.labels is not None
    for fold in range(FOLDS):
        rows = {"train": np.flatnonzero(folded.folds != fold), "val": np.flatnonzero(folded.folds == fold)}
        splits = {
            name: replace(whole, name=name, images=tuple(whole.images[row] for row in mine), labels=whole.labels[mine])
            for name, mine in rows.items()
        }
        alone = replace(folded, splits=splits, folds=None, undivided=None)
        ordinary = config.model_copy(update={"data": config.data.model_copy(update={"folds": None})})
        expected = reports(ordinary, opened(alone, ordinary), tmp_path / f"alone-{fold}")
        name = f"val_loss/fold_{fold + 1}"
        assert [each[name] for each in metrics(found)] == [each["val_loss"] for each in metrics(expected)]


def test_the_metrics_are_over_out_of_fold_predictions(tmp_path: Path) -> None:
    dataset = in_folds(digits(tmp_path / "data", 0.0, (DIGIT, SIZE)), FOLDS, None)
    config = of_folds(dataset)
    run = labelled_run(tmp_path, dataset, config)
    winner = best(run)
    table = pq.read_table(run.trial_dir(0) / f"val-{winner.epoch:04d}.parquet")
    labels = dataset.labels("val")
    assert table.column("image").to_pylist() == list(dataset.splits["val"].images)
    losses = []
    for head, attribute in enumerate((DIGIT, SIZE)):
        shares = np.array(table.column(attribute.name).to_pylist(), np.float64)
        losses.append(-np.log(shares[np.arange(len(labels)), labels[:, head]]))
        expected = log_loss(labels[:, head], shares / shares.sum(axis=1, keepdims=True))
        assert losses[-1].mean() == pytest.approx(expected, abs=1e-6)
    each = np.mean(losses, axis=0)
    assert winner.val_loss == pytest.approx(each.mean(), abs=1e-6)
    assert winner.metrics["val_loss_se"] == pytest.approx(each.std() / math.sqrt(len(each)), rel=1e-3)
    trial = run.trials[0]
    seconds = math.fsum(report.seconds for report in trial.reports)
    trained = len(labels) * (FOLDS - 1) * len(trial.reports)
    assert images_per_second(run, [trial]) == pytest.approx(trained / seconds)
    sure = certainty(run)
    assert (sure.images, sure.untold) == (len(labels), "")
    assert sure.intervals()["val_accuracy"].value == pytest.approx(winner.metrics["val_accuracy"])
    half = (sure.intervals()["val_loss"].high - sure.intervals()["val_loss"].low) / 2
    assert half == pytest.approx(1.96 * winner.metrics["val_loss_se"], rel=0.25)


@pytest.fixture(scope="module")
def whole(folded: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    config = with_dropout(of_folds(folded))
    return metrics(reports(config, opened(folded, config), tmp_path_factory.mktemp("whole")))


SLOW = pytest.mark.slow


@pytest.mark.parametrize("left_after", [1, 15, 21, *(pytest.param(step, marks=SLOW) for step in (5, 7, 16))])
def test_a_trial_that_leaves_anywhere_ends_with_the_same_numbers(
    left_after: int, folded: Dataset, whole: list[dict[str, float]], tmp_path: Path
) -> None:
    """Within a fold, between two, and between two epochs: an epoch is 15 steps of 3 models, 5 each."""
    config = with_dropout(of_folds(folded))
    data = opened(folded, config)
    asked = iter(range(1, 1000))
    with pytest.raises(Leaving, match="epoch"):
        reports(config, data, tmp_path / "left", lambda: next(asked) >= left_after)
    again = reports(config, data, tmp_path / "left")
    assert metrics(again) == whole
    assert again[-1].attempt == 2


def test_a_checkpoint_of_fewer_models_is_refused(folded: Dataset, tmp_path: Path) -> None:
    config = of_folds(folded)
    steps = fit(TrialInputs(config, opened(folded, config), NONE, tmp_path))
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    plain = torch.load(tmp_path / "last.pt", weights_only=True)
    del plain["other_folds"][0]
    torch.save(plain, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="does not hold this trial's state"):
        reports(config, opened(folded, config), tmp_path)


def test_the_promoted_model_is_the_mean_of_the_folds_models(folded: Dataset, tmp_path: Path) -> None:
    run = labelled_run(tmp_path, folded, of_folds(folded))
    model, promoted = load_promoted(run.best_dir)
    assert isinstance(model, FoldMean)
    assert len(model.folds) == FOLDS
    assert "3 models in one" in (run.best_dir / "README.md").read_text()
    data = opened(folded, promoted.config)
    found = predict(model, promoted, data.val.images[:40])
    each = [predict(member, promoted, data.val.images[:40]) for member in model.folds]
    for head, probabilities in enumerate(found.probabilities):
        mean = np.mean([member.probabilities[head] for member in each], axis=0)
        np.testing.assert_allclose(probabilities, mean, atol=1e-6)


def test_a_probes_folds_share_the_features_and_are_promoted_whole(folded: Dataset, tmp_path: Path) -> None:
    """The heads of each fold on the features of one backbone; promoted, each has the backbone."""
    config = of_folds(folded, mode="probe", lr=0.05)
    data = with_cached(opened(folded, config), config, NONE)
    folder = tmp_path / "sweep" / "trials" / "0000"
    (last,) = reports(config, data, folder)[-1:]
    assert last.metrics["val_loss"] < math.log(10)
    from safetensors.numpy import load_file

    from fashion.record.promote import _with_backbone_in_each

    heads = load_file(next(folder.glob("best-*.safetensors")))
    shared = load_file(next(folder.parent.glob("backbone-*.safetensors")))
    whole = _with_backbone_in_each({**heads, **shared}, FOLDS)
    from fashion.model.folds.fold_mean import build_promoted

    network = build_promoted(config, data.class_counts, data.multi_label)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in whole.items()})


def test_a_tails_folds_are_the_same_stages_frozen_from_pixels(folded: Dataset, tmp_path: Path) -> None:
    """Each fold's model sees its own rows of the maps."""
    found = []
    for mode in ("full", "tail"):
        config = of_folds(folded, mode=mode, freeze_stages=1, optimizer="sgd", lr=0.01)
        data = with_cached(opened(folded, config), config, NONE)
        found.append(metrics(reports(config, data, tmp_path / mode / "trials" / "0000")))
    for pixels, maps in zip(*found, strict=True):
        assert pixels.keys() == maps.keys()
        for name, value in pixels.items():
            assert maps[name] == pytest.approx(value, abs=0.04 if "accuracy" in name else 3e-3), name


def test_a_folds_heads_begin_as_the_probe_of_its_own_images(folded: Dataset) -> None:
    config = of_folds(folded, init_heads="probe")
    data = with_cached(opened(folded, config), config, NONE)
    assert data.head_features is not None
    assert data.folds is not None
    for fold, each in enumerate(data.each_model()):
        assert each.train_features is not None
        np.testing.assert_array_equal(each.train_features, data.head_features[data.folds != fold])
        assert len(each.train_labels) == each.training_images == len(each.train_features)
