"""The promoted model exported, and run by ONNX Runtime and torch.export on their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from fashion.api.recorded_run import open_run
from fashion.data.layout import Dataset
from fashion.data.pack import Pack
from fashion.errors import RunError
from fashion.export.targets import export
from fashion.prediction.predict import predict
from fashion.prediction.promoted import load_promoted
from fashion.record.run import Run
from tests.support.labelled import configured, digits, labelled_run
from tests.support.promoted import promoted_run
from tests.support.swept import swept

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def trained(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    return promoted_run(tmp_path_factory.mktemp("runs"), demo_root, {"eval_flip": True}, {})


@pytest.fixture(scope="module")
def expected(trained: tuple[Run, Dataset]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bytes of validation images (N, S, S, 3), and the probabilities that `best --predict` gives them."""
    run, dataset = trained
    model, promoted = load_promoted(run.best_dir)
    pack = Pack.open_or_build(dataset, "val", *promoted.config.data.form)
    return np.array(pack.images), list(predict(model, promoted, pack).probabilities)


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return np.asarray(softmax(np.log(probabilities.astype(np.float64)) / temperature, axis=1))


def described(value: str) -> dict[str, Any]:
    found = json.loads(value)
    assert isinstance(found, dict)
    return found


def agree(found: list[Any], expected: list[np.ndarray], says: dict[str, Any], images: int) -> None:
    for mine, theirs, output in zip(found, expected, says["outputs"], strict=True):
        right = calibrated(theirs[:images], output["temperature"])
        np.testing.assert_allclose(np.asarray(mine), right, atol=1e-4)


def test_onnx_runtime_predicts_what_best_predicts_at_any_batch_size(
    trained: tuple[Run, Dataset], expected: tuple[np.ndarray, list[np.ndarray]], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    export(open_run(trained[0].path), "onnx", path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"], "one file, weights included"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    says = described(session.get_modelmeta().custom_metadata_map["fashion-sweep"])
    assert [output["classes"] for output in says["outputs"]] == [list(each.classes) for each in trained[1].attributes]
    assert [each.name for each in session.get_outputs()] == [output["name"] for output in says["outputs"]]
    assert says["input"]["shape"] == ["N", 40, 40, 3]
    assert says["inside"]["centre_crop"] == 32
    assert any(abs(output["temperature"] - 1.0) > 0.01 for output in says["outputs"])
    pixels, probabilities = expected
    for images in (1, 3, len(pixels)):
        agree(session.run(None, {"images": pixels[:images]}), probabilities, says, images)


def test_the_program_predicts_the_same_without_this_package(
    trained: tuple[Run, Dataset], expected: tuple[np.ndarray, list[np.ndarray]], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    export(open_run(trained[0].path), "torch", path)
    files = {"fashion-sweep.json": ""}
    program = torch.export.load(path, extra_files=files).module()
    says = described(files["fashion-sweep.json"])
    pixels, probabilities = expected
    for images in (1, 3, len(pixels)):
        with torch.no_grad():
            found = program(torch.from_numpy(pixels[:images]))
        agree(list(found), probabilities, says, images)


@pytest.mark.slow
def test_ten_views_of_an_image_are_averaged_inside(demo_root: Path, tmp_path: Path) -> None:
    run, dataset = promoted_run(tmp_path / "runs", demo_root, {"eval_flip": True, "eval_crops": 5}, {})
    model, promoted = load_promoted(run.best_dir)
    pack = Pack.open_or_build(dataset, "val", *promoted.config.data.form)
    wanted = list(predict(model, promoted, pack).probabilities)
    for target in ("onnx", "torch"):
        export(open_run(run.path), target, tmp_path / target)
    session = onnxruntime.InferenceSession(tmp_path / "onnx", providers=["CPUExecutionProvider"])
    says = described(session.get_modelmeta().custom_metadata_map["fashion-sweep"])
    program, pixels = torch.export.load(tmp_path / "torch").module(), np.array(pack.images)
    for images in (1, 3, len(pixels)):
        agree(session.run(None, {"images": pixels[:images]}), wanted, says, images)
        with torch.no_grad():
            agree(list(program(torch.from_numpy(pixels[:images]))), wanted, says, images)


@pytest.mark.slow
def test_a_multi_label_attribute_keeps_its_own_probabilities(tmp_path: Path) -> None:
    dataset = digits(tmp_path / "digits")
    run = labelled_run(tmp_path / "runs", dataset, configured(dataset.root, {"eval_flip": True}))
    model, promoted = load_promoted(run.best_dir)
    pack = Pack.open_or_build(dataset, "val", *promoted.config.data.form)
    pixels, wanted = np.array(pack.images), list(predict(model, promoted, pack).probabilities)
    for target in ("onnx", "torch"):
        export(open_run(run.path), target, tmp_path / target)
    session = onnxruntime.InferenceSession(tmp_path / "onnx", providers=["CPUExecutionProvider"])
    says = described(session.get_modelmeta().custom_metadata_map["fashion-sweep"])
    assert [(each["values"], each["temperature"] == 1) for each in says["outputs"]] == [
        ("softmax", False), ("softmax", False), ("sigmoid", True),
    ]  # fmt: skip
    program = torch.export.load(tmp_path / "torch").module()
    for images in (1, 5, len(pixels)):
        with torch.no_grad():
            found = program(torch.from_numpy(pixels[:images]))
        for heads in (session.run(None, {"images": pixels[:images]}), list(found)):
            agree(heads[:2], wanted[:2], {"outputs": says["outputs"][:2]}, images)
            np.testing.assert_allclose(np.asarray(heads[2]), wanted[2][:images], atol=1e-4)


def test_the_card_tells_results_with_their_counts(trained: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = trained
    card = (run.best_dir / "README.md").read_text()
    export(open_run(run.path), "card", tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text() == card, "the promotion has written the same"
    best = open_run(run.path).best()
    sleeve = dataset.attributes[0]
    accuracy = best.metrics[f"val_accuracy/{sleeve.name}"]
    images = len(dataset.splits["val"])
    assert f"| {round(accuracy * images)} of {images} | {100 * accuracy:.2f} %".replace("| ", "", 1) in card
    assert all(name.replace("_", "\\_") in card for each in dataset.attributes for name in each.classes)
    assert dataset.fingerprint() in card
    assert "```json" in card
    assert '"lr": 0.05' in card


def test_class_names_are_no_markup_in_a_card(tmp_path: Path) -> None:
    run, _ = swept(tmp_path)
    attributes = [{"name": "a|b", "classes": ["<script>", "x`y", "*z*"]}, run.manifest["attributes"][1]]
    run.update_manifest(attributes=attributes, findings=[{"sentence": "[few](http://a) images"}])
    from fashion.record.cards.model_card import model_card

    model = {
        "run": "lr", "trial": 0, "epoch": 2, "config": run.trials[0].config, "attributes": attributes,
        "metrics": {"val_loss": "nan", "val_accuracy": 0.5}, "data_fingerprint": "f", "promoted": "now",
        "weights": {"file": "model.safetensors", "bytes": 10, "sha256": "abc"}, "versions": {},
    }  # fmt: skip
    card = model_card(run.manifest, model)
    assert "<script>" not in card.split("```json")[0]
    assert "a\\|b" in card
    assert "\\*z\\*" in card
    assert "\\[few\\]" in card


def test_without_anything_to_promote_nothing_is_written(tmp_path: Path) -> None:
    run, _ = swept(tmp_path)
    empty = Run.create(tmp_path, "empty", {**run.manifest, "name": "empty"})
    with pytest.raises(RunError, match="no trial has reported a finite val_loss"):
        export(open_run(empty.path), "onnx")
    assert not list((empty.path / "exports").iterdir())
