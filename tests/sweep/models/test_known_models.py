"""What is known of a sweep's models from an earlier one: the driver then needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fashion.config.model import ModelConfig
from fashion.errors import WeightsError
from fashion.model import summary
from fashion.model.classifier import build_model
from fashion.model.pretrained import weights
from fashion.sweep.models.known_models import FILE, KnownModels

PREPARED = """
import sys
from fashion.engine import driver
from fashion.spec.sweep_spec import load_spec
from fashion.sweep.prepare import open_run, prepare
spec = load_spec("s.yaml")
open_run(spec, prepare(spec, lambda *_: None))
print("torch" in sys.modules)
"""

TINY = ModelConfig(backbone="tiny", weights="none")


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks torch fails."""
    monkeypatch.delattr(summary, "backbone_size")
    monkeypatch.delattr(weights, "resolve_weights")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of the tiny backbone."""
    path = tmp_path / "tiny.safetensors"
    backbone = build_model(ModelConfig(backbone="tiny", weights="none"), (2,)).backbone
    save_file({name: value.contiguous() for name, value in backbone.state_dict().items()}, path)
    return path


def test_a_model_is_described_by_its_own_parameters(tmp_path: Path) -> None:
    counts = (7, 3)
    models = [ModelConfig(backbone=name, weights="none") for name in ("tiny", "resnet18", "tiny")]
    (tiny, resnet) = KnownModels(tmp_path).described(models, counts)[::-1]
    assert (tiny["backbone"], resnet["backbone"]) == ("tiny", "resnet18")
    for entry in (tiny, resnet):
        model = build_model(ModelConfig(backbone=entry["backbone"], weights="none"), counts)
        assert entry["parameters"] == sum(each.numel() for each in model.parameters())
        assert entry["parameters"] == entry["backbone_parameters"] + entry["head_parameters"]
        assert sum(stage["parameters"] for stage in entry["stages"]) == entry["backbone_parameters"]
    assert resnet["backbone_parameters"] == 11_176_512  # He et al. 2016, without the classifier


def test_heads_of_rich_features_are_counted(tmp_path: Path) -> None:
    model = ModelConfig(backbone="tiny+resnet18", weights="none", feature_stages=(2, 3), feature_stats="mean_std")
    known = KnownModels(tmp_path)
    (found,) = known.described([model], (7, 3))
    assert found["parameters"] == sum(each.numel() for each in build_model(model, (7, 3)).parameters())
    (plain,) = known.described([model.model_copy(update={"feature_stages": ()})], (7, 3))
    assert plain["head_parameters"] < found["head_parameters"]
    assert plain["backbone_parameters"] == found["backbone_parameters"]


def test_nothing_is_found_out_twice(tmp_path: Path, file: Path, request: pytest.FixtureRequest) -> None:
    model = ModelConfig(backbone="tiny", weights=str(file))
    first = KnownModels(tmp_path)
    resolved, described = first.weights(model), first.described([TINY], (7, 3))
    first.save()
    request.getfixturevalue("unasked")
    again = KnownModels(tmp_path)
    assert again.weights(model) == resolved
    assert again.described([TINY], (7, 3)) == described
    assert again.weights(ModelConfig(backbone="resnet18", weights="none")).kind == "none"


def test_a_file_that_has_changed_is_looked_at_again(tmp_path: Path, file: Path) -> None:
    model = ModelConfig(backbone="tiny", weights=str(file))
    known = KnownModels(tmp_path)
    known.weights(model)
    known.save()
    save_file({"stem.weight": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match="not of backbone tiny"):
        KnownModels(tmp_path).weights(model)
    file.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        KnownModels(tmp_path).weights(model)


@pytest.mark.parametrize("kept", ["of another version", "damaged", "of another shape"])
def test_what_does_not_hold_here_is_found_out_anew(tmp_path: Path, kept: str) -> None:
    known = KnownModels(tmp_path)
    whole = known.described([TINY], (3,))
    known.save()
    content = json.loads((tmp_path / FILE).read_text())
    content["sizes"]["tiny"]["parameters"] = 1
    content["of"]["torch"] = "0.4.1"
    texts = {"of another version": json.dumps(content), "damaged": '{"of', "of another shape": "[1]"}
    (tmp_path / FILE).write_text(texts[kept])
    assert KnownModels(tmp_path).described([TINY], (3,)) == whole


def test_a_driver_that_knows_its_models_loads_no_torch(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    known = KnownModels(tmp_path / "cache")
    known.described([TINY], (2,))
    known.save()
    data = {"root": str(demo_root), "resize": 20, "crop": 16}
    (tmp_path / "s.yaml").write_text(json.dumps({"data": data, "model": {"backbone": "tiny", "weights": "none"}}))
    done = subprocess.run([sys.executable, "-c", PREPARED], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "False\n"), done
    assert (tmp_path / "runs" / "s" / "manifest.json").is_file()
