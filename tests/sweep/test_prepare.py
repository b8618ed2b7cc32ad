"""What is settled before any trial starts: data, weights, caches, and whose run directory it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.errors import DataError, RunError, UserError, WeightsError
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.extend import begun, total_with
from fashion.sweep.prepare import Prepared, discard, open_run, prepare
from fashion.sweep.read_data import ADAPTIVE_DRAWS, possible_trials

Load = Callable[..., SweepSpec]
TEXT = """\
name: sweep
data: {root: ROOT, resize: {choice: [20, 24]}, crop: 16}
model: {backbone: tiny, weights: none}
train: {epochs: 2, lr: {loguniform: [0.001, 0.1]}}
search: {trials: 6}
storage: RUNS
"""


def quiet(label: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def load(demo_root: Path, tmp_path: Path) -> Load:
    def load(*overrides: str) -> SweepSpec:
        path = tmp_path / "spec.yaml"
        path.write_text(TEXT.replace("ROOT", str(demo_root)).replace("RUNS", str(tmp_path / "runs")))
        return load_spec(path, overrides)

    return load


@pytest.fixture
def prepared(demo_root: Path, tmp_path: Path) -> Prepared:
    return Prepared(read_dataset(demo_root), demo_root, tmp_path, {})


def test_every_cache_that_trials_read_is_built_beforehand(
    load: Load, demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    seen: dict[str, tuple[int, int]] = {}
    found = prepare(load(), lambda label, done, total: seen.__setitem__(label, (done, total)))
    assert {size for size in (20, 24) for c in possible_trials(load()) if c.data.resize == size} == {20, 24}
    seen.pop("contents of all images", None)  # read once by whichever test asks first
    assert seen == {
        f"{split} images at {size} px": (n, n) for size in (20, 24) for split, n in (("train", 96), ("val", 32))
    }
    assert found.root.is_absolute()
    assert found.cache_dir == tmp_path / "cache"
    assert [weights.kind for weights in found.weights.values()] == ["none"]
    built: list[int] = []
    for size in (20, 24):
        for split in ("train", "val"):
            Pack.open_or_build(
                found.dataset, split, size, cache_dir=found.cache_dir, progress=lambda *n: built.append(1)
            )
    assert not built
    again: list[str] = []
    prepare(load(), lambda label, done, total: again.append(label))
    assert not again


def test_one_damaged_pixel_of_a_cache_is_found_and_mended(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few images are looked at whenever a cache is opened, all of them when a sweep starts."""
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    prepare(load("data.resize=20"), quiet)
    (path,) = (tmp_path / "cache").glob("*-train-20-*.arrow")
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2 + 37] ^= 4
    path.unlink()
    path.write_bytes(damaged)
    assert len(Pack.open(path)) == 96
    prepare(load("data.resize=20"), quiet)
    assert path.read_bytes() == good


def test_what_is_missing_is_told_before_anything_is_made(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        prepare(load(f"data.root={tmp_path / 'absent'}"), quiet)
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        prepare(load(f"model.weights={tmp_path / 'gone.safetensors'}"), quiet)
    with pytest.raises(
        UserError, match=r"freeze_stages \(4\) must be less than the number of the backbone's stages, 4"
    ):
        load("train.freeze_stages=4")
    assert not (tmp_path / "runs").exists()


def test_configurations_that_optuna_may_ask_for(load: Load) -> None:
    configs = possible_trials(load("search.method=optuna"))
    assert len(configs) == ADAPTIVE_DRAWS
    assert {config.data.resize for config in configs} == {20, 24}
    assert len(possible_trials(load())) == 6


def test_a_new_run_says_what_it_is(load: Load, prepared: Prepared) -> None:
    run, resumed = open_run(load(), prepared)
    assert not resumed
    assert SweepSpec.from_json(run.manifest["spec"]) == load()
    assert run.manifest["data_fingerprint"] == prepared.dataset.fingerprint()
    assert run.manifest["data_root"] == str(prepared.root)
    for split, images in (("train", 96), ("val", 32)):
        assert [sum(head) for head in run.manifest["label_counts"][split]] == [images] * len(run.manifest["attributes"])
    counts = [len(attribute["classes"]) for attribute in run.manifest["attributes"]]
    assert counts == [len(head) for head in run.manifest["label_counts"]["train"]]


def test_the_same_spec_goes_on(load: Load, prepared: Prepared) -> None:
    first, _ = open_run(load(), prepared)
    first.record_trial(0, {"a": 1})
    first.close()
    before = (first.path / "manifest.json").read_bytes()
    run, resumed = open_run(load(), prepared)
    assert resumed
    assert list(run.trials) == [0]
    assert (run.path / "manifest.json").read_bytes() == before


def test_more_trials_and_other_resources_are_accepted_and_recorded(load: Load, prepared: Prepared) -> None:
    open_run(load(), prepared)
    asked = load("search.trials=9", "resources.cpus_per_worker=2", "resources.concurrent_trials=1")
    run, resumed = open_run(asked, prepared)
    assert resumed
    recorded = SweepSpec.from_json(json.loads((run.path / "manifest.json").read_text())["spec"])
    assert recorded == asked
    with pytest.raises(RunError, match=r"search\.trials: must not be less than the recorded 9, got 6"):
        open_run(load(), prepared)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["train.lr=0.05"], r"train\.lr: .*loguniform.* -> 0\.05"),
        (["search.seed=1"], r"search\.seed: 0 -> 1"),
        (["scheduler.grace=0.5", "train.epochs=4"], r"train\.epochs: 2 -> 4; scheduler\.grace: 0\.1 -> 0\.5"),
    ],
)
def test_another_spec_is_refused_with_what_changed(
    load: Load, prepared: Prepared, overrides: list[str], named: str
) -> None:
    run, _ = open_run(load(), prepared)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(RunError, match=named):
        open_run(load(*overrides), prepared)
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before
    other, resumed = open_run(load(*overrides, "name=another"), prepared)
    assert not resumed
    assert other.name == "another"


def test_edited_ranges_go_on_with_more_trials(load: Load, prepared: Prepared) -> None:
    run, _ = open_run(load(), prepared)
    first = load().trial(0)
    run.record_trial(0, first.model_dump(mode="json"))
    edited = ("train.lr=0.05", "search.trials=9")
    with pytest.raises(RunError, match=r"train\.lr: .* -> 0\.05.*--trials \+20"):
        open_run(load("train.lr=0.05"), prepared)
    with pytest.raises(RunError, match=r"scheduler\.grace"):
        open_run(load(*edited, "scheduler.grace=0.5"), prepared)
    assert begun(load()).trials == (first,)
    run, resumed = open_run(load(*edited), prepared)
    assert resumed
    (extension,) = run.manifest["extensions"]
    assert extension["first_trial"] == 6
    assert extension["edited"] == ["train.lr"]
    assert "-> 0.05" in extension["changes"][0]
    assert run.trials[0].config == first.model_dump(mode="json")
    assert run.unfinished(9) == list(range(9))
    open_run(load(*edited), prepared)  # typed again
    assert Run.open(run.path).manifest["extensions"] == [extension]


def test_a_grid_is_not_extended(load: Load, prepared: Prepared) -> None:
    grid = ("search.method=grid", "train.lr={grid: [0.1, 0.2]}")
    open_run(load(*grid), prepared)
    with pytest.raises(RunError, match=r"another spec .*Give the new sweep another name"):
        open_run(load(*grid, "train.lr={grid: [0.1, 0.2, 0.3]}"), prepared)


def test_a_moved_data_set_is_the_same(load: Load, prepared: Prepared, demo_root: Path, tmp_path: Path) -> None:
    open_run(load(), prepared)
    root = Path(shutil.copytree(demo_root, tmp_path / "moved"))
    run, resumed = open_run(load(f"data.root={root}"), Prepared(read_dataset(root), root, tmp_path, {}))
    assert resumed
    assert run.manifest["data_root"] == str(root)


def test_plus_counts_from_what_is_recorded(load: Load, prepared: Prepared) -> None:
    with pytest.raises(RunError, match="there is no run"):
        total_with(4, load())
    run, _ = open_run(load(), prepared)
    assert total_with(4, load()) == (6, 6)
    for number in range(6):
        run.record_trial(number, {"a": number})
        run.record_attempt(number)
        run.record_end(number, "failed")
    assert total_with(4, load("search.trials=2")) == (10, 0)


def test_changed_data_is_refused(load: Load, demo_root: Path, tmp_path: Path, prepared: Prepared) -> None:
    open_run(load(), prepared)
    root = Path(shutil.copytree(demo_root, tmp_path / "changed"))
    labels = root / "split" / "val_attr.txt"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[:-1], " ".join("0" for _ in lines[-1].split())]) + "\n")
    changed = Prepared(read_dataset(root), root, tmp_path, {})
    assert changed.dataset.fingerprint() != prepared.dataset.fingerprint()
    with pytest.raises(RunError, match="has changed since this sweep started"):
        open_run(load(), changed)


def test_a_folder_that_is_no_run_is_left_alone(load: Load, prepared: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "sweep"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="is not a run directory"):
        open_run(load(), prepared)
    assert os.listdir(folder) == ["thesis.tex"]


def test_a_run_that_could_not_start_leaves_no_folder(load: Load, prepared: Prepared) -> None:
    run, _ = open_run(load(), prepared)
    discard(run)
    assert not run.path.exists()
    run, _ = open_run(load(), prepared)
    run.record_trial(0, {"a": 1})
    discard(run)
    assert run.path.exists()


def test_all_weights_of_an_adaptive_sweep_are_found_beforehand(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that hardly any draw names."""
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    apart = ", ".join(f"{n / 1000}" for n in range(900))
    weights = "{when: {model.dropout: 0.0}, value: gone.pth, else: none}"
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        prepare(load("search.method=optuna", f"model.dropout={{choice: [{apart}]}}", f"model.weights={weights}"), quiet)
