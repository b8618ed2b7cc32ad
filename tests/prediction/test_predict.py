"""A promoted folder alone reproduces the numbers of validation, and damaged folders are refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from fashion.config.trial import TrialConfig
from fashion.data.layout import Attribute, Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.data.pictures.folder import find_pictures
from fashion.errors import CheckpointError
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.prediction.pictures import FilePixels
from fashion.prediction.predict import accuracy, predict
from fashion.prediction.probabilities import validate_probabilities, write_probabilities
from fashion.prediction.promoted import load_promoted, require_attributes
from fashion.prediction.submission import validate_submission, write_submission
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit


def config_of(root: Path, **train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {
                "root": str(root),
                "resize": 40,
                "crop": 32,
                "eval_flip": train.pop("eval_flip", False),
                "eval_crops": train.pop("eval_crops", 1),
                "normalize": "imagenet",
            },
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"epochs": 2, "batch_size": 16, "lr": 0.05, **train},
            "seed": 3,
        }
    )


def packs(dataset: Dataset, split: str) -> Pack:
    return Pack.open_or_build(dataset, split, 40)


def trained(dataset: Dataset, folder: Path, config: TrialConfig) -> Run:
    """A real trial of two epochs, recorded and promoted."""
    counts = {split: [count.tolist() for count in dataset.label_counts(split)] for split in ("train", "val")}
    attributes = [{"name": each.name, "classes": list(each.classes)} for each in dataset.attributes]
    spec: dict[str, Any] = {"data": {}, "model": {}, "train": {}, "search": {"trials": 1}}
    manifest = {
        "spec": spec,
        "data_fingerprint": dataset.fingerprint(),
        "attributes": attributes,
        "label_counts": counts,
    }
    run = Run.create(folder, "sweep", manifest)
    run.record_trial(0, config.model_dump(mode="json"))
    data = TrainingData(packs(dataset, "train"), packs(dataset, "val"), dataset.attributes, dataset.fingerprint())
    for report in fit(TrialInputs(config, data, ResolvedWeights("none"), run.trial_dir(0))):
        run.record_report(report, "continue")
    promote(run)
    return run


@pytest.fixture(scope="module")
def dataset(demo_root: Path) -> Dataset:
    return read_dataset(demo_root)


@pytest.fixture(scope="module")
def run(dataset: Dataset, demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(dataset, tmp_path_factory.mktemp("runs"), config_of(demo_root))


@pytest.fixture
def promoted_copy(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.best_dir, tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"ema": 0.9, "eval_flip": True},
        {"eval_flip": True, "eval_crops": 5},
        {"optimizer": "adamw", "lr": 0.003, "layout": "nchw"},
    ],
)
def test_predicting_val_reproduces_the_recorded_accuracy(
    dataset: Dataset, demo_root: Path, tmp_path: Path, variant: dict[str, Any]
) -> None:
    run = trained(dataset, tmp_path, config_of(demo_root, **variant))
    best = run.trials[0].best()
    assert best is not None
    model, promoted = load_promoted(shutil.move(run.best_dir, tmp_path / "moved"))
    pack = packs(dataset, "val")
    seen: list[tuple[int, int]] = []
    predictions = predict(model, promoted, pack, progress=lambda done, total: seen.append((done, total)))
    assert pack.labels is not None
    assert accuracy(predictions, pack.labels) == best.metrics["val_accuracy"]
    for head, attribute in enumerate(dataset.attributes):
        share = float((predictions.classes[:, head] == pack.labels[:, head]).mean())
        assert share == pytest.approx(best.metrics[f"val_accuracy/{attribute.name}"], abs=1e-12)
    assert seen[-1] == (32, 32)
    recorded = pq.read_table(run.trial_dir(0) / f"val-{best.epoch:04d}.parquet")
    assert recorded.column("image").to_pylist() == list(predictions.names)
    for head, attribute in enumerate(dataset.attributes):
        np.testing.assert_array_equal(
            np.array(recorded.column(attribute.name).to_pylist(), np.float32), predictions.probabilities[head]
        )
    assert promoted.epoch == best.epoch
    assert promoted.metrics == best.metrics


def test_pixels_and_arithmetic_are_the_plain_pipeline(run: Run, dataset: Dataset) -> None:
    model, promoted = load_promoted(run.best_dir)
    predictions = predict(model, promoted, packs(dataset, "test"))
    transform = v2.Compose(
        [
            v2.Resize((40, 40), InterpolationMode.BICUBIC),
            v2.CenterCrop(32),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    split = dataset.splits["test"]
    images = torch.stack([transform(Image.open(dataset.root / name).convert("RGB")) for name in split.images])
    with torch.inference_mode():
        expected = [logits.softmax(dim=1).numpy() for logits in model(images)]
    assert predictions.names == split.images
    for got, want in zip(predictions.probabilities, expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-5)
        np.testing.assert_allclose(got.sum(axis=1), 1.0, atol=1e-5)


def test_a_folder_predicts_as_its_pack_and_the_files_are_valid(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    model, promoted = load_promoted(run.best_dir)
    require_attributes(promoted, dataset.attributes, "demo")
    split = dataset.splits["test"]
    predictions = predict(model, promoted, packs(dataset, "test"))
    for name in split.images:
        shutil.copy(dataset.root / name, tmp_path / Path(name).name)
    found = find_pictures(tmp_path)
    names = list(found.names)
    images, problems = FilePixels(found.root, names, promoted.config.data.form).read(0, len(names))
    assert not problems
    again = predict(model, promoted, images, names)
    order = [names.index(Path(name).name) for name in split.images]
    np.testing.assert_array_equal(again.classes[order], predictions.classes)
    written = write_submission(predictions.classes, tmp_path / "out")
    attributes = [(attribute.name, attribute.classes) for attribute in promoted.attributes]
    parquet = write_probabilities(
        tmp_path / "out" / "p.parquet", predictions.names, attributes, predictions.probabilities
    )
    validate_submission(written.archive, len(split), promoted.class_counts, expected=predictions.classes)
    validate_probabilities(parquet, split.images, predictions.classes)


def test_no_images_and_one_image(run: Run, dataset: Dataset) -> None:
    model, promoted = load_promoted(run.best_dir)
    images = packs(dataset, "test").images
    empty = predict(model, promoted, images[:0])
    assert empty.classes.shape == (0, len(dataset.attributes))
    assert [values.shape for values in empty.probabilities] == [(0, count) for count in dataset.class_counts]
    assert predict(model, promoted, images[:1]).names == ("0",)
    with pytest.raises(ValueError, match="2 names for 1 images"):
        predict(model, promoted, images[:1], ["a", "b"])


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        change(content)
        (folder / "model.json").write_text(json.dumps(content))

    return apply


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "model.json: is missing. Promote a run's winner"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: is missing"),
        (lambda folder: (folder / "model.json").write_text("{"), "must be JSON"),
        (lambda folder: (folder / "model.json").write_text("[]"), "reads format 1; got 'list'"),
        (truncate, "its sha256 must be"),
        (edit(lambda content: content.update(format=9)), "this version reads format 1; got 9"),
        (edit(lambda content: content.pop("attributes")), "must describe a promoted model; got KeyError"),
        (edit(lambda content: content["config"]["train"].update(lr=-1)), "its configuration is not valid"),
        (edit(lambda content: content["weights"].update(file="../model.safetensors")), "must be a file beside it"),
        (edit(lambda content: content["attributes"].pop()), "does not fit tiny"),
    ],
)
def test_damaged_folders_are_refused(promoted_copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(promoted_copy)
    with pytest.raises(CheckpointError) as caught:
        load_promoted(promoted_copy)
    assert message in str(caught.value)


def test_another_data_set_is_refused(run: Run) -> None:
    _, promoted = load_promoted(run.best_dir)
    with pytest.raises(CheckpointError, match=r"other: must have the model's attributes: .*; got colour \(2\)"):
        require_attributes(promoted, [Attribute("colour", ("red", "blue"))], "other")
