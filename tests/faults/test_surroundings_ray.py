"""A sweep where little is given: a foreign package in the folder, hardly any shared memory, a private umask."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fashion.record.run import Run
from tests.support.running import PATIENCE, one_by_one

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.xdist_group("kill")]

SMALL_SHM = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m shm /dev/shm && exec "$@"', "sh"]


def test_a_sweep_in_poor_surroundings(tmp_path: Path, demo_root: Path) -> None:
    """Workers import the package that the command runs, relative paths are found, and nothing of Ray's stays."""
    (tmp_path / "fashion").mkdir()
    (tmp_path / "fashion" / "__init__.py").write_text("raise ImportError('the package in the current folder')\n")
    shutil.copytree(demo_root, tmp_path / "data")
    (tmp_path / "k.yaml").write_text(one_by_one(Path("data"), trials=1, epochs=1))
    temporary = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    command = [sys.executable, "-P", "-m", "fashion", "run", "k.yaml"]
    if subprocess.run([*SMALL_SHM, "true"], capture_output=True).returncode == 0:
        command = [*SMALL_SHM, *command]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, umask=0o027,
            env={**os.environ, "RAY_TMPDIR": str(temporary)},
        )  # fmt: skip
        assert done.returncode == 0, done
        assert list(temporary.iterdir()) == []
    finally:
        shutil.rmtree(temporary)
    run = Run.open(tmp_path / "runs" / "k")
    assert run.trials[0].status == "completed"
    for path in (run.path, *run.path.rglob("*")):
        wanted = 0o750 if path.is_dir() else 0o640
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
