"""One exception tree: a user's mistake is a `UserError` (exit code 2, no traceback). Anything else is a bug."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

# Control characters, which a terminal obeys, and the surrogates that stand for bytes that are not UTF-8.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Text from a stranger's file, safe for a terminal: unprintable characters become escapes, line ends stay.

    Otherwise an escape sequence could clear the screen, and a change of writing direction could mislead.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )


def nearest(word: str, known: Sequence[str], otherwise: str = "") -> str:
    """'Did you mean X?', or `otherwise`."""
    close = difflib.get_close_matches(word.lower(), known, 1, 0.6)
    return f"Did you mean {close[0]}?" if close else otherwise


class FashionError(Exception):
    """Root of every exception that this package raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One problem: where it is, which rule applies there, which value was received, and how to fix it."""

    place: str
    rule: str
    value: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.rule}" if self.place else self.rule
        if self.value:
            text += f"; got {self.value}"
        if self.fix:
            text += f". {self.fix}"
        return printable(text)


class UserError(FashionError):
    """A mistake that the user can fix. The command line prints it without a traceback and exits with `exit_code`.

    It is made from a Problem, or from a sentence where there is nothing more to say. `problems` holds it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, problem: Problem | str) -> None:
        self.problems: tuple[Problem, ...] = (problem if isinstance(problem, Problem) else Problem("", problem),)
        super().__init__(problem)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class ProblemsError(UserError):
    """Several problems at once, below a heading."""

    def __init__(self, heading: str, problems: Sequence[Problem]) -> None:
        super().__init__(heading)
        self.heading = heading
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return printable("\n".join([self.heading, *(f"  {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[ProblemsError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.heading, self.problems)  # a worker's error must reach the driver in full


class SpecError(ProblemsError):
    """The sweep spec is not valid."""


class DataError(ProblemsError):
    """The data set can't be used."""


class WeightsError(UserError):
    """Pretrained weights are not available on this machine, or don't fit the backbone."""


class CheckpointError(UserError):
    """A checkpoint is missing, truncated or belongs to another configuration."""


class Superseded(FashionError):  # noqa: N818 (as TrialDiverged)
    """Another process has taken over this trial's folder, so what this one still has to write is not wanted."""


class Leaving(FashionError):  # noqa: N818 (as TrialDiverged)
    """This trial's machine will be taken away. Its state is saved where another machine can go on from it."""


class RunError(UserError):
    """A run directory is missing, locked, of another version, or belongs to another spec."""


class StorageError(UserError):
    """A bucket can't be read or written: it does not exist or does not answer, or the credentials don't suffice."""


class ResourcesError(UserError):
    """The cluster can never offer what the spec asks for."""


class ClusterError(UserError):
    """A cluster's job server does not answer, refuses the request, or has no such sweep."""


class BlockedError(UserError):
    """No trial can go on until something outside of the sweep is fixed, such as a full disk or a changed data set.

    The sweep stops and its trials stay unfinished, so that the same command goes on with them.
    """


class SubmissionError(ProblemsError):
    """A prediction file is not in the submission's form."""


class TrialDiverged(FashionError):  # noqa: N818 (this happens to a trial and is nobody's mistake)
    """The loss became NaN or infinite. The trial has failed; the sweep goes on."""


# Errors that only the user can fix, with what to do about them.
_REFUSALS = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space of your quota",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Make it writable for your user",
    errno.EPERM: "Make it writable for your user",
    errno.ENOTSUP: "Its file system lacks what is needed here: choose a folder on another one",
    errno.ENODEV: "Its file system can't map files into memory: choose a folder on another one",
    errno.EFBIG: "Its file system has no files that large: choose a folder on another one",
    errno.ENAMETOOLONG: "Choose a shorter name, or a folder on another file system",
    errno.EIO: "Its disk, or the connection to it, is failing: mend it, or choose another folder",
    errno.ESTALE: "Mount it again",
    errno.ENOTCONN: "Mount it again",
    errno.EHOSTDOWN: "Let the machine that it is on come back",
    errno.ENOLCK: "Choose a folder on a file system with locks",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Allow more open files (sysctl fs.file-max)",
}


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line of an exception's text that is not blank, or else its class; at most `most` characters. Ray's go
    on for twenty lines."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:most]


# Sockets fail with these, too, which is nothing that a disk has to do with.
_OF_SOCKETS = (errno.ENOTCONN, errno.EHOSTDOWN)


def refusal(error: BaseException, path: str = "") -> str:
    """What to tell the user where the file system refuses to write or to read (full, read-only, no permission, a disk
    or a connection that fails); else empty.

    `path` is used in the message instead of the error's own file name.
    """
    if isinstance(error, BlockedError):
        return str(error)
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return ""
    named = path or (str(error.filename) if error.filename else "")
    if not named and error.errno in _OF_SOCKETS:
        return ""
    mend = _REFUSALS[error.errno]
    if error.errno == errno.ENOSPC and _without_inodes(named):
        mend = "Delete some files: there is space, but no inode is left (df -i)"
    return f"{named or 'disk'}: {os.strerror(error.errno)}. {mend}; then the same command goes on."


def _without_inodes(path: str) -> bool:
    """Whether the file system that `path` is on, or would be, has no room for another file, however small."""
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path or ".")
    return found.f_files > 0 and found.f_favail == 0
