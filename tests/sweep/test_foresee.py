"""What would fail in every trial of a kind is told before any starts, and only that."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion.errors import ResourcesError, SpecError
from fashion.spec.settings import ResourcesConfig
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.foresee import foreseen, foreseen_here, require_machine
from fashion.sweep.prepare import prepare

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
Load = Callable[..., SweepSpec]


def quiet(label: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def load(demo_root: Path, tmp_path: Path) -> Load:
    def load(*overrides: str) -> SweepSpec:
        path = tmp_path / "spec.yaml"
        path.write_text(f"data: {{root: {demo_root}, resize: 32, crop: 32}}\nmodel: {{backbone: tiny, weights: none}}")
        return load_spec(path, overrides)

    return load


@pytest.mark.parametrize(
    ("settings", "images", "said"),
    [
        ([], 96, ""),
        ([], None, ""),
        ([], 1, ""),  # a map of 2 x 2
        (["model.feature_norm=batch"], 1, "batch has at most all 1 training images, and needs two with feature_norm"),
        (["data.crop=16"], 1, "and needs two for tiny at 16 pixels: its batch normalisation sees a single value"),
        (["data.crop=16", "train.batch_size=1", "train.freeze_stages=3"], 96, "must be at least 2, two images, for"),
        (["data.crop=16", "train.freeze_backbone=true"], 1, ""),
        (["data.crop=16", "train.mode=probe"], 1, ""),
        (["resources.workers=4"], 3, "resources.workers: must be at most 3"),
        (["resources.workers=4", "data.crop=16"], 7, "needs two for each of 4 workers"),
        (["resources.workers=4", "data.crop=16"], 8, ""),
    ],
)
def test_a_batch_of_one_is_told_where_training_would_fail(
    load: Load, settings: list[str], images: int | None, said: str
) -> None:
    found = foreseen(load(*settings), images, quiet)
    assert len(found) == bool(said)
    assert all(said in str(each) for each in found)


@needs_timm
def test_sizes_that_a_backbone_of_timms_cannot_take_are_tried_once_each(load: Load) -> None:
    vit = ("model.backbone=timm:vit_tiny_patch16_224", "data.resize=256")
    seen: list[tuple[int, int]] = []
    found = foreseen(load(*vit, "data.crop={choice: [224, 64]}", "search.trials=400"), 96, lambda _, *n: seen.append(n))
    assert [each.place for each in found] == ["data.crop"]
    assert "timm:vit_tiny_patch16_224 can't take images of 64 x 64 pixels" in found[0].rule
    assert found[0].fix == "Its own size is 224"
    assert seen[-1] == (2, 2)
    assert not foreseen(load(*vit, "data.crop=224"), 96, quiet)
    (space,) = foreseen(load(*vit, "data.crop={choice: [224, 64]}", "search.method=optuna"), 96, quiet)
    assert space.place == "data.crop"


def test_a_sweep_is_refused_before_its_caches_are_built(
    load: Load, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    spec = load("data.crop=16", "train.batch_size=1", "train.freeze_stages=2")
    with pytest.raises(SpecError, match=r"train\.batch_size: must be at least 2"):
        prepare(spec, quiet)
    assert not [*(tmp_path / "cache").glob("*.arrow")]


def test_here_means_where_the_data_set_is(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lacking = ("model.weights=gone.pth", "resources.cpus_per_worker=1024")
    found = [str(each) for each in foreseen_here(load(*lacking), quiet)]
    assert found[0] == 'model.weights: there is no such file; got "gone.pth"'
    assert "a trial needs 1 worker(s) of 1024 CPU; this machine has" in found[1]
    assert not foreseen_here(load(*lacking, f"data.root={tmp_path / 'elsewhere'}"), quiet)
    assert not foreseen_here(load(*lacking, "data.root=s3://bucket/data"), quiet)


def test_a_data_set_that_is_here_and_can_t_be_read_is_told(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut" / "split").mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("file_name,sleeve\ngone.jpg,long\n")
    for name, said in (("empty", "an empty folder"), ("cut", "split/train.txt: No such"), ("labels.csv", "gone.jpg")):
        (problem,) = foreseen_here(load(f"data.root={tmp_path / name}"), quiet)
        assert problem.place == "data.root"
        assert said in problem.value
        assert f"fashion-sweep data check {tmp_path / name}" in problem.fix


def test_a_file_that_holds_no_weights_of_the_backbone_is_told(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "junk.pth").write_bytes(bytes(range(256)) * 16)
    torch.save({"stem.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name, said in (
        ("junk.pth", "is no file that torch.save has written"),
        ("other.pth", "is not of backbone tiny"),
    ):
        (problem,) = foreseen_here(load(f"model.weights={tmp_path / name}", "search.trials=300"), quiet)
        assert said in str(problem)


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_machine(ResourcesConfig(gpus_per_worker="auto"))
    for gpus in (0.0, 0.5, 2.0):
        require_machine(ResourcesConfig(gpus_per_worker=gpus))
    for workers, gpus in ((1, 3.0), (3, 1.0)):
        asked = ResourcesConfig(workers=workers, gpus_per_worker=gpus)
        with pytest.raises(ResourcesError, match=f"needs {workers} worker.* of 1 CPU, {gpus:g} GPU; this machine has"):
            require_machine(asked)
        require_machine(asked, address="10.0.0.1:6379")
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        require_machine(asked)
        monkeypatch.delenv("RAY_ADDRESS")
