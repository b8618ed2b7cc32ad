"""The challenge's submission format: writing it and reading it back.

`prediction.txt` has one line per image, in the order of the split's list: the class index of each attribute, separated
by single spaces. Each line ends with a newline. `prediction.txt.zip` holds that file alone, at its root. Every byte is
determined by the predictions: the same predictions give the same archive.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fashion.errors import Problem, SubmissionError
from fashion.files import write_atomic

TEXT_NAME = "prediction.txt"
ARCHIVE_NAME = "prediction.txt.zip"
_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date keeps the archive's bytes reproducible
_SHOWN = 20  # problems of a file that are listed; further ones are only counted
SURPRISE = 0.01  # probability, below which it is a surprise that images of such shares lack a class
_MOST_DIGITS = 18  # of an index that is read: a longer one is too large in any case
_LARGEST_TEXT = 1 << 30  # bytes to which a member may unpack, so that an archive bomb can't fill the memory


@dataclass(frozen=True)
class Submission:
    """The files that `write_submission` wrote."""

    text: Path
    archive: Path


def write_submission(classes: np.ndarray, directory: Path) -> Submission:
    """Write class indices (N, heads) as `prediction.txt` and `prediction.txt.zip` into `directory`, each atomically.

    Raises ValueError for anything but a two-dimensional array of non-negative integers.
    """
    if classes.ndim != 2 or not np.issubdtype(classes.dtype, np.integer) or (classes.size and classes.min() < 0):
        raise ValueError(f"expected non-negative integers of shape (N, heads), got {classes.dtype} {classes.shape}")
    content = "".join(" ".join(map(str, row)) + "\n" for row in classes.tolist()).encode("ascii")
    member = zipfile.ZipInfo(TEXT_NAME, _FIRST_ZIP_DATE)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3  # Unix on all machines: the default depends on the machine
    member.external_attr = 0o100644 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content)
    directory.mkdir(parents=True, exist_ok=True)
    submission = Submission(directory / TEXT_NAME, directory / ARCHIVE_NAME)
    write_atomic(submission.text, content)
    write_atomic(submission.archive, buffer.getvalue())
    return submission


def validate_submission(
    path: Path,
    rows: int,
    class_counts: Sequence[int],
    names: Sequence[str] | None = None,
    expected: np.ndarray | None = None,
) -> list[str]:
    """Read a `.txt` or `.zip` submission and check its format. Returns warnings about collapsed heads.

    `rows` is the number of images, `class_counts` the number of classes of each head in column order, `names` the
    heads' names for messages. `expected` (N, heads) are the classes that the lines must state, which checks their
    order, too. Raises SubmissionError with every problem found.
    """
    problems: list[Problem] = []
    content = _content(path, problems)
    classes = _parse(content, path.name, class_counts, problems) if content is not None else None
    if classes is not None and len(classes) != rows:
        problems.append(Problem(path.name, f"must have one line per image: {rows}", f"{len(classes)} lines"))
    elif classes is not None and expected is not None:
        for line in range(rows):
            if classes[line] is not None and classes[line] != expected[line].tolist():
                stated, wanted = (" ".join(map(str, row)) for row in (classes[line] or [], expected[line].tolist()))
                rule = f"must state the prediction of its own image ({wanted})"
                problems.append(Problem(f"{path.name}:{line + 1}", rule, stated))
    if problems:
        left = len(problems) - _SHOWN
        shown = problems[:_SHOWN] + ([Problem(path.name, f"{left} more problems")] if left > 0 else [])
        raise SubmissionError(f"{path} is not a valid submission:", shown)
    whole = np.array(classes, dtype=np.int64).reshape(rows, len(class_counts))
    return collapsed_heads(whole, class_counts, names)


def collapsed_heads(
    classes: np.ndarray,
    class_counts: Sequence[int],
    names: Sequence[str] | None = None,
    class_names: Sequence[Sequence[str]] | None = None,
    shares: Sequence[Sequence[float]] | None = None,
) -> list[str]:
    """A warning for each head whose predictions are all the same class, and one for classes that are never predicted.

    `classes` are the predictions (N, heads), `names` the heads' names, `class_names` the names of their classes,
    without which indices are shown. `shares`: how often each class occurs among the training images, in [0, 1]; a class
    is then told only where so many images without it, or with nothing else, would be a surprise. A well-formed file can
    still be worthless: one column of the challenge report's own submission is constant.
    """
    labels = list(names or (f"attribute {head + 1}" for head in range(len(class_counts))))
    shown = class_names or [[str(index) for index in range(count)] for count in class_counts]
    warnings, unused, images = [], [], len(classes)
    for head, (label, count) in enumerate(zip(labels, class_counts, strict=True)):
        seen = np.unique(classes[:, head])
        share = shares[head] if shares is not None else None
        if images > 1 and count > 1 and len(seen) == 1:
            if share is None or share[seen[0]] ** images < SURPRISE:
                warnings.append(
                    f"{label}: every one of the {images} images is predicted as class {shown[head][seen[0]]}"
                )
        elif len(seen) < count:
            absent = [index for index in range(count) if index not in seen]
            told = [index for index in absent if share is None or (1.0 - share[index]) ** images < SURPRISE]
            if told:
                unused.append(f"{label} {', '.join(shown[head][index] for index in told)}")
    if unused and images > 1:
        warnings.append(f"classes that are never predicted: {'; '.join(unused)}")
    return warnings


def _content(path: Path, problems: list[Problem]) -> bytes | None:
    """The bytes of prediction.txt: `path` itself, or the single member of a zip; None where they can't be read."""
    if not path.is_file():
        problems.append(Problem(str(path), "the file must exist"))
        return None
    if path.suffix.lower() != ".zip":
        if path.stat().st_size > _LARGEST_TEXT:
            problems.append(Problem(path.name, "must be at most 1 GiB", f"{path.stat().st_size} bytes"))
            return None
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if members != [TEXT_NAME]:
                rule = f"must hold the single file {TEXT_NAME} at its root"
                fix = "Zip the file itself, not its folder"
                problems.append(Problem(path.name, rule, ", ".join(members[:5]) or "an empty archive", fix))
                return None
            size = archive.getinfo(TEXT_NAME).file_size
            if size > _LARGEST_TEXT:
                problems.append(Problem(path.name, f"{TEXT_NAME} must be at most 1 GiB", f"{size} bytes"))
                return None
            return archive.read(TEXT_NAME)
    except Exception as error:
        # The archive's header names the decompressor, and each has exceptions of its own for damaged bytes.
        problems.append(Problem(path.name, "must be a whole zip archive that needs no password", str(error)))
        return None


def _parse(content: bytes, place: str, class_counts: Sequence[int], problems: list[Problem]) -> list[list[int] | None]:
    """Each line's class indices; None for a malformed line, whose problem is added."""
    if not content:
        return []
    if not content.endswith(b"\n"):
        problems.append(Problem(place, "the last line must end with a newline"))
    lines: list[list[int] | None] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        words, where, shown = line.split(b" "), f"{place}:{number}", ascii(line[:40].decode("latin-1"))
        if not all(word.isdigit() for word in words):
            problems.append(Problem(where, "must be class indices separated by single spaces", shown))
        elif len(words) != len(class_counts):
            problems.append(Problem(where, f"must have {len(class_counts)} columns", f"{len(words)}: {shown}"))
        elif any(len(word) > 1 and word.startswith(b"0") for word in words):
            problems.append(Problem(where, "indices must be written without leading zeros", shown))
        else:
            row = [int(word[:_MOST_DIGITS]) for word in words]
            for column, (index, count) in enumerate(zip(row, class_counts, strict=True), start=1):
                if index >= count:
                    problems.append(Problem(f"{where}, column {column}", f"must be 0 to {count - 1}", str(index)))
            lines.append(row)
            continue
        lines.append(None)
    return lines
