"""Workers import the package that the command runs, whatever lies in the folder where it was typed."""

from __future__ import annotations

import site
from pathlib import Path

import pytest

from fashion.cluster.code_path import folders_for_workers
from fashion.errors import BlockedError
from fashion.training.task import code_here, require_code


def test_a_checkout_stands_first(tmp_path: Path) -> None:
    assert folders_for_workers(joined=False, above=tmp_path, environment={}) == [str(tmp_path)]


def test_nodes_of_a_running_cluster_have_packages_of_their_own(tmp_path: Path) -> None:
    assert folders_for_workers(joined=True, above=tmp_path, environment={}) == []


def test_an_installed_package_stays_in_its_place() -> None:
    """In front of the standard library, site-packages would shadow modules of it, and what is on PYTHONPATH."""
    above = Path(site.getsitepackages()[0])
    assert folders_for_workers(joined=False, above=above, environment={}) == []
    assert folders_for_workers(joined=True, above=above, environment={}) == []


def test_pythonpath_is_inherited_by_workers_that_start_here(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": f"/elsewhere:{tmp_path}/"}
    assert folders_for_workers(joined=False, above=tmp_path, environment=environment) == []


def test_a_worker_with_other_code_is_refused() -> None:
    require_code(code_here())
    require_code("")  # a task that does not say
    with pytest.raises(BlockedError, match=r"0\.1\+other.*same sources") as found:
        require_code("0.1+other")
    assert code_here() in str(found.value)
    assert found.value.exit_code == 2
