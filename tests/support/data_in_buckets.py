"""A small data set, and how it is pushed to the tests' bucket."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fashion.bucket.address import Address, parse_address
from fashion.config.data import Form
from fashion.data.demo import write_demo
from fashion.data.layout import read_dataset
from fashion.data.remote.push import Sent, push
from tests.support.servers.s3_server import Server

IMAGES, LISTS = 60, 8  # files of the data set below
HERE = parse_address("s3://sweeps/data/demo")
FORM = Form(24)


def quiet(label: str, done: int, total: int) -> None:
    pass


def pushed(root: Path, address: Address = HERE, *forms: Form, replace: bool = False) -> Sent:
    return push(read_dataset(root), address, forms, replace, quiet)


def names(server: Server, method: str) -> list[str]:
    """The objects that requests with this method named; lists of objects are left out."""
    return [path.removeprefix("/sweeps/") for verb, path in server.requests if verb == method and "?list" not in path]


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller than other tests' data set: the S3 server takes 10 ms for each image."""
    return write_demo(tmp_path_factory.mktemp("data") / "demo", train=40, val=12, test=8, size=32)


@pytest.fixture
def copy_of_demo(tmp_path: Path, demo_root: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(demo_root, tmp_path / "mine"))
