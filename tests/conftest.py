"""Shared fixtures: one compute thread, data sets, an S3 server, a Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fashion.data.demo import write_demo
from tests.support.machines.shared_ray import CPUS, SharedRay
from tests.support.servers.s3_server import Server, environment, s3_server

settings.register_profile("tests", max_examples=50, deadline=None)  # where a test names no other number
settings.load_profile("tests")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without its groups, pytest-xdist would start in each process anew what the tests of a group share."""
    if getattr(config.option, "loadgroup", False):
        lost = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(f"pytest-xdist does not see the group of {lost[0]}: see pytest in setup.cfg")


@pytest.fixture(scope="session", autouse=True)
def torch_threads() -> None:
    """One thread: several wait for one another on a busy machine, and sums depend on how many there are."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Ctrl-C is heard, also by the commands that tests start: a shell's background job, `make test &`, ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (
        signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ):  # `nohup make test`: commands hear of it, this process does not
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Image caches go to a temporary folder, never to the user's own cache."""
    before = os.environ.get("FASHION_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["FASHION_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["FASHION_CACHE"]
    else:
        os.environ["FASHION_CACHE"] = before


@pytest.fixture(scope="module", autouse=True)
def environment_of_one_module() -> Iterator[None]:
    """What a module sets in this process's environment, or Ray on its behalf, is gone before the next one."""
    before = dict(os.environ)
    yield
    for key in os.environ.keys() - before.keys():
        del os.environ[key]
    os.environ.update(before)


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
    """A Ray cluster of two CPUs. Leave it as it is. Its tests are of the groups `shared-ray`,
    `shared-ray-2` and `shared-ray-3`: each runs in one process and has a cluster of its own."""
    with SharedRay(tmp_path_factory.mktemp("shared-ray")) as cluster:
        cluster.add(cpus=CPUS)
        yield cluster


@pytest.fixture
def s3() -> Iterator[Server]:
    """An S3 server with the bucket `sweeps`; this process's environment names it."""
    with s3_server() as server, environment(server.env):
        server.make_bucket("sweeps")
        yield server


@pytest.fixture(scope="module")
def cache_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the test module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASHION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new machine: its cache folder is empty."""
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "machine"))
    return tmp_path / "machine"
