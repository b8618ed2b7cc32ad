"""The ledger of uploads: which file was sent when, which run and trial it is of, and what it scored.

It is one JSON Lines file beside the runs, `submissions.jsonl`, that anyone may read, and edit: a line per upload with
file, sha256, bytes, added, run, trial, epoch, score and scored (when the score was entered).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fashion.errors import Problem, UserError
from fashion.files import KernelLock, now, parse, write_atomic

NAME = "submissions.jsonl"
PATIENCE = 60  # seconds to wait for another writer
SHORTEST = 4  # hexadecimal digits that name an entry


@dataclass(frozen=True)
class LoggedSubmission:
    """One upload. added, scored: ISO 8601. trial, epoch, score: None where not known."""

    file: str
    sha256: str
    bytes: int
    added: str
    run: str
    trial: int | None = None
    epoch: int | None = None
    score: float | None = None
    scored: str = ""


class SubmissionLog:
    """The ledger in a folder of runs. Reading makes no file. Each change is on disk as a whole before it returns."""

    def __init__(self, storage: str | Path) -> None:
        self.path = Path(storage) / NAME

    def entries(self) -> list[LoggedSubmission]:
        """In the order in which they were added. Raises UserError for a line that is no entry."""
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")  # a name may hold other line ends
        except FileNotFoundError:
            return []
        except (UnicodeDecodeError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(Problem(str(self.path), "must be a ledger of submissions", str(error))) from error
        return [self._entry(number, line) for number, line in enumerate(lines, start=1) if line.strip()]

    def add(self, file: Path, run: str, trial: int | None, epoch: int | None) -> tuple[LoggedSubmission, bool]:
        """Enter a file. Returns its entry, and whether it is new: the same bytes are entered once.

        Raises UserError for a file that can't be read."""
        try:
            content = file.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            rule = "must be a submission's file"
            raise UserError(Problem(str(file), rule, fix="fashion-sweep best --predict writes one")) from None
        digest = hashlib.sha256(content).hexdigest()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():
            entries = self.entries()
            for known in entries:
                if known.sha256 == digest:
                    return known, False
            entry = LoggedSubmission(str(file), digest, len(content), now(), run, trial, epoch)
            self._write([*entries, entry])
        return entry, True

    def score(self, digest: str, score: float) -> LoggedSubmission:
        """Enter what the upload whose sha256 begins with `digest` has scored, a share in [0, 1].

        Raises UserError where no entry, or more than one, begins so, and for another score."""
        if not math.isfinite(score) or not 0.0 <= score <= 1.0:
            raise UserError(Problem("SCORE", "must be a share from 0 to 1", f"{score:g}", "For example 0.8097"))
        if not self.path.parent.is_dir():
            raise UserError(self._none(digest, []))
        with self._lock():
            entries = self.entries()
            found = [each for each in entries if each.sha256.startswith(digest.lower())]
            if len(found) != 1 or len(digest) < SHORTEST:
                raise UserError(self._none(digest, found or entries))
            scored = replace(found[0], score=score, scored=now())
            self._write([scored if each is found[0] else each for each in entries])
        return scored

    def _none(self, digest: str, entries: list[LoggedSubmission]) -> Problem:
        listed = ", ".join(each.sha256[:12] for each in entries[:10])
        fix = f"There are: {listed}" if listed else "Enter the file first: fashion-sweep submission log add FILE"
        return Problem("HASH", f"must be the beginning, of {SHORTEST} digits or more, of one entry's hash", digest, fix)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            lock = KernelLock(self.path.with_name(f".{NAME}.lock")).acquire(PATIENCE)
        except TimeoutError:
            raise UserError(Problem(str(self.path), f"another process has been writing it for {PATIENCE} s")) from None
        try:
            yield
        finally:
            lock.release()

    def _write(self, entries: list[LoggedSubmission]) -> None:
        lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in entries]
        # A name that is not UTF-8 becomes JSON's own escape.
        write_atomic(self.path, "".join(lines).encode(errors="backslashreplace"))

    def _entry(self, number: int, line: str) -> LoggedSubmission:
        try:
            content: dict[str, Any] = parse(line)
            entry = LoggedSubmission(**content)
            right = isinstance(entry.file, str) and isinstance(entry.sha256, str) and isinstance(entry.run, str)
            if not right or not (entry.score is None or isinstance(entry.score, int | float)):
                raise TypeError("an entry of another kind")
        except (TypeError, ValueError) as error:
            fix = "Mend the line, or remove it"
            raise UserError(Problem(f"{self.path}:{number}", "is no entry of the ledger", str(error), fix)) from error
        return entry
