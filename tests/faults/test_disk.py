"""The real command meets full disks, read-only disks and damaged files, and says so."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.record.run import Run
from fashion.record.trial_files import LAST, PREVIOUS
from tests.support.machines.descendants import descendants
from tests.support.machines.disks import tmpfs
from tests.support.running import (
    PATIENCE,
    assert_same,
    at_work,
    events,
    fashion,
    recorded_reports,
    start,
    wait_for_reports,
    wait_until_gone,
)

pytestmark = [pytest.mark.ray, pytest.mark.faults]


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """The sweep's storage on a file system of 8 MiB."""
    with tmpfs(folder / "runs", "8m", "--lazy") as place:
        yield place


def go_on(folder: Path, undisturbed: Path) -> subprocess.CompletedProcess[str]:
    done = fashion(folder, "run", "k.yaml")
    assert done.returncode == 0, done
    assert "Traceback" not in done.stdout + done.stderr
    assert_same(folder / "runs/k", undisturbed / "runs/k")
    return done


def killed_after(folder: Path, reports: int) -> Path:
    """The run directory of a sweep whose driver was killed after so many reports."""
    process = start(folder, "k.yaml")
    wait_for_reports(process, folder / "runs/k/journal.jsonl", lambda found: len(found) >= reports)
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert wait_until_gone(at_work(below)) == set()
    return folder / "runs/k"


def fill(disk: Path) -> Path:
    """A file that fills the disk."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):  # to the last page
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_full_disk_stops_the_sweep_which_goes_on_when_there_is_room(
    folder: Path, small_disk: Path, undisturbed: Path
) -> None:
    """A trial's checkpoint or the driver's record meets the full disk, whichever needs room first."""
    process = start(folder, "k.yaml")
    wait_for_reports(process, small_disk / "k/journal.jsonl", lambda found: len(found) >= 3)
    below = descendants(process.pid)
    ballast = fill(small_disk)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, (out, err)
    assert "No space left on device. Free some space; then the same command goes on" in err
    assert "Traceback" not in out + err
    assert wait_until_gone(below) == set()
    run = Run.open(small_disk / "k")
    assert {trial.ended for trial in run.trials.values()} <= {None, "completed"}, "no trial is to blame"
    again = fashion(folder, "run", "k.yaml")
    assert again.returncode == 2, again
    assert "No space left on device" in again.stderr
    assert "Traceback" not in again.stdout + again.stderr
    ballast.unlink()
    go_on(folder, undisturbed)


def test_a_read_only_run_directory_is_refused_and_can_still_be_looked_at(
    folder: Path, small_disk: Path, undisturbed: Path
) -> None:
    run = killed_after(folder, 3)
    before = (run / "journal.jsonl").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for arguments in (["run", "k.yaml"], ["best", "k"]):
        refused = fashion(folder, *arguments)
        assert refused.returncode == 2, refused
        assert "Read-only file system. Make it writable" in refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr
    assert "val_loss" in refused.stdout  # `best` answers; it is the promotion that it can't do
    assert "It could not be promoted" in refused.stderr
    for arguments in (["ls"], ["show", "k"]):
        shown = fashion(folder, *arguments)
        assert shown.returncode == 0, shown
        assert "k" in shown.stdout
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert (run / "journal.jsonl").read_bytes() == before
    go_on(folder, undisturbed)


def test_no_room_for_the_cache_is_told_before_anything_starts(folder: Path, small_disk: Path) -> None:
    """Room for the frame of the file, as far as the file system says, and not for all of it."""
    ballast = fill(small_disk)
    refused = fashion(folder, "run", "k.yaml", "--storage", str(folder / "elsewhere"), FASHION_CACHE=str(small_disk))
    assert refused.returncode == 2, refused
    assert "Set FASHION_CACHE to a folder with room" in refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    left = [path.name for path in small_disk.rglob("*") if path.is_file() and path != ballast]
    assert all(name.endswith(".lock") for name in left), left
    assert not (folder / "elsewhere").exists()


def test_a_cut_line_and_a_damaged_checkpoint_cost_one_epoch_each(folder: Path, undisturbed: Path) -> None:
    """The record's last line is half written, and the trial's last checkpoint is truncated."""
    run = killed_after(folder, 3)
    last = run / "trials/0000" / LAST
    last.write_bytes(last.read_bytes()[:-100])
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    done = go_on(folder, undisturbed)
    assert "cut off a half-written last line" in done.stderr
    (note,) = Run.open(run).trials[0].notes
    assert "last.pt: not a readable checkpoint" in note
    assert "it goes on from the checkpoint before, epoch" in note
    assert "its checkpoint can't be read" in done.stdout
    assert "note: its checkpoint can't be read" in fashion(folder, "show", "k", "--trial", "0").stdout


def test_a_trial_without_any_readable_checkpoint_starts_again(folder: Path, undisturbed: Path) -> None:
    run = killed_after(folder, 3)
    for name in (LAST, PREVIOUS):
        (run / "trials/0000" / name).write_bytes(b"damaged")
    go_on(folder, undisturbed)
    (note,) = Run.open(run).trials[0].notes
    assert note.endswith("there is none before it: the trial starts again")
    assert [r.attempt for r in Run.open(run).trials[0].reports][-1] == 1  # by its own count of checkpoints


def test_a_record_that_is_damaged_in_the_middle_is_refused_and_left_alone(folder: Path) -> None:
    run = killed_after(folder, 3)
    journal = run / "journal.jsonl"
    content = journal.read_bytes()
    place = content.index(b'"report"') + 1
    journal.write_bytes(content[:place] + b"\0\0\n" + content[place + 3 :])
    before = journal.read_bytes()
    for arguments in (["run", "k.yaml"], ["show", "k"], ["best", "k"]):
        refused = fashion(folder, *arguments)
        assert refused.returncode == 2, refused
        assert "journal.jsonl, byte" in refused.stderr
        assert "restore the file from a copy" in refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr
    assert journal.read_bytes() == before
    journal.write_bytes(content)
    assert recorded_reports(journal)


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_cache_is_made_anew(folder: Path, undisturbed: Path, damage: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = fashion(folder, "run", "k.yaml", "--name", "first", "--trials", "1", FASHION_CACHE=str(cache))
    assert first.returncode == 0, first
    (pack,) = cache.glob("*-train-128-*.arrow")
    good = pack.read_bytes()
    # One bit of one image, which looking at a few of them would miss; or the end.
    broken = bytearray(good)
    broken[len(good) // 2 + 37] ^= 4
    pack.unlink()
    pack.write_bytes(broken if damage == "flipped" else good[:-1000])
    done = fashion(folder, "run", "k.yaml", "--fresh", FASHION_CACHE=str(cache))
    assert done.returncode == 0, done
    assert pack.read_bytes() == good
    assert_same(folder / "runs/k", undisturbed / "runs/k")
    assert [event["event"] for event in events(folder / "runs/k")].count("taken") == 0
