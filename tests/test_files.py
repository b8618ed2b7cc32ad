"""File systems that lack something: what works without it goes on, and says once what is lost."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fashion
from fashion import files
from fashion.data.contents import default_cache_dir
from fashion.errors import RunError, UserError, refusal
from fashion.files import (
    KernelLock,
    new_folder,
    remove_tree,
    rename_folder,
    restore_rights,
    submitted,
    sync_folder,
    write_atomic,
)
from fashion.record.journal import Journal, read_journal
from fashion.record.lock import HOLDER, RunLock, driver_alive


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_told", set())


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def raising(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_rights_are_those_of_the_umask(tmp_path: Path, umask: None) -> None:
    write_atomic(tmp_path / "file", b"x")
    Journal(tmp_path / "journal").close()
    folder = new_folder(tmp_path / "folder")
    with KernelLock(tmp_path / "lock"):
        pass
    for name, mode in {"file": 0o640, "journal": 0o640, "lock": 0o640, folder.name: 0o750}.items():
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_file_system_without_rights_and_fsync_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """exFAT refuses chmod; SMB and FUSE refuse the fsync of a folder."""
    fsync = os.fsync

    def only_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raising(errno.EINVAL)()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    monkeypatch.setattr(os, "chmod", raising(errno.EPERM))
    with caplog.at_level(logging.WARNING):
        write_atomic(tmp_path / "file", b"x")
        with Journal(tmp_path / "journal") as journal:
            journal.append({"event": "note"})
    assert (tmp_path / "file").read_bytes() == b"x"
    assert read_journal(tmp_path / "journal") == [{"event": "note"}]
    (told,) = caplog.messages
    assert "power cut" in told


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", raising(number))
    with pytest.raises(OSError, match=os.strerror(number)) as found:
        write_atomic(tmp_path / "file", b"x")
    assert found.value.errno == number
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(tmp_path)


def test_a_lock_is_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with KernelLock(path) as first:
        assert first.held
        assert not first.missing
        with pytest.raises(TimeoutError):
            KernelLock(path).acquire(timeout=0.0)
    assert not first.held
    first.release()
    with KernelLock(path) as second:
        assert second.held


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    with KernelLock(tmp_path / "lock"):
        (tmp_path / "lock").unlink()
        with KernelLock(tmp_path / "lock") as other:
            assert other.held


def test_what_a_file_system_may_lack_is_asked_for_here_alone() -> None:
    """Elsewhere it would be an error where it should be a warning. Ray's folder is on this machine, `doctor` measures,
    record/lock.py only looks, and the cache does without."""
    there = {"files.py", "cluster/ray_folder.py", "doctor/folder.py", "record/lock.py", "data/cache/use.py"}
    package = Path(fashion.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).as_posix() not in there:
            assert not re.search(r"os\.fsync\(|flock\(|lockf\(|filelock", path.read_text()), path


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_one_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(number))
    with caplog.at_level(logging.WARNING), RunLock(tmp_path), KernelLock(tmp_path / "other") as lock:
        assert lock.missing
        assert (tmp_path / HOLDER).exists()
        assert not driver_alive(tmp_path)  # it is this very process
    assert not (tmp_path / HOLDER).exists()
    (told,) = caplog.messages
    assert "no locks" in told


def test_without_locks_the_named_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK))
    (tmp_path / "lock").touch()
    here = os.uname().nodename
    for host, pid, alive in ((here, os.getppid(), True), ("elsewhere", 1, True), (here, 2**22 + 1, False)):
        (tmp_path / HOLDER).write_text(f'{{"pid": {pid}, "host": "{host}", "started": "today"}}')
        assert driver_alive(tmp_path) is alive
        if alive:
            with pytest.raises(RunError, match=f"process {pid} on {host}.*no locks"):
                RunLock(tmp_path).acquire()
            assert (tmp_path / HOLDER).exists()
    with RunLock(tmp_path):
        pass


def test_a_lock_that_may_not_be_read_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "", "lock")

    (tmp_path / "lock").touch()
    monkeypatch.setattr(os, "open", refused)
    assert not driver_alive(tmp_path)


def test_a_folder_in_which_somebody_still_writes_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    removed = []

    def late(path: Path, ignore_errors: bool) -> None:
        removed.append(path)
        if len(removed) == 2:
            path.rmdir()

    monkeypatch.setattr("fashion.files.shutil.rmtree", late)
    assert remove_tree(folder)
    assert len(removed) == 2
    folder.mkdir()
    assert not remove_tree(folder, seconds=0.0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "", "runs/a"), "runs/a: Input/output error. Its disk"),
        (OSError(errno.EDQUOT, "", "runs/a"), "quota"),
        (OSError(errno.ESTALE, "", "runs/a"), "Mount it again"),
        (OSError(errno.ENOTCONN, "", "runs/a"), "Mount it again"),
        (OSError(errno.EMFILE, "", "runs/a"), "ulimit -n"),
        (OSError(errno.ENODEV, "", "cache/a"), "can't map files into memory"),
    ],
)
def test_what_only_the_user_can_mend_is_a_sentence(error: OSError, words: str) -> None:
    assert words in refusal(error)


def test_a_socket_that_fails_is_no_disk() -> None:
    assert refusal(OSError(errno.ENOTCONN, "")) == ""
    assert refusal(OSError(errno.ENOENT, "", "absent")) == ""


def test_a_full_inode_table_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "", str(tmp_path / "absent" / "file"))
    assert "Free some space" in refusal(full)
    found = list(os.statvfs(tmp_path))
    found[7] = 0  # f_favail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(found))
    assert "no inode is left" in refusal(full)


@pytest.mark.parametrize(
    ("written", "most"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),  # half a CPU
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
        ({"cpu.max": "900000 100000\n"}, 8),
    ],
)
def test_a_containers_share_of_cpus_counts(
    written: dict[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in written.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(files, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert files.usable_cpus() == most


def test_without_a_home_folder_the_cache_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.delenv("FASHION_CACHE", raising=False)
    with pytest.raises(UserError, match="Set FASHION_CACHE"):
        default_cache_dir()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EXDEV])
def test_folders_that_can_not_be_renamed_are_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "rename", raising(number))
    moved: list[str] = []
    replace = os.replace

    def noted(one: Path, other: Path) -> None:
        moved.append(one.name)
        replace(one, other)

    monkeypatch.setattr(os, "replace", noted)
    (tmp_path / "new").mkdir()
    for name in ("a", "manifest.json", "z"):
        (tmp_path / "new" / name).touch()
    rename_folder(tmp_path / "new", tmp_path / "run", last="manifest.json")
    assert moved == ["a", "z", "manifest.json"]
    assert sorted(os.listdir(tmp_path / "run")) == ["a", "manifest.json", "z"]
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_refused_is_an_error(tmp_path: Path) -> None:
    for name in ("new", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        rename_folder(tmp_path / "new", tmp_path / "run", last="file")


def test_rights_are_given_back_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    mode = path.stat().st_mode | 0o040
    restore_rights(path, mode)
    assert path.stat().st_mode == mode
    path.chmod(0o600)
    monkeypatch.setattr(os, "chmod", raising(errno.EPERM))  # exFAT
    restore_rights(path, mode)
    monkeypatch.setattr(os, "chmod", raising(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        restore_rights(path, mode)


def test_work_that_python_s_end_refuses_ends_its_thread_without_an_error() -> None:
    """As a trial's, whose process is told to end while it trains."""
    code = """
import threading
from concurrent.futures import ThreadPoolExecutor
from fashion.files import submitted

pool = ThreadPoolExecutor(1)
begun = threading.Event()

def train():
    try:
        while True:
            submitted(pool, int).result()
            begun.set()
    except SystemExit as end:
        print(end, flush=True)

threading.Thread(target=train).start()
begun.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("Python is ending: cannot schedule new futures"), done
    assert (done.returncode, done.stderr) == (0, "")


def test_work_for_a_pool_that_was_closed_is_a_mistake() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert submitted(pool, int, "7").result() == 7
    with pytest.raises(RuntimeError, match="after shutdown"):
        submitted(pool, int)
