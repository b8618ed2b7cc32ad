"""Two commands at once, and run directories that another version wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fashion.record.manifest import FORMAT
from fashion.record.run import Run
from tests.support.running import PATIENCE, assert_same, fashion, one_by_one, start, wait_for_reports

SHORT, LONG = 3, 24  # epochs; the long ones outlast two other commands


@pytest.mark.ray
@pytest.mark.faults
def test_a_second_command_is_refused_and_the_first_unharmed(tmp_path: Path, demo_root: Path) -> None:
    for name in ("whole", "twice"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k.yaml").write_text(one_by_one(demo_root, epochs=LONG))
    whole = fashion(tmp_path / "whole", "run", "k.yaml")
    assert whole.returncode == 0, whole
    folder = tmp_path / "twice"
    first = start(folder, "k.yaml")
    wait_for_reports(first, folder / "runs/k/journal.jsonl", lambda found: len(found) >= 1)
    manifest = (folder / "runs/k/manifest.json").read_bytes()
    for more in ([], ["--trials", "5"]):
        second = fashion(folder, "run", "k.yaml", *more)
        assert second.returncode == 2, second
        assert f"another sweep is running in this run directory (process {first.pid} on " in second.stderr
        assert "Traceback" not in second.stdout + second.stderr
        assert (folder / "runs/k/manifest.json").read_bytes() == manifest
    out, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, (out, err)
    assert_same(folder / "runs/k", tmp_path / "whole/runs/k")


@pytest.mark.ray
@pytest.mark.faults
def test_two_sweeps_that_need_the_same_cache_share_it(tmp_path: Path, demo_root: Path) -> None:
    cache = tmp_path / "cache"
    processes = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k.yaml").write_text(one_by_one(demo_root, trials=1, epochs=SHORT))
        processes[name] = start(tmp_path / name, "k.yaml", FASHION_CACHE=str(cache))
    for process in processes.values():
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, (out, err)
    assert_same(tmp_path / "one/runs/k", tmp_path / "two/runs/k")
    # Nothing half built, and one file for each split.
    assert sorted(path.name.split("-")[1] for path in cache.glob("*.arrow")) == ["train", "val"]
    assert not [path for path in cache.rglob("*") if path.name.endswith(".tmp")]


def recorded(tmp_path: Path, format: int) -> tuple[Path, Path]:
    """A spec and a run directory of the given format, with nothing done yet."""
    path = tmp_path / "runs/k"
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": format}))
    return path, path / "manifest.json"


@pytest.mark.ray
@pytest.mark.faults
def test_a_run_of_the_first_format_is_read_and_goes_on(tmp_path: Path, demo_root: Path) -> None:
    """The first format: its journal has no notes, and its reports name no setting."""
    (tmp_path / "k.yaml").write_text(one_by_one(demo_root, trials=1, epochs=SHORT))
    done = fashion(tmp_path, "run", "k.yaml")
    assert done.returncode == 0, done
    path, manifest = recorded(tmp_path, 1)
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "report":
            del line["report"]["setting"]
    (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = (path / "journal.jsonl").read_text()
    shown = fashion(tmp_path, "show", "k")
    assert shown.returncode == 0, shown
    assert json.loads(manifest.read_text())["format"] == 1  # looking changes nothing
    done = fashion(tmp_path, "run", "k.yaml", "--trials", "+1")
    assert done.returncode == 0, done
    assert (path / "journal.jsonl").read_text().startswith(before)
    assert json.loads(manifest.read_text())["format"] == FORMAT
    assert [trial.status for trial in Run.open(path).trials.values()] == ["completed"] * 2


@pytest.mark.parametrize("format", [0, FORMAT + 1, "2"])
def test_a_run_of_another_format_is_refused_by_every_command(tmp_path: Path, demo_root: Path, format: int) -> None:
    (tmp_path / "k.yaml").write_text(one_by_one(demo_root))
    spec = json.loads((tmp_path / "k.yaml").read_text())
    content = {"spec": spec, "data_fingerprint": "f", "attributes": [], "label_counts": {}, "code_version": "9.1+abc"}
    Run.create(tmp_path / "runs", "k", content)
    path, manifest = recorded(tmp_path, format)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for arguments in (["run", "k.yaml"], ["show", "k"], ["best", "k"]):
        refused = fashion(tmp_path, *arguments)
        assert refused.returncode == 2, refused
        assert f"this version reads run formats 1 to {FORMAT}; got {format!r}" in refused.stderr
        assert ("written by fashion-sweep 9.1+abc" in refused.stderr) == (format == FORMAT + 1)
        assert "Traceback" not in refused.stdout + refused.stderr
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert manifest.exists()
