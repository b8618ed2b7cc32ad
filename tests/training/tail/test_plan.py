"""What a sweep's maps take is known, told and limited before any are computed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import save_file

from fashion.config.trial import TrialConfig
from fashion.data.cache.entries import entries
from fashion.errors import BlockedError, ResourcesError, SpecError
from fashion.model.backbones import row
from fashion.model.network import make_backbone
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.foresee import foreseen
from fashion.sweep.prepare import prepare
from fashion.training.tail import passes, plan
from fashion.training.tail.plan import MapFile

TEXT = """\
name: tails
data: {root: ROOT, resize: 36, crop: 32, eval_flip: true}
model: {backbone: tiny, weights: WEIGHTS}
train: {mode: tail, freeze_stages: {grid: [1, 2]}, epochs: 2, batch_size: 16}
search: {method: grid}
storage: RUNS
"""
Load = Callable[..., SweepSpec]


@pytest.fixture
def load(demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "tiny.safetensors"
    save_file(make_backbone(row("tiny"))[0].state_dict(), weights)
    text = TEXT.replace("ROOT", str(demo_root)).replace("RUNS", str(tmp_path / "runs"))
    (tmp_path / "spec.yaml").write_text(text.replace("WEIGHTS", str(weights)))
    return lambda *overrides: load_spec(tmp_path / "spec.yaml", overrides)


def quiet(label: str, done: int, total: int) -> None:
    pass


def found(tmp_path: Path) -> list[int]:
    return sorted(path.stat().st_size for path in (tmp_path / "cache").glob("*-maps-*.arrow"))


def test_all_maps_are_computed_beforehand_as_told(load: Load, tmp_path: Path) -> None:
    told: list[str] = []
    seen: dict[str, tuple[int, int]] = {}
    prepare(load(), lambda label, done, total: seen.__setitem__(label, (done, total)), say=told.append)
    # Behind the stem 16 x 16 x 16 numbers an image, behind the next stage 32 x 8 x 8; two views of 96 and 32 images.
    sizes = [2 * images * cells for cells in (32 * 64, 16 * 256) for images in (32, 32, 96, 96)]
    for size, expected in zip(found(tmp_path), sorted(sizes), strict=True):
        assert 0 < size - expected < 4_000
    assert seen["mirrored val maps of tiny at 32 px, cut behind stages 1, 2"] == (32, 32)
    (sentence,) = told
    assert re.fullmatch(
        r"Maps for train\.mode: tail: 8 files to compute, 0\.0031 GB, about \d+ s; all trials use them\.", sentence
    )
    again: list[str] = []
    prepare(load(), quiet, say=again.append)
    assert not again


def test_what_was_begun_counts_with_what_is_left_of_it(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(label: str, done: int, total: int) -> None:
        if label.startswith("train maps") and done == 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(load("data.flip=0"), interrupted)
    passes_of: list[list[int]] = []

    def seconds_of(passes: Iterable[Sequence[MapFile]], device: str) -> float:
        passes_of.extend([file.left for file in files] for files in passes)
        return real(passes, device)

    class Little:
        free = 1_500_000  # of the 2.1 MB in all, 1.2 MB are on the disk already

    real = plan.seconds_of
    monkeypatch.setattr(plan, "seconds_of", seconds_of)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Little)
    prepare(load("data.flip=0"), quiet)
    assert passes_of == [[32, 32], [32, 32], [32, 32]]  # of train 64 of 96 are done, of val and its mirrors none


def test_features_are_computed_beforehand_in_each_precision_that_trials_need(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "computes_bf16", lambda device: True)
    probe = "train.mode=probe", "train.freeze_stages=0", "data.flip=0"
    of_train: list[str] = []
    for precisions in ("auto", "{grid: [fp32, auto]}"):  # what must be in fp32 is not left to its trial
        prepare(load(*probe, f"train.precision={precisions}"), quiet)
        found = [each.what for each in entries(tmp_path / "cache") if each.kind == "features"]
        of_train.append(", ".join(sorted(what for what in found if what.startswith("train"))))
    assert of_train == [
        "train, tiny at 32 px, in bf16",
        "train, tiny at 32 px, train, tiny at 32 px, in bf16",
    ]


def test_what_is_over_the_limit_is_refused_before_any_is_computed(load: Load, tmp_path: Path) -> None:
    with pytest.raises(
        ResourcesError, match=r"resources\.maps_gb: the maps of 2 cuts take 0\.00315 GB in .*; got 0\.003"
    ):
        prepare(load("resources.maps_gb=0.003"), quiet)
    assert not found(tmp_path)
    prepare(load("resources.maps_gb=0.003", "train.freeze_stages=2"), quiet)
    assert len(found(tmp_path)) == 4


def test_a_disk_without_room_is_told_before_any_is_computed(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(load("train.mode=full"), quiet)  # the images are there

    class Little:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Little)
    with pytest.raises(BlockedError, match="cache of maps needs"):
        prepare(load(), quiet)
    assert not found(tmp_path)


def test_maps_of_random_weights_are_each_trials_own(load: Load, tmp_path: Path) -> None:
    told: list[str] = []
    prepare(load("model.weights=none"), quiet, say=told.append)
    assert not told
    assert not found(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.freeze_stages=0"], r"freeze_stages \(0\) must be at least 1 with mode tail"),
        (["train.freeze_backbone=true"], "freeze_backbone must be false with mode tail: mode probe"),
        (["data.jitter=0.2"], "jitter must be 0 for train.mode tail, whose maps are computed once"),
        (["data.crop_mode=random"], "crop_mode must be center for train.mode tail"),
        (["train.init_heads=probe", "model.weights=none"], "init_heads must be random with weights none"),
        (["train.mode=full", "data.crop_cells=1"], r"crop_cells \(1\) must be 0 unless train.mode is tail"),
    ],
)
def test_what_a_tail_asks_of_other_fields(load: Load, overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(*overrides)


def test_crops_that_leave_no_cells_are_foreseen(load: Load) -> None:
    (problem,) = foreseen(load("data.crop_cells=8"), None, quiet)
    assert str(problem).startswith(
        "train.freeze_stages: tiny can't be cut there at 32 px (its maps have 8 x 8 cells, and data.crop_cells (8) must"
    )
    assert not foreseen(load("data.crop_cells=7"), None, quiet)


def test_older_records_mean_what_they_meant() -> None:
    config = TrialConfig.model_validate({"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": {}})
    assert (config.train.mode, config.data.crop_cells, config.train.freeze_bn_stats) == ("full", 0, False)
    assert os.environ["FASHION_CACHE"]
