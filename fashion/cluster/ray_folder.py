"""The folder of the Ray that a command starts on this machine: its sockets, logs and spilled objects.

Each command has one of its own, which goes when the command ends; Ray itself would leave a session's files for ever.
What a killed command left goes when the next one starts. A cluster that somebody else has started is never touched.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fashion.cluster.interrupts import deferred
from fashion.cluster.processes import mentioned
from fashion.errors import Problem, ResourcesError
from fashion.files import remove_tree

PREFIX = "fsw-"
OWNER = "owner"  # locked by the command, as long as it lives
# What Ray appends for its longest socket. Linux counts processes to 2 ** 22.
SOCKET = "/session_2026-11-28_18-35-43_123456_4194304/sockets/plasma_store"
MOST_BYTES = 107  # of a socket's path
ROOM = MOST_BYTES - len(f"/{PREFIX}12345678") - len(SOCKET)  # for the folder in which it is made
WANTED = ("RAY_TMPDIR", "TMPDIR")
ELSEWHERE = ("/tmp", "/var/tmp", "/dev/shm")

_token = ""  # of this process: Ray reads a token once


def folder_above() -> tuple[Path, str]:
    """Where a command's Ray folder is made, and what is to be told: why it is not the one that the environment names.

    Raises ResourcesError where no folder will do.
    """
    named = [(name, os.environ[name]) for name in WANTED if os.environ.get(name)][:1]
    refused: list[tuple[str, str, str]] = []
    for name, text in [*named, *(("", place) for place in ELSEWHERE)]:
        path = os.path.abspath(os.path.expanduser(text))
        why = _unfit(path, make=bool(name))
        if not why:
            told = [
                f"{name} is {found}, where {reason}: Ray's files are in {path}" for name, found, reason in refused[:1]
            ]
            return Path(path), (told[0] if told and named else "")
        refused.append((name, text, why))
    name, text, why = refused[0]
    rule = f"must be a folder for Ray's files that can be written to, of at most {ROOM} characters"
    raise ResourcesError(
        Problem(name or "the temporary folder", rule, f"{text}, where {why}", "Set RAY_TMPDIR to such a folder")
    )


def _unfit(path: str, make: bool) -> str:
    """Why Ray's files can't be below `path`; empty if they can."""
    if len(os.fsencode(path)) > ROOM:
        return f"the paths of Ray's sockets are too long (at most {ROOM} characters are possible)"
    try:
        if make:
            os.makedirs(path, exist_ok=True)
        elif not os.path.isdir(path):
            return "there is no folder"
    except OSError as error:
        return f"no folder can be made ({error.strerror})"
    return "" if os.access(path, os.W_OK | os.X_OK) else "nothing can be written"


@contextmanager
def ray_folder(note: Callable[[str], None]) -> Iterator[Path]:
    """A folder that only this user can read, removed at the end of the `with` block. Raises ResourcesError where there
    can be none."""
    above, told = folder_above()
    if told:
        note(told)
    remove_leftovers(above)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
        owner = _owned(folder)
    except OSError as error:
        rule, fix = "must be a folder for Ray's files that can be written to", "Set RAY_TMPDIR to another folder"
        raise ResourcesError(Problem(str(above), rule, str(error.strerror), fix)) from error
    try:
        yield folder
    finally:
        with deferred():
            remove_tree(folder)
            os.close(owner)


def _owned(folder: Path) -> int:
    """Mark the folder as that of a living command. Returns the file that must stay open."""
    handle, name = tempfile.mkstemp(dir=folder)
    with suppress(OSError):  # a file system without locks: nobody else can lock it either, so it is never a leftover
        fcntl.flock(handle, fcntl.LOCK_EX)
    os.rename(name, folder / OWNER)  # locked before it has the name by which others look for it
    return handle


def remove_leftovers(above: Path) -> None:
    """Remove the folders of this user's commands that were killed, once Ray's processes have ended, too."""
    for folder in above.glob(f"{PREFIX}????????"):
        with suppress(OSError):  # another user's, or another command has just removed it
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            handle = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not mentioned(str(folder)):
                    remove_tree(folder, seconds=0.0)
            finally:
                os.close(handle)


def private_token(folder: Path) -> None:
    """Make a token for the cluster that starts here, unless there is one. Only who holds it is let in.

    Ray would make one itself, but readable by everybody on the machine, and two sweeps that start at the same time
    would overwrite each other's. It is kept in ~/.ray; where nothing can be written there, or there is no home, this
    command has one of its own in its Ray `folder`, which RAY_AUTH_TOKEN_PATH then names. Raises OSError where it can't
    be written either, ResourcesError where RAY_AUTH_TOKEN_PATH names a file without one.
    """
    global _token
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        _require_token(Path(named))
        return
    try:
        _token_at_home()
    except (OSError, RuntimeError):  # RuntimeError: pathlib finds no home
        _token = _token or secrets.token_hex(32)
        own = folder / "auth_token"
        handle = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(_token)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(own)


def _require_token(path: Path) -> None:
    try:
        why = "" if path.read_bytes().strip() else "which is empty"
    except OSError as error:
        why = f"which can't be read ({error.strerror})"
    if why:
        rule, fix = "must name a file that holds a token for Ray", "Unset it: the command then makes a token itself"
        raise ResourcesError(Problem("RAY_AUTH_TOKEN_PATH", rule, f"{path}, {why}", fix))


def _token_at_home() -> None:
    path = Path.home() / ".ray" / "auth_token"
    if path.exists():
        if path.stat().st_mode & 0o077:
            with suppress(OSError):  # mounted read-only, with the rights that its owner has chosen
                path.chmod(0o600)
        with open(path, "rb"):
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".auth_token.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another sweep was faster: its token serves both
        except OSError:
            if not path.exists():  # a file system without links
                os.rename(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
