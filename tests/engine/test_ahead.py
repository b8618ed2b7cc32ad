"""Which processes Ray starts for the first trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fashion.cluster.local.start import Warm
from fashion.engine.ahead import TRIAL, needed
from fashion.spec.sweep_spec import SweepSpec, load_spec


def spec(folder: Path, backbone: Any = "tiny", **resources: Any) -> SweepSpec:
    content = {
        "data": {"root": "d"}, "model": {"backbone": backbone, "weights": "none"}, "search": {"trials": 9},
        "resources": resources,
    }  # fmt: skip
    (folder / "s.yaml").write_text(json.dumps(content))
    return load_spec(folder / "s.yaml")


@pytest.mark.parametrize(
    ("resources", "left", "gpus", "processes"),
    [
        ({}, 9, 0, 4),
        ({}, 3, 0, 3),
        ({"cpus_per_worker": 2}, 9, 0, 2),
        ({"concurrent_trials": 1}, 9, 0, 1),
        ({}, 9, 2, 2),
        ({"gpus_per_worker": 0.5, "concurrent_trials": 3}, 9, 2, 3),
        ({"gpus_per_worker": 0}, 9, 2, 4),
    ],
)
def test_as_many_as_trials_begin_at_once(
    tmp_path: Path, resources: dict[str, Any], left: int, gpus: int, processes: int
) -> None:
    assert needed(spec(tmp_path, **resources), left, cpus=4, gpus=gpus) == Warm(processes, (TRIAL,))


def test_they_load_what_builds_the_backbones(tmp_path: Path) -> None:
    found = needed(spec(tmp_path, {"choice": ["tiny", "resnet18", "timm:vit_tiny_patch16_224"]}), 9, cpus=1, gpus=0)
    assert found == Warm(1, (TRIAL, "timm", "torchvision"))


def test_train_starts_the_processes_of_several_workers(tmp_path: Path) -> None:
    assert needed(spec(tmp_path, workers=2), 9, cpus=4, gpus=0) is None
