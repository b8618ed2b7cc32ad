"""Trials that go wrong without dying: too little memory, a process that hangs, data that change meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from fashion.record.run import Run
from tests.support.machines.descendants import descendants
from tests.support.running import (
    PATIENCE,
    assert_same,
    events,
    fashion,
    one_by_one,
    start,
    wait_for_reports,
    wait_until_gone,
)

pytestmark = [pytest.mark.ray, pytest.mark.faults]

# A sitecustomize module, which Python imports in every process: training steps of more than eight images run out of
# memory.
LIMIT = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class Limited(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "fashion.model.classifier":
            return None
        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            import torch
            forward = module.MultiHeadClassifier.forward
            def limited(self, images):
                if self.training and len(images) > 8:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                return forward(self, images)
            module.MultiHeadClassifier.forward = limited
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Limited())
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_without_memory_goes_on_in_micro_batches(tmp_path: Path, demo_root: Path, workers: int) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(LIMIT)
    resources = {"concurrent_trials": 1, "workers": workers, "max_failures": 0}
    train = {"batch_size": 16 * workers, "precision": "fp32", "layout": "nchw"}
    (tmp_path / "k.yaml").write_text(one_by_one(demo_root, epochs=2, train=train, resources=resources))
    path = f"{tmp_path / 'hook'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = fashion(tmp_path, "run", "k.yaml", PYTHONPATH=path)
    assert done.returncode == 0, done
    run = Run.open(tmp_path / "runs/k")
    for trial in run.trials.values():
        assert trial.status == "completed"  # with no failure allowed: a lack of memory is none
        assert [report.epoch for report in trial.reports] == [1, 2]
        assert {report.setting for report in trial.reports} == {"fp32 nchw, 2 micro-batches"}
        (note,) = trial.notes
        assert note.startswith("epoch 1: out of memory with 16 images at a time, it goes on with 2 micro-batches")
        assert not list(run.trial_dir(trial.number).glob("*.json.tmp"))
        assert not (run.trial_dir(trial.number) / "micro-batches.json").exists()
    assert done.stdout.count("out of memory with 16 images") == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_hangs_is_killed_and_its_trial_goes_on(tmp_path: Path, demo_root: Path, workers: int) -> None:
    resources = {"concurrent_trials": 1, "workers": workers, "epoch_timeout": 60}
    text = one_by_one(demo_root, trials=1, epochs=6, resources=resources)
    for name in ("whole", "hung"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k.yaml").write_text(text)
    whole = fashion(tmp_path / "whole", "run", "k.yaml")
    assert whole.returncode == 0, whole
    process = start(tmp_path / "hung", "k.yaml")
    wait_for_reports(process, tmp_path / "hung/runs/k/journal.jsonl", lambda found: len(found) >= 2)
    title = "ray::ImplicitFunc" if workers == 1 else "ray::RayTrainWorker"
    victim = max(pid for pid, name in descendants(process.pid).items() if name.startswith(title))
    os.kill(victim, signal.SIGSTOP)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "no report for 60 s (resources.epoch_timeout): it hung and was killed" in out
    assert wait_until_gone([victim]) == set()
    assert [e["attempt"] for e in events(tmp_path / "hung/runs/k") if e["event"] == "attempt"] == [1, 2]
    if workers == 1:  # two sum in another order
        assert_same(tmp_path / "hung/runs/k", tmp_path / "whole/runs/k")
    else:
        assert [r.epoch for r in Run.open(tmp_path / "hung/runs/k").trials[0].reports] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("change", ["an image", "a label"])
def test_data_that_changes_under_a_sweep_is_noticed_and_never_mixed_in(
    tmp_path: Path, demo_root: Path, change: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(demo_root, root)
    (tmp_path / "k.yaml").write_text(one_by_one(root, trials=40, epochs=4))
    process = start(tmp_path, "k.yaml")
    run = tmp_path / "runs/k"
    wait_for_reports(process, run / "journal.jsonl", lambda found: len(found) >= 5)
    place = root / "split/train_attr.txt" if change == "a label" else next((root / "img").iterdir())
    before = place.read_bytes()
    if change == "a label":
        lines = before.decode().splitlines()
        other = max(number for number, line in enumerate(lines) if line != lines[-1])
        lines[-1], lines[other] = lines[other], lines[-1]
        place.write_text("\n".join(lines) + "\n")
    else:
        Image.new("RGB", (48, 48), "red").save(place)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, (out, err)
    assert f"the data set at {root} has changed since this sweep started" in err
    assert "Traceback" not in out + err
    recorded = Run.open(run)
    assert {trial.ended for trial in recorded.trials.values()} <= {None, "completed"}
    assert len(recorded.trials) < 40
    fingerprint = recorded.manifest["data_fingerprint"]
    refused = fashion(tmp_path, "run", "k.yaml")
    assert refused.returncode == 2
    assert "has changed since this sweep started" in refused.stderr
    place.write_bytes(before)
    total = len(recorded.trials)
    spec = json.loads((tmp_path / "k.yaml").read_text())
    (tmp_path / "u.yaml").write_text(json.dumps({**spec, "search": {"trials": total}, "storage": "undisturbed"}))
    whole = fashion(tmp_path, "run", "u.yaml")
    assert whole.returncode == 0, whole
    same = Run.open(tmp_path / "undisturbed/u")
    assert same.manifest["data_fingerprint"] == fingerprint
    expected = {(report.trial, report.epoch): report.metrics["val_loss"] for report, _ in same.history}
    for report, _ in recorded.history:
        assert report.metrics["val_loss"] == expected[report.trial, report.epoch]
