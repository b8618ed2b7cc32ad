"""A trial that a neighbouring sweep has trained is taken over; one that differs in anything that counts is not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fashion.display.live import Display
from fashion.display.tensorboard import EventFiles
from fashion.errors import CheckpointError, RunError
from fashion.record.excerpt import load, save
from fashion.record.manifest import changed_versions
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.schedulers.registry import make_scheduler
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.observers import OnTensorBoard
from fashion.sweep.recorder import Recorder
from fashion.sweep.reuse import key, link, trained_elsewhere
from tests.support.neighbours import new_run, train

TEXT = """\
name: first
data: {root: nowhere, resize: 32, crop: 32}
model: {backbone: tiny, weights: none}
train: {epochs: 4, lr: {loguniform: [0.001, 0.1]}}
search: {trials: 3}
"""


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return load_spec(tmp_path / "sweep.yaml", [f"storage={tmp_path / 'runs'}"])


def take(run: Run, spec: SweepSpec, number: int) -> tuple[Recorder, str]:
    told = io.StringIO()
    display = Display(run, spec, stream=told, mode="plain")
    recorder = Recorder(run, make_scheduler(spec.scheduler), 3, [OnTensorBoard(EventFiles(run)), display])
    recorder.catch_up()
    config = spec.trial(number).model_dump(mode="json")
    recorder.take(number, config, trained_elsewhere(run)[key(config)])
    return recorder, told.getvalue()


@pytest.mark.parametrize("backbone", ["", "backbone-tiny-seed-1.safetensors"])
def test_a_completed_trial_of_a_neighbour_is_taken_whole(spec: SweepSpec, backbone: str) -> None:
    first, second = new_run(spec, "first"), new_run(spec, "second")
    weights = train(first, spec, 1, backbone=backbone)
    recorder, told = take(second, spec, 1)
    assert f"trial 1: same as trial 1 of {first.path}" in told
    found = Run.open(second.path).trials[1]
    assert (found.status, found.attempt, found.origin) == ("completed", 0, ("first", 1))
    assert found.reports == first.trials[1].reports
    assert recorder.scheduler.entries > 0  # others are measured by it
    assert second.checkpoint_path(1, 2).read_bytes() == weights.read_bytes()
    weights.unlink()  # the other run may be removed
    content = json.loads((promote(second) / "model.json").read_text())
    assert (content["trial"], content["epoch"]) == (1, 2)
    save(second)
    known = load(second.journal_path)
    assert known is not None
    assert known[0][1].origin == ("first", 1)


def test_a_trial_of_a_neighbour_whose_data_lay_elsewhere_is_promoted(spec: SweepSpec, tmp_path: Path) -> None:
    first = new_run(spec, "first")
    weights = train(first, spec, 1)
    moved = load_spec(tmp_path / "sweep.yaml", [f"storage={tmp_path / 'runs'}", "data.root=s3://bucket/data"])
    second = new_run(moved, "second")
    take(second, moved, 1)
    content = json.loads((promote(second) / "model.json").read_text())
    assert content["config"]["data"]["root"] == "s3://bucket/data"
    header = json.loads(json.dumps(content["config"]))
    header["train"]["lr"] *= 2
    meta = {"config": header, "data_fingerprint": "f", "report": second.trials[1].best().to_json()}  # type: ignore[union-attr]
    path = second.checkpoint_path(1, 2)
    path.unlink()
    save_file({"heads.0.weight": np.full(3, 1, np.float32)}, path, {"fashion": json.dumps(meta)})
    with pytest.raises(CheckpointError, match="another configuration"):
        promote(second)
    assert weights.exists()


def test_taking_may_be_interrupted_and_done_again(spec: SweepSpec) -> None:
    first, second = new_run(spec, "first"), new_run(spec, "second")
    train(first, spec, 0)
    second.record_trial(0, spec.trial(0).model_dump(mode="json"))
    second.record_taken(0, "first", 0)
    second.record_report(first.trials[0].reports[0], "continue")
    assert second.unfinished(1) == [0]
    take(second, spec, 0)
    assert [report.epoch for report, _ in second.history] == [1, 2, 3, 4]
    assert second.unfinished(1) == []


def test_what_differs_or_is_incomplete_is_not_taken(spec: SweepSpec) -> None:
    run = new_run(spec, "mine")
    train(new_run(spec, "data", data_fingerprint="other"), spec, 0)
    train(new_run(spec, "code", code_version="0+other"), spec, 0)
    train(new_run(spec, "torch", packages={"torch": "0"}), spec, 0)
    train(new_run(spec, "half"), spec, 0, epochs=3)
    train(new_run(spec, "gone"), spec, 0).unlink()
    train(new_run(spec, "cut"), spec, 0).write_bytes(b"short")
    upgraded = new_run(spec, "upgraded")
    upgraded.changed_versions = {"torch": "0"}  # in the midst of the sweep
    train(upgraded, spec, 0)
    (new_run(spec, "damaged").path / "manifest.json").write_text("{")
    assert trained_elsewhere(run) == {}
    train(new_run(spec, "same"), spec, 0)
    assert set(trained_elsewhere(run)) == {key(spec.trial(0).model_dump(mode="json"))}


def test_a_configuration_is_the_same_wherever_the_data_lies(spec: SweepSpec) -> None:
    config = spec.trial(0).model_dump(mode="json")
    assert key(config) == key({**config, "data": {**config["data"], "root": "elsewhere"}})
    assert key(config) != key({**config, "data": {**config["data"], "flip": 0.25}})
    assert key(config) != key({**config, "seed": config["seed"] + 1})


def test_files_that_vanish_are_told(spec: SweepSpec) -> None:
    first, second = new_run(spec, "first"), new_run(spec, "second")
    weights = train(first, spec, 0)
    (trained,) = trained_elsewhere(second).values()
    weights.unlink()
    with pytest.raises(RunError, match="its files have gone"):
        link(trained, second.trial_dir(0))


def test_what_counts_is_the_versions_of_now(spec: SweepSpec) -> None:
    """Of the sweep that goes on after an upgrade, and of the one that was upgraded before it trained the trial."""
    old = {"code_version": "0+old", "packages": {"torch": "1"}}
    before, after, mine = new_run(spec, "before", **old), new_run(spec, "after", **old), new_run(spec, "mine", **old)
    train(before, spec, 0)
    after.changed_versions = mine.changed_versions = changed_versions(mine.manifest)
    train(after, spec, 0)
    (taken,) = trained_elsewhere(mine).values()
    assert taken.run.name == "after"
    mine.changed_versions = {}
    (taken,) = trained_elsewhere(mine).values()
    assert taken.run.name == "before"


def test_going_on_under_other_versions_is_told_once(spec: SweepSpec) -> None:
    run = new_run(spec, "mine", code_version="0+old")
    told = io.StringIO()
    recorder = Recorder(run, make_scheduler(spec.scheduler), 3, [Display(run, spec, stream=told, mode="plain")])
    recorder.catch_up()
    (line,) = [line for line in told.getvalue().splitlines() if "other versions" in line]
    assert "instead of 0+old" in line
    run.record_trial(0, spec.trial(0).model_dump(mode="json"))
    recorder.started(0)
    assert run.trials[0].each_versions() == [run.changed_versions]
