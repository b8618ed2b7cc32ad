"""A sweep that goes on under other versions: the record says which trial was trained under which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fashion.cli.main import main
from fashion.record.excerpt import load, save
from fashion.record.manifest import changed_versions, package_versions, versions_in_words, versions_of
from fashion.record.promote import promote
from fashion.record.run import Run
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record

BEGAN = {"code_version": "0.0.9+000000000000", "packages": {"torch": "2.0.0", "gone": "1.0"}}
NOW = {"torch": "2.13.0", "gone": ""}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Trials 0 and 1 were trained as the run began, 3 after an upgrade; 1 went on after it."""
    manifest: dict[str, Any] = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(tmp_path / "runs", "lr", {**manifest, **BEGAN})
    record(run, 0, [0.9, 0.8, 0.7, 0.6])
    record(run, 1, [0.9])
    run.changed_versions = NOW
    run.record_attempt(1)
    record(run, 3, [0.9, 0.4, 0.5, 0.6])
    return run


def test_attempts_know_what_was_different(run: Run) -> None:
    again = Run.open(run.path)
    assert [again.trials[number].each_versions() for number in (0, 1, 3)] == [[{}], [{}, NOW], [NOW]]
    save(again)
    known = load(again.journal_path)
    assert known is not None
    assert {n: t.versions for n, t in known[0].items()} == {n: t.versions for n, t in again.trials.items()}


def test_a_record_without_versions_means_the_manifests(run: Run) -> None:
    lines = [json.loads(line) for line in run.journal_path.read_text().splitlines()]
    assert not any("versions" in line for line in lines if line.get("trial") == 0)
    assert sum("versions" in line for line in lines) == 2


def test_a_trial_that_is_taken_has_the_versions_of_that_moment(run: Run) -> None:
    run.record_taken(1, "other", 5)
    assert run.trials[1].each_versions() == [NOW]
    run.changed_versions = {}
    run.record_attempt(1)  # trained here after all
    assert run.trials[1].each_versions()[-1] == {}


def test_what_differs_from_the_manifest_is_found(run: Run) -> None:
    now = changed_versions(run.manifest)
    assert now["gone"] == ""
    assert now["torch"] not in ("", "2.0.0")
    assert now["fashion-sweep"].startswith("0.")
    assert not changed_versions({"code_version": now["fashion-sweep"], "packages": package_versions()})
    words = versions_in_words(run.manifest, {"torch": "2.13.0", "gone": "", "timm": "1.0"})
    assert words == "torch 2.13.0 instead of 2.0.0, gone none instead of 1.0, timm 1.0 instead of none"


def test_show_and_best_say_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.close()
    storage = ["--storage", str(run.path.parent)]
    main(["show", "lr", *storage])
    said = " ".join(capsys.readouterr().out.split())
    assert "under other versions than the run began with: trials 1, 3 (torch 2.13.0 instead of 2.0.0, gone" in said
    main(["show", "lr", "--trial", "1", *storage])
    assert "attempt 2 under other versions than the run began with: torch 2.13.0" in capsys.readouterr().out
    main(["show", "lr", "--json", *storage])
    trials = json.loads(capsys.readouterr().out)["recorded"]
    assert [trial["versions"] for trial in trials] == [
        [],
        [{"attempt": 2, "changed": NOW}],
        [{"attempt": 1, "changed": NOW}],
    ]
    versions = json.loads((promote(run) / "model.json").read_text())["versions"]
    assert versions == {"fashion-sweep": "0.0.9+000000000000", "torch": "2.13.0"}
    assert versions_of(run.manifest)["torch"] == "2.0.0"
