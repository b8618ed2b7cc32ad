"""One exception tree: a user's mistake is a `UserError` (exit code 2, no traceback); anything else is a bug."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

# Control characters, which a terminal obeys, and the surrogates that stand for bytes that are no UTF-8.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Text of a stranger's file for a terminal: what does not print is spelt out (an escape sequence could clear the
    screen, a reversed text could lie), line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )


class FashionError(Exception):
    """Root of every exception that this package raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One finding: where it is, which rule is broken, what was received and how to mend it."""

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
    """A mistake that the user can mend. The command line prints it without a traceback and ends with `exit_code`.

    It is made of a Problem, or of one sentence where there is nothing more to say; `problems` holds it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, problem: Problem | str) -> None:
        self.problems: tuple[Problem, ...] = (problem if isinstance(problem, Problem) else Problem("", problem),)
        super().__init__(problem)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class ProblemsError(UserError):
    """Several problems reported at once, below a heading."""

    def __init__(self, heading: str, problems: Sequence[Problem]) -> None:
        super().__init__(heading)
        self.heading = heading
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return printable("\n".join([self.heading, *(f"  {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[ProblemsError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.heading, self.problems)  # a worker's error must reach the driver whole


class SpecError(ProblemsError):
    """The sweep spec is not valid."""


class DataError(ProblemsError):
    """The data set can't be used."""


class WeightsError(UserError):
    """Pretrained weights can't be had on this machine, or don't fit the backbone."""


class CheckpointError(UserError):
    """A checkpoint is missing, truncated or belongs to another configuration."""


class Superseded(FashionError):  # noqa: N818 (as TrialDiverged)
    """Another process has taken over this trial's folder: what this one still has to write is not wanted."""


class Leaving(FashionError):  # noqa: N818 (as TrialDiverged)
    """This trial's machine will be taken away: its state is where another can go on from it."""


class RunError(UserError):
    """A run directory is missing, locked, of another version, or belongs to another spec."""


class StorageError(UserError):
    """A bucket can't be read or written: no such one, no credentials, or it does not answer."""


class ResourcesError(UserError):
    """The cluster can never offer what the spec asks for."""


class ClusterError(UserError):
    """A cluster's job server does not answer or refuses, or has no such sweep."""


class BlockedError(UserError):
    """No trial can go on until something outside of them is mended: a full disk, a data set that has changed. The sweep
    stops and its trials stay unfinished, so that the same command goes on."""


class SubmissionError(ProblemsError):
    """A prediction file is not in the submission's form."""


class TrialDiverged(FashionError):  # noqa: N818 (what happened to a trial, no mistake of anyone's)
    """The loss became NaN or infinite: the trial is failed, the sweep goes on."""


# What a file system says no to, whatever the program does.
_REFUSALS = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space of your quota",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Make it writable for you",
    errno.EPERM: "Make it writable for you",
}


def refusal(error: BaseException, place: str = "") -> str:
    """What to tell of a write that the file system refuses (full, read-only, not yours); empty for any other error."""
    if isinstance(error, BlockedError):
        return str(error)
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return ""
    where = place or str(error.filename or "disk")
    return f"{where}: {os.strerror(error.errno)}. {_REFUSALS[error.errno]}; then the same command goes on."
