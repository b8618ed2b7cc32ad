"""Shared fixtures: one compute thread, a small drawn data set, the real one where it is to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.data.demo import write_demo
from tests.support.machines.shared_ray import CPUS, SharedRay
from tests.support.servers.s3_server import Server, environment, s3_server


@pytest.fixture(scope="session", autouse=True)
def torch_threads() -> None:
    """One thread: several on a busy machine wait for one another, and sums then depend on their number."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Image caches of a test run go to its temporary folder, never to the user's own cache."""
    before = os.environ.get("FASHION_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["FASHION_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["FASHION_CACHE"]
    else:
        os.environ["FASHION_CACHE"] = before


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set: 96 training, 32 validation and 24 test images of 48 px. Don't write into it."""
    return write_demo(tmp_path_factory.mktemp("data") / "demo", train=96, val=32, test=24, size=48)


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The challenge's data ($FASHION_DATA or ../shared/FashionDataset beside the repository), or skip."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "FashionDataset"
    root = Path(os.environ.get("FASHION_DATA") or beside)
    if not (root / "split" / "train.txt").is_file():
        pytest.skip(f"no real data at {root}: set FASHION_DATA to the challenge's data set")
    return root


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRay]:
    """A Ray cluster of two CPUs. Leave it as it is; its tests are of the group `shared-ray`."""
    with SharedRay(tmp_path_factory.mktemp("shared-ray")) as cluster:
        cluster.add(cpus=CPUS)
        yield cluster


@pytest.fixture
def s3() -> Iterator[Server]:
    """An S3 server with the bucket `sweeps`, which this process's environment names."""
    with s3_server() as server, environment(server.env):
        server.make_bucket("sweeps")
        yield server


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: an empty cache folder."""
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "machine"))
    return tmp_path / "machine"
