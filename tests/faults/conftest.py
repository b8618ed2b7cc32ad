"""Fixtures of the tests of faults: a sweep that was left alone, and the same one to be disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.running import fashion, one_by_one


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """The folder of a finished sweep of two trials of eight epochs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "k.yaml").write_text(one_by_one(demo_root))
    done = fashion(folder, "run", "k.yaml")
    assert done.returncode == 0, done
    return folder


@pytest.fixture
def folder(tmp_path: Path, demo_root: Path) -> Path:
    """A folder in which the same sweep runs anew, to be disturbed."""
    (tmp_path / "k.yaml").write_text(one_by_one(demo_root))
    return tmp_path
