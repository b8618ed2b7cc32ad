"""A tail's maps: computed once, gone on with, made anew when damaged, and no different from training on the pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fashion.config.trial import TrialConfig
from fashion.data.batches import Epoch, Worker
from fashion.data.cache import arrays
from fashion.data.cache.arrow_files import seal_path
from fashion.data.cache.entries import entries
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.errors import BlockedError, UserError
from fashion.model.classifier import build_model
from fashion.model.parts.cut import maps_behind
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.feed import CachedFeed, PixelFeed, TrainingData, make_feed, with_cached
from fashion.training.loop import TrialInputs, fit
from fashion.training.tail import maps as module
from fashion.training.tail import passes
from fashion.training.tail.batches import MapArray, Maps
from fashion.training.tail.maps import compute_maps, maps_path, open_maps, open_or_compute_maps

NO_WEIGHTS = ResolvedWeights("none")


def configured(root: Path, mode: str = "tail", **options: Any) -> TrialConfig:
    sections: dict[str, Any] = {
        "data": {"root": str(root), "resize": 36, "crop": 32, "flip": 0.0, "eval_flip": True},
        "model": {"backbone": "tiny", "weights": "none", "dropout": 0.3},
        "train": {
            "mode": mode, "freeze_stages": 2, "epochs": 3, "batch_size": 20, "lr": 0.05, "ema": 0.9,
            "precision": "fp32", "layout": "channels_last",
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


def trained(data: TrainingData, config: TrialConfig, folder: Path) -> list[dict[str, float]]:
    inputs = TrialInputs(config, with_cached(data, config, NO_WEIGHTS), NO_WEIGHTS, folder)
    return [report.metrics for report in fit(inputs)]


@pytest.mark.parametrize("cut", [1, 3])
def test_a_tail_gives_the_metrics_of_the_same_stages_frozen_from_pixels(
    demo_root: Path, data: TrainingData, tmp_path: Path, cut: int
) -> None:
    train = {"freeze_stages": cut, "lr": 0.01}
    tail, pixels = (configured(demo_root, mode, train=train) for mode in ("tail", "full"))
    quick, slow = trained(data, tail, tmp_path / "a" / "0000"), trained(data, pixels, tmp_path / "b" / "0000")
    assert len(quick) == 3
    for one, other in zip(quick, slow, strict=True):
        for name, value in one.items():  # of 32 images one may fall to the other side of a decision
            assert value == pytest.approx(other[name], abs=0.04 if "accuracy" in name else 3e-3), name
    assert quick[-1]["train_loss"] < quick[0]["train_loss"]


def map_arrays(data: TrainingData) -> list[MapArray]:
    """The maps of the training and of the validation images, not mirrored."""
    assert data.cached is not None
    return [found.plain for found in data.cached if isinstance(found, Maps)]


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """From `other`, as a share of its norm."""
    return float(np.linalg.norm(one.astype(float) - other) / np.linalg.norm(other.astype(float)))


def test_where_the_device_computes_bf16_maps_to_train_on_are_made_in_it_and_those_to_evaluate_in_fp32(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "computes_bf16", lambda device: True)
    train = {"init_heads": "probe"}
    rounded, exact = (
        with_cached(data, configured(demo_root, train={**train, "precision": kind}), NO_WEIGHTS)
        for kind in ("auto", "fp32")
    )
    (of_train, of_val), (exactly, same) = map_arrays(rounded), map_arrays(exact)
    assert 1e-3 < distance(of_train, exactly) < 0.02  # float16, as which both are kept, has eleven bits, and bf16 eight
    assert of_val is same
    # The features with which the heads begin are made of these maps.
    assert rounded.head_features is not None
    assert exact.head_features is not None
    assert 1e-3 < distance(rounded.head_features, exact.head_features) < 0.02
    described = {entry.what for entry in entries(data.train.path.parent) if entry.kind == "maps"}
    where = "train, tiny at 32 px, behind stage 2"
    assert described == {
        where,
        f"{where}, in bf16",
        "val, tiny at 32 px, behind stage 2",
        "val, mirrored, tiny at 32 px, behind stage 2",
    }


def test_a_tail_resumes_to_the_same_numbers(demo_root: Path, data: TrainingData, tmp_path: Path) -> None:
    config = configured(demo_root, data={"flip": 0.5, "crop_cells": 1})
    whole = trained(data, config, tmp_path / "a" / "0000")
    folder = tmp_path / "b" / "0000"
    next(fit(TrialInputs(config, with_cached(data, config, NO_WEIGHTS), NO_WEIGHTS, folder)))
    assert trained(data, config, folder) == whole
    # One file a sweep keeps the backbone; a trial's own checkpoints hold what it trained.
    (backbone,) = (tmp_path / "b").glob("backbone-*.safetensors")
    (best,) = folder.glob("best-*.safetensors")
    from safetensors.numpy import load_file

    model = build_model(config.model, data.class_counts)
    assert set(load_file(best)) | set(load_file(backbone)) == set(model.state_dict())
    assert {name.split(".")[1] for name in load_file(best) if name.startswith("backbone.")} == {"stage2", "stage3"}


def test_batches_are_the_maps_of_the_pixels_batches(demo_root: Path, data: TrainingData) -> None:
    """Same order, same mirrors, same targets, image by image, for each of two workers."""
    config = configured(demo_root, data={"flip": 0.5})
    torch.manual_seed(config.seed)
    model = build_model(config.model, data.class_counts, NO_WEIGHTS).eval()
    found = with_cached(data, config, NO_WEIGHTS)
    for rank in (0, 1):
        worker = Worker(rank, 2)
        feeds = PixelFeed(config, data, worker), make_feed(config, found, worker)
        assert isinstance(feeds[1], CachedFeed)
        with torch.inference_mode():
            for pixels, maps in zip(feeds[0].train(2, 1), feeds[1].train(2, 1), strict=True):
                assert torch.equal(pixels.targets, maps.targets)
                assert pixels.global_count == maps.global_count
                (expected,) = maps_behind(model.backbone, [2], pixels.images, torch.float32)
                torch.testing.assert_close(expected, maps.images, rtol=2e-3, atol=1e-3)
            for pixels, maps in zip(feeds[0].validate(), feeds[1].validate(), strict=True):
                assert torch.equal(pixels.targets, maps.targets)
                (mirrored,), (turned,) = pixels.others, maps.others
                (expected,) = maps_behind(model.backbone, [2], mirrored, torch.float32)
                torch.testing.assert_close(expected, turned, rtol=2e-3, atol=1e-3)


def test_a_feed_needs_the_maps(demo_root: Path, data: TrainingData) -> None:
    with pytest.raises(ValueError, match="tail needs"):
        make_feed(configured(demo_root), data, Worker())


def numbered(images: int, side: int) -> Maps:
    """Maps whose cells tell image, view, row and column: image * 256 + row * 16 + column, and the same negative."""
    cells = np.arange(images)[:, None, None] * 256 + np.arange(side)[:, None] * 16 + np.arange(side)
    plain = cells[:, None].astype(np.float16)
    return Maps(plain, -plain, np.zeros((images, 1), np.int64), crop_cells=2)


def test_crops_are_windows_of_the_maps_and_the_same_for_any_number_of_workers() -> None:
    maps = numbered(7, 6)
    sides, corners, mirrored = set(), set(), 0
    for number in range(1, 20):
        alone = list(maps.train_batches(0.5, Epoch(number, 7, seed=3)))
        halves = [list(maps.train_batches(0.5, Epoch(number, 7, seed=3), Worker(rank, 2))) for rank in (0, 1)]
        for step, batch in enumerate(alone):
            for rank in (0, 1):
                assert torch.equal(halves[rank][step].images, batch.images[rank::2])
            sides.add(batch.images.shape[-1])
            for image in batch.images.abs().int():
                first = int(image[0, 0, 0])
                top, left, side = first % 256 // 16, first % 16, image.shape[-1]
                assert top + side <= 6
                assert left + side <= 6
                window = (first // 256) * 256 + (top + torch.arange(side))[:, None] * 16 + left + torch.arange(side)
                assert torch.equal(image[0], window.int())
                corners.add((side, top, left))
            mirrored += int((batch.images[:, 0, -1, -1] < 0).sum())
    assert sides == {4, 5, 6}
    assert {corner for corner in corners if corner[0] == 5} == {(5, top, left) for top in (0, 1) for left in (0, 1)}
    assert 0.3 < mirrored / (19 * 7) < 0.7


def test_maps_are_computed_once(demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(demo_root)
    first = open_or_compute_maps(data.val, config, NO_WEIGHTS)
    monkeypatch.setattr(module, "_build", lambda *arguments: pytest.fail("computed again"))
    assert np.array_equal(open_or_compute_maps(data.val, config, NO_WEIGHTS), first)
    assert first.dtype == np.float16
    assert first.shape == (32, 32, 8, 8)
    of_val = maps_path(data.val, config, NO_WEIGHTS, False)
    for other in (
        configured(demo_root, data={"crop": 28}),
        configured(demo_root, data={"normalize": "imagenet"}),
        configured(demo_root, train={"freeze_stages": 3}),
        config.model_copy(update={"seed": 6}),  # random weights are the trial's own
    ):
        assert maps_path(data.val, other, NO_WEIGHTS, False) != of_val
    assert maps_path(data.val, config, NO_WEIGHTS, True) != of_val
    heads = configured(demo_root, train={"lr": 0.1, "epochs": 7}, data={"crop_cells": 2, "flip": 0.5})
    assert maps_path(data.val, heads, NO_WEIGHTS, False) == of_val
    file = ResolvedWeights("file", Path("w.pth"), "ab" * 32)
    paths = {maps_path(data.val, c, file, False) for c in (config, config.model_copy(update={"seed": 6}))}
    assert len(paths) == 1


def test_one_pass_gives_the_maps_of_several_cuts(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [configured(demo_root, train={"freeze_stages": cut}) for cut in (1, 2, 3)]
    each = [np.array(open_or_compute_maps(data.val, config, NO_WEIGHTS)) for config in configs]
    for config in configs[:2]:
        maps_path(data.val, config, NO_WEIGHTS, False).unlink()
    passes: list[list[int]] = []

    def counted(backbone: Any, counts: list[int], images: torch.Tensor) -> list[torch.Tensor]:
        passes.append(counts)
        return maps_behind(backbone, counts, images)

    monkeypatch.setattr(module, "maps_behind", counted)
    compute_maps(data.val, configs, NO_WEIGHTS)
    assert passes == [[1, 2]]
    for config, expected in zip(configs, each, strict=True):
        assert np.array_equal(open_or_compute_maps(data.val, config, NO_WEIGHTS), expected)
    assert len(passes) == 1


def test_an_interrupted_pass_goes_on(
    demo_root: Path, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real = configured(demo_root), maps_behind
    expected = np.array(open_or_compute_maps(data.train, config, NO_WEIGHTS))
    path = maps_path(data.train, config, NO_WEIGHTS, False)
    path.unlink()
    seen: list[int] = []

    def counted(backbone: Any, counts: list[int], images: torch.Tensor) -> list[torch.Tensor]:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(images))
        return real(backbone, counts, images)

    monkeypatch.setattr(module, "maps_behind", counted)
    with pytest.raises(KeyboardInterrupt):
        open_or_compute_maps(data.train, config, NO_WEIGHTS)
    assert not path.exists()
    seen[:] = [0, 0, 0]
    assert np.array_equal(open_or_compute_maps(data.train, config, NO_WEIGHTS), expected)
    assert seen[3:] == [32]  # of 96 images in batches of 32, two batches were done
    assert not list(path.parent.glob(".*.tmp*"))


@pytest.mark.parametrize("damage", ["truncated", "a sampled map", "the frame", "no seal", "half written"])
def test_damaged_maps_are_made_anew(demo_root: Path, data: TrainingData, damage: str) -> None:
    config = configured(demo_root)
    path = maps_path(data.val, config, NO_WEIGHTS, False)
    expected = np.array(open_or_compute_maps(data.val, config, NO_WEIGHTS))
    content = bytearray(path.read_bytes())
    if damage == "no seal":
        seal_path(path).unlink()
    elif damage == "half written":
        path.unlink()
        path.with_name(f".{path.name}.tmp").write_bytes(content[:100])
    else:
        at = content.find(expected[0].tobytes()) if damage == "a sampled map" else len(content) - 20
        content[at + 3] ^= 255
        path.unlink()
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    assert np.array_equal(open_or_compute_maps(data.val, config, NO_WEIGHTS), expected)
    assert not list(path.parent.glob(".*.tmp*"))


def test_a_cache_that_cannot_be_written_is_a_clear_mistake(
    demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "write_frame", full)
    with pytest.raises(BlockedError, match=r"No space left on device.*FASHION_CACHE"):
        open_or_compute_maps(data.val, configured(demo_root), NO_WEIGHTS)


def test_maps_beyond_float16_are_refused(demo_root: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = torch.full((32, 32, 8, 8), torch.inf, dtype=torch.float16)
    monkeypatch.setattr(module, "maps_behind", lambda backbone, counts, images: [infinite])
    with pytest.raises(UserError, match=r"too large for float16; got 2\. Cut elsewhere"):
        open_or_compute_maps(data.val, configured(demo_root), NO_WEIGHTS)
    assert not list(data.val.path.parent.glob("*maps*.arrow"))


def test_missing_labels_are_counted_in_each_global_batch(demo_root: Path, data: TrainingData) -> None:
    maps = open_maps(data.train, configured(demo_root), NO_WEIGHTS)
    assert all(batch.known is None for batch in maps.train_batches(0.0, Epoch(1, 32, seed=1)))
    labels = maps.labels.copy()
    labels[:40, 0] = -1
    counted = replace(maps, labels=labels).train_batches(0.0, Epoch(1, 32, seed=1), Worker(0, 2))
    assert sum(int(batch.known[0]) for batch in counted if batch.known is not None) == 56
