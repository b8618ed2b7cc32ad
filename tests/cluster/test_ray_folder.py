"""Each command's Ray has a folder of its own, short enough for sockets, which goes with the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.cluster import ray_folder as module
from fashion.cluster.ray_folder import OWNER, PREFIX, ROOM, folder_above, private_token, ray_folder, remove_leftovers
from fashion.errors import ResourcesError


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest's own folders are too long for sockets: length is not what these tests are about."""
    monkeypatch.setattr(module, "ROOM", 1000)


@pytest.fixture(autouse=True)
def no_folders_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "_token", "")


def leftover(above: Path, owner: bool = True) -> Path:
    folder = above / f"{PREFIX}abcdefgh"
    (folder / "session_1").mkdir(parents=True)
    if owner:
        (folder / OWNER).touch()
    return folder


def test_ray_has_room_for_its_sockets() -> None:
    assert len("/tmp/rt.XXXXXX") <= ROOM
    assert ROOM + len(f"/{PREFIX}12345678") + len(module.SOCKET) == 107


def test_the_named_folder_is_used_and_made(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "new"))
    assert folder_above() == (tmp_path / "new", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "~/ray")
    assert folder_above() == (tmp_path / "ray", "")


def test_a_long_folder_gives_way_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELSEWHERE", ("/absent", "/tmp"))
    monkeypatch.setenv("TMPDIR", long := str(tmp_path / ("x" * 80)))
    folder, told = folder_above()
    assert folder == Path("/tmp")
    assert told.startswith(f"TMPDIR is {long}, where the paths of Ray's sockets are too long")


def test_no_folder_that_will_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELSEWHERE", ("/absent",))
    monkeypatch.setenv("TMPDIR", "/proc/absent")
    with pytest.raises(ResourcesError, match=r"^TMPDIR: .*got /proc/absent, .*Set RAY_TMPDIR"):
        folder_above()


def test_a_folder_goes_with_its_command(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    notes: list[str] = []
    with pytest.raises(ValueError, match="Ray"), ray_folder(notes.append) as folder:  # noqa: PT012
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "session_1" / "logs").mkdir(parents=True)
        remove_leftovers(tmp_path)  # as another command does when it starts
        assert (folder / "session_1").exists()
        raise ValueError("Ray did not start")
    assert list(tmp_path.iterdir()) == []
    assert notes == []


def test_what_a_killed_command_left_goes(tmp_path: Path) -> None:
    folder = leftover(tmp_path)
    remove_leftovers(tmp_path)
    assert not folder.exists()


def test_what_is_no_leftover_stays(tmp_path: Path) -> None:
    """A folder that is just being made, a link, and a session of Ray's own."""
    folder = leftover(tmp_path, owner=False)
    (tmp_path / f"{PREFIX}linkedxx").symlink_to(leftover(tmp_path / "elsewhere"))
    (tmp_path / "ray" / "session_2").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert folder.exists()
    assert (tmp_path / "elsewhere" / f"{PREFIX}abcdefgh").exists()
    assert (tmp_path / "ray" / "session_2").exists()


def test_a_leftover_waits_for_rays_processes(tmp_path: Path) -> None:
    folder = leftover(tmp_path)
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, f"--session={folder}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_leftovers(tmp_path)
        assert folder.exists()
        process.communicate(b"")
    remove_leftovers(tmp_path)
    assert not folder.exists()


def test_the_token_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    private_token(tmp_path / "unused")
    path = tmp_path / ".ray" / "auth_token"
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert len(token) == 64
    path.chmod(0o644)
    private_token(tmp_path / "unused")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == token
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_a_named_file_without_a_token_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(ResourcesError, match=r"^RAY_AUTH_TOKEN_PATH: .*can't be read \(No such file"):
        private_token(tmp_path)
    path.write_text("\n")
    with pytest.raises(ResourcesError, match=r"which is empty.*Unset it"):
        private_token(tmp_path)
    path.write_text("0" * 64)
    private_token(tmp_path)
    assert path.read_text() == "0" * 64


@pytest.mark.parametrize("home", ["read-only", "none"])
def test_without_a_home_the_command_has_a_token_of_its_own(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "home", no_home if home == "none" else lambda: tmp_path / "file")
    tokens = set()
    for name in ("first", "second"):  # Ray reads a token once in a process
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
        (tmp_path / name).mkdir()
        private_token(tmp_path / name)
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert path == tmp_path / name / "auth_token"
        assert path.stat().st_mode & 0o777 == 0o600
        tokens.add(path.read_text())
    assert len(tokens) == 1
