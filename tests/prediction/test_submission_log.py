"""The ledger of uploads: what is entered is there once, whole, and readable by people."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from fashion.errors import UserError
from fashion.prediction.submission_log import SubmissionLog


def test_entries_and_scores(tmp_path: Path) -> None:
    log = SubmissionLog(tmp_path / "runs")
    assert log.entries() == []
    assert not (tmp_path / "runs").exists(), "reading makes nothing"
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.zip")
        files[-1].write_bytes(b"x" * (number + 1))
        log.add(files[-1], "backbones", number, 10)
    entry, new = log.add(files[1], "other", None, None)
    assert (new, entry.run, entry.trial) == (False, "backbones", 1)
    digest = hashlib.sha256(b"xx").hexdigest()
    assert log.score(digest[:8].upper(), 0.81).file == str(files[1])
    lines = [json.loads(line) for line in (tmp_path / "runs" / "submissions.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [None, 0.81, None]
    assert lines[1]["sha256"] == digest
    assert lines[1]["bytes"] == 2
    assert lines[1]["scored"]


@pytest.mark.parametrize("name", ["a\u2028b.zip", "a\x85b.zip", os.fsdecode(b"a\xf1b.zip"), "連衣裙.zip"])
def test_a_file_of_any_name_is_entered(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    log = SubmissionLog(tmp_path / "runs")
    log.add(tmp_path / name, "r", 0, 1)
    (entry,) = log.entries()
    assert entry.file == str(tmp_path / name)


def test_what_is_no_entry_is_told(tmp_path: Path) -> None:
    log = SubmissionLog(tmp_path)
    with pytest.raises(UserError, match="must be a submission's file"):
        log.add(tmp_path / "none.zip", "r", None, None)
    with pytest.raises(UserError, match="Enter the file first"):
        log.score("abcd", 0.5)
    (tmp_path / "a.zip").write_bytes(b"a")
    entry, _ = log.add(tmp_path / "a.zip", "r", None, None)
    before = log.path.read_bytes()
    for digest, score, rule in [
        ("ffff", 0.5, f"There are: {entry.sha256[:12]}"), (entry.sha256[:2], 0.5, "4 digits or more"),
        (entry.sha256, 81.0, "a share from 0 to 1"), (entry.sha256, float("nan"), "a share from 0 to 1"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=rule):
            log.score(digest, score)
    assert log.path.read_bytes() == before
    for line in ("{", "[]", '{"file": 1}', '{"file": 1, "sha256": "a", "bytes": 1, "added": "", "run": "r"}'):
        log.path.write_text(f"{line}\n")
        with pytest.raises(UserError, match=r"submissions.jsonl:1: is no entry of the ledger"):
            log.entries()
