"""A probe's features: computed once, made anew when damaged, and no different from training on the pixels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fashion.config.trial import TrialConfig
from fashion.data.batches import Epoch, Normalization, Worker, eval_batches, train_batches
from fashion.data.cache import arrays
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.errors import BlockedError
from fashion.model.classifier import MultiHeadClassifier, build_model
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training import features as module
from fashion.training.features import features_path, open_features, open_or_compute
from fashion.training.feed import CachedFeed, PixelFeed, TrainingData
from fashion.training.loop import TrialInputs, fit
from fashion.training.tail import passes

NO_WEIGHTS = ResolvedWeights("none")


def configured(root: Path, mode: str = "probe", **options: Any) -> TrialConfig:
    sections: dict[str, Any] = {
        "data": {"root": str(root), "resize": 36, "crop": 32, "flip": 0.5, "eval_flip": True},
        "model": {"backbone": "tiny", "weights": "none", "dropout": 0.3, "feature_norm": "batch"},
        "train": {
            "mode": mode, "freeze_backbone": True, "epochs": 3, "batch_size": 20, "lr": 0.05, "ema": 0.9,
            "precision": "fp32",  # as features are computed; where bf16 is faster, the trial on pixels would take it
        },
        "seed": 5,
    }  # fmt: skip
    for name, values in options.items():
        sections[name] = {**sections[name], **values}
    return TrialConfig.model_validate(sections)


@pytest.fixture
def data(demo_root: Path, tmp_path: Path) -> TrainingData:
    dataset = read_dataset(demo_root)
    train, val = (Pack.open_or_build(dataset, split, 36, cache_dir=tmp_path / "cache") for split in ("train", "val"))
    return TrainingData(train, val, dataset.attributes, dataset.fingerprint())


def probing(data: TrainingData, config: TrialConfig) -> TrainingData:
    train, val = (open_features(pack, config, NO_WEIGHTS) for pack in (data.train, data.val))
    return TrainingData(data.train, data.val, data.attributes, data.fingerprint, (train, val))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_probe_gives_the_metrics_of_the_frozen_trial_on_pixels(
    demo_root: Path, data: TrainingData, tmp_path: Path, norm: str
) -> None:
    probe, pixels = (configured(demo_root, mode, model={"feature_norm": norm}) for mode in ("probe", "full"))
    quick = [
        r.metrics for r in fit(TrialInputs(probe, probing(data, probe), NO_WEIGHTS, tmp_path / "trials" / "probe"))
    ]
    slow = [r.metrics for r in fit(TrialInputs(pixels, data, NO_WEIGHTS, tmp_path / "trials" / "pixels"))]
    assert len(quick) == 3
    for one, other in zip(quick, slow, strict=True):
        assert one == pytest.approx(other, abs=2e-5)
    assert quick[-1]["train_loss"] < quick[0]["train_loss"]


RICH = {"backbone": "tiny+resnet18", "feature_stages": [2, 3], "feature_stats": "mean_std", "feature_root": True}


def test_a_probe_of_rich_features_gives_the_metrics_of_the_frozen_trial_on_pixels(
    demo_root: Path, data: TrainingData, tmp_path: Path
) -> None:
    options = {"model": RICH, "data": {"normalize": "half"}}
    probe, pixels = (configured(demo_root, mode, **options) for mode in ("probe", "full"))
    quick = [r.metrics for r in fit(TrialInputs(probe, probing(data, probe), NO_WEIGHTS, tmp_path / "t" / "probe"))]
    slow = [r.metrics for r in fit(TrialInputs(pixels, data, NO_WEIGHTS, tmp_path / "t" / "pixels"))]
    for one, other in zip(quick, slow, strict=True):
        assert one == pytest.approx(other, abs=2e-5)


def test_features_are_kept_apart_by_what_they_are_made_of(demo_root: Path, data: TrainingData) -> None:
    several = {"backbone": "tiny", "feature_stages": [2]}, {"backbone": "tiny", "feature_stages": [3]}, {**RICH}
    named = [
        configured(demo_root, model=model, data={"normalize": "half"}) for model in ({"backbone": "tiny"}, *several)
    ]
    assert len({features_path(data.train, each, NO_WEIGHTS, False) for each in named}) == len(named)
    # The root is taken where features are read, so that one file serves both.
    with_root = configured(demo_root, model={**several[0], "feature_root": True}, data={"normalize": "half"})
    assert features_path(data.train, with_root, NO_WEIGHTS, False) == features_path(
        data.train, named[1], NO_WEIGHTS, False
    )


def test_a_probe_resumes_to_the_same_numbers(demo_root: Path, data: TrainingData, tmp_path: Path) -> None:
    config = configured(demo_root)
    found = probing(data, config)
    whole = [r.metrics for r in fit(TrialInputs(config, found, NO_WEIGHTS, tmp_path / "a" / "0000"))]
    next(fit(TrialInputs(config, found, NO_WEIGHTS, tmp_path / "b" / "0000")))
    assert [r.metrics for r in fit(TrialInputs(config, found, NO_WEIGHTS, tmp_path / "b" / "0000"))] == whole
    # One file a sweep keeps the backbone; a trial's own checkpoints hold the heads alone.
    (backbone,) = (tmp_path / "b").glob("backbone-*.safetensors")
    (best,) = (tmp_path / "b" / "0000").glob("best-*.safetensors")
    from safetensors.numpy import load_file

    names = set(load_file(best)) | set(load_file(backbone))
    model = build_model(config.model, data.class_counts)
    assert names == set(model.state_dict())
    assert not any(name.startswith("backbone.") for name in load_file(best))


def test_batches_are_the_pixels_batches(demo_root: Path, data: TrainingData) -> None:
    """The features of each batch of pixels, image by image: same order, same mirrors, same targets."""
    config = configured(demo_root)
    torch.manual_seed(config.seed)
    model = build_model(config.model, data.class_counts, NO_WEIGHTS).eval()
    for rank in (0, 1):
        worker = Worker(rank, 2)
        feeds = PixelFeed(config, data, worker), CachedFeed(config, probing(data, config), worker)
        for pixels, features in zip(feeds[0].train(2), feeds[1].train(2), strict=True):
            assert torch.equal(pixels.targets, features.targets)
            assert pixels.global_count == features.global_count
            with torch.inference_mode():
                torch.testing.assert_close(model.features(pixels.images), features.images, rtol=1e-4, atol=1e-5)
        for pixels, features in zip(feeds[0].validate(), feeds[1].validate(), strict=True):
            assert torch.equal(pixels.targets, features.targets)
            (mirrored,), (turned,) = pixels.others, features.others
            with torch.inference_mode():
                torch.testing.assert_close(model.features(mirrored), turned, rtol=1e-4, atol=1e-5)


def test_features_are_computed_once(demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(demo_root)
    first = open_or_compute(data.val, config, NO_WEIGHTS)
    monkeypatch.setattr(module, "_build", lambda *arguments: pytest.fail("computed again"))
    assert np.array_equal(open_or_compute(data.val, config, NO_WEIGHTS), first)
    heads_only = configured(demo_root, train={"lr": 0.1, "epochs": 7}, model={"dropout": 0.0, "feature_norm": "none"})
    open_or_compute(data.val, heads_only, NO_WEIGHTS)
    for other in (
        configured(demo_root, data={"crop": 28}),
        configured(demo_root, data={"normalize": "imagenet"}),
        configured(demo_root, model={"backbone": "resnet18"}),
        config.model_copy(update={"seed": 6}),  # random weights are the trial's own
    ):
        assert features_path(data.val, other, NO_WEIGHTS, False) != features_path(data.val, config, NO_WEIGHTS, False)
    of_train = features_path(data.train, config, NO_WEIGHTS, False)
    assert of_train != features_path(data.train, config, NO_WEIGHTS, True)
    file = ResolvedWeights("file", Path("w.pth"), "ab" * 32)
    paths = {features_path(data.val, c, file, False) for c in (config, config.model_copy(update={"seed": 6}))}
    assert len(paths) == 1


def test_where_the_device_computes_bf16_features_to_train_on_are_made_in_it_and_those_to_evaluate_in_fp32(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "computes_bf16", lambda device: True)
    rich = {"feature_stages": [2], "feature_stats": "mean_std"}
    rounded, exact = (
        tuple(open_features(pack, config, NO_WEIGHTS) for pack in (data.train, data.val))
        for config in (configured(demo_root, model=rich, train={"precision": kind}) for kind in ("auto", "fp32"))
    )
    for one, other in ((rounded[0].plain, exact[0].plain), (rounded[0].mirrored, exact[0].mirrored)):
        assert one is not None
        assert other is not None
        assert 1e-4 < np.linalg.norm(one - other) / np.linalg.norm(other) < 0.02  # bf16 has eight bits, which is 0.4 %
    assert rounded[1].plain is exact[1].plain
    assert rounded[1].mirrored is exact[1].mirrored
    # Out of fold every image is evaluated, too.
    folds = configured(demo_root, model=rich, train={"precision": "auto"}, data={"folds": 3})
    assert open_features(data.train, folds, NO_WEIGHTS).plain is exact[0].plain


def test_what_is_there_in_the_other_precision_serves(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that computes bf16 goes on with the cache of one that doesn't, and the reverse."""
    auto = configured(demo_root, train={"precision": "auto"})
    monkeypatch.setattr(passes, "computes_bf16", lambda device: False)
    exact = open_or_compute(data.train, auto, NO_WEIGHTS, split="train")
    monkeypatch.setattr(passes, "computes_bf16", lambda device: True)
    assert open_or_compute(data.train, auto, NO_WEIGHTS, split="train") is exact
    features_path(data.train, auto, NO_WEIGHTS, False).unlink()
    rounded = open_or_compute(data.train, auto, NO_WEIGHTS, split="train")
    assert not np.array_equal(rounded, exact)
    monkeypatch.setattr(passes, "computes_bf16", lambda device: False)
    assert open_or_compute(data.train, auto, NO_WEIGHTS, split="train") is rounded
    # What must be exact is computed.
    must_be_exact = configured(demo_root, train={"precision": "fp32"})
    assert np.array_equal(open_or_compute(data.train, must_be_exact, NO_WEIGHTS, split="train"), exact)


@pytest.mark.parametrize("damage", ["truncated", "one byte", "no seal", "half written"])
def test_damaged_features_are_made_anew(demo_root: Path, data: TrainingData, damage: str) -> None:
    config = configured(demo_root)
    path = features_path(data.val, config, NO_WEIGHTS, False)
    expected = np.array(open_or_compute(data.val, config, NO_WEIGHTS))
    content = bytearray(path.read_bytes())
    if damage == "no seal":
        path.with_name(f"{path.name}.seal").unlink()
    elif damage == "half written":
        path.unlink()
        path.with_name(f".{path.name}.tmp").write_bytes(content[:100])
    else:
        content[len(content) // 2] ^= 255
        path.unlink()
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    assert np.array_equal(open_or_compute(data.val, config, NO_WEIGHTS), expected)
    assert not list(path.parent.glob(".*.tmp"))


@pytest.mark.parametrize("mode", ["probe", "tail"])
def test_an_interrupted_pass_goes_on(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    tail = {"mode": mode, "freeze_stages": 2, "freeze_backbone": False} if mode == "tail" else {}
    config, real = configured(demo_root, train=tail), MultiHeadClassifier.features
    expected = np.array(open_or_compute(data.train, config, NO_WEIGHTS))
    path = features_path(data.train, config, NO_WEIGHTS, False)
    path.unlink()
    seen: list[int] = []

    def counted(model: MultiHeadClassifier, images: torch.Tensor) -> torch.Tensor:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(images))
        return real(model, images)

    monkeypatch.setattr(MultiHeadClassifier, "features", counted)
    with pytest.raises(KeyboardInterrupt):
        open_or_compute(data.train, config, NO_WEIGHTS)
    assert not path.exists()
    size, told = seen[0], list[int]()
    seen[:] = [0, 0, 0]
    again = open_or_compute(data.train, config, NO_WEIGHTS, progress=lambda done, total: told.append(done))
    assert np.array_equal(again, expected)
    assert sum(seen[3:]) == len(data.train) - 2 * size  # two batches were done
    assert told == [*range(1, 2 * size + 1), *np.minimum(np.arange(3, 4 + len(seen[4:])) * size, len(data.train))]
    assert not list(path.parent.glob(".*.tmp*"))


def test_training_batches_cover_every_image_once(demo_root: Path, data: TrainingData) -> None:
    config = configured(demo_root, train={"batch_size": 16})
    features = open_features(data.train, config, NO_WEIGHTS)
    rows = {row.tobytes() for row in features.plain} | {row.tobytes() for row in features.mirrored}  # type: ignore[union-attr]
    seen = [
        image.numpy().tobytes() for batch in features.train_batches(0.5, Epoch(1, 16, seed=1)) for image in batch.images
    ]
    assert len(seen) == len(data.train)
    assert set(seen) <= rows
    plain = {row.tobytes() for row in features.plain}
    assert 0.25 < sum(row in plain for row in seen) / len(seen) < 0.75
    half = Normalization((0.5,) * 3, (0.5,) * 3)
    assert len(list(train_batches(data.train, config.data, half, Epoch(1, 16, seed=1)))) == len(data.train) // 16
    assert len(list(eval_batches(data.val, config.data, half, 16))) == 2


def test_a_read_only_cache_is_a_clear_mistake(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "write_frame", full)
    with pytest.raises(BlockedError, match=r"No space left on device.*FASHION_CACHE"):
        open_or_compute(data.val, configured(demo_root), NO_WEIGHTS)
    shutil.rmtree(data.val.path.parent)
