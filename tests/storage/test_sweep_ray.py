"""A sweep whose storage is a bucket, on a real Ray: undisturbed, resumed elsewhere after a kill, cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion.record.run import Run
from fashion.record.scheduler import replay
from fashion.record.trial import EpochReport
from fashion.schedulers.registry import make_scheduler
from fashion.spec.sweep_spec import SweepSpec
from tests.support.running import PATIENCE, fashion, start
from tests.support.servers.s3_server import Server, s3_server

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("storage-sweep")]

BUCKET, STORAGE = "sweeps", "s3://sweeps/here"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        server.make_bucket(BUCKET)
        yield server
        server.faults.heal()


@pytest.fixture
def s3(server: Server) -> Iterator[Server]:
    """The module's server, without faults, its bucket empty."""
    for name in server.names(BUCKET):
        server.client().delete_object(Bucket=BUCKET, Key=name)
    yield server
    server.faults.heal()


def spec(root: Path, epochs: int = 6, **sections: Any) -> str:
    content: dict[str, Any] = {
        "data": {"root": str(root), "resize": 36, "crop": 32},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": epochs, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]}},
        "search": {"trials": 3},
        "scheduler": {"name": "asha", "grace": 0.3},
        "storage": STORAGE,
    }
    for name, values in sections.items():
        content[name] = {**content.get(name, {}), **values}
    return json.dumps(content)


class Machine:
    """A machine with its own folder and cache, which shares nothing with others but the bucket."""

    def __init__(self, folder: Path, s3: Server, text: str) -> None:
        folder.mkdir()
        self.folder, self.env = folder, {**s3.env, "FASHION_CACHE": str(folder / "cache")}
        (folder / "s.yaml").write_text(text)

    def typed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return fashion(self.folder, *arguments, **self.env)

    def begin(self) -> subprocess.Popen[str]:
        return start(self.folder, "s.yaml", **self.env)

    def run(self) -> Run:
        """The run as this machine's copy has it."""
        (journal,) = (path for path in (self.folder / "cache/stored").glob("s-*/journal.jsonl"))
        return Run.open(journal.parent)


def reports_in(s3: Server) -> list[EpochReport]:
    """The reports in the bucket, put together by hand."""
    content = b""
    for name in s3.names(BUCKET, "here/s/journal/"):
        begin = int(Path(name).stem)
        part = s3.read(BUCKET, name)
        if begin + len(part) > len(content):
            assert begin <= len(content), "a hole"
            content += part[len(content) - begin :]
    events = [json.loads(line) for line in content.splitlines()]
    return [EpochReport.from_json(event["report"]) for event in events if event["event"] == "report"]


def wait(process: subprocess.Popen[str], true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if true():
            return
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"it never came: {process.communicate()}")


def assert_whole(run: Run, trials: int) -> None:
    """All trials are final, every epoch is recorded once, and the decisions follow from the record."""
    assert len(run.trials) == trials
    assert all(trial.final and trial.status != "failed" for trial in run.trials.values())
    recorded = SweepSpec.from_json(run.manifest["spec"])
    assert replay(make_scheduler(recorded.scheduler), run.history) == []
    for trial in run.trials.values():
        assert [each.epoch for each in trial.reports] == list(range(1, len(trial.reports) + 1))
    lines = [json.loads(line) for line in run.journal_path.read_text().splitlines()]
    told = [(e["report"]["trial"], e["report"]["epoch"]) for e in lines if e["event"] == "report"]
    assert len(told) == len(set(told)), "an epoch was recorded twice"


def assert_tidy(s3: Server, run: Run) -> None:
    """The bucket holds the whole record, and of each trial the best epoch's files alone."""
    for trial in run.trials.values():
        best = trial.best()
        assert best is not None
        folder = f"here/s/trials/{trial.number:04d}/"
        names = [name.removeprefix(folder) for name in s3.names(BUCKET, folder)]
        kept = [name for name in names if not name.startswith("tb/")]
        assert kept == [f"best-{best.epoch:04d}.safetensors", f"val-{best.epoch:04d}.parquet"]
        assert len([name for name in names if name.startswith("tb/")]) == 1
    assert reports_in(s3) == [report for report, _ in run.history]
    assert json.loads(s3.read(BUCKET, "here/s/lease.json"))["released"]


def test_a_sweep_is_kept_in_the_bucket_and_read_from_it_elsewhere(s3: Server, tmp_path: Path, demo_root: Path) -> None:
    first = Machine(tmp_path / "first", s3, spec(demo_root))
    done = first.typed("run", "s.yaml")
    assert done.returncode == 0, done
    assert f"Results: {STORAGE}/s\nNext: fashion-sweep best {STORAGE}/s --predict\n" in done.stdout + done.stderr
    assert_whole(first.run(), 3)
    assert_tidy(s3, first.run())
    second = Machine(tmp_path / "second", s3, spec(demo_root))
    listed = second.typed("ls", "--storage", STORAGE)
    assert listed.stdout.splitlines()[1].split()[:3] == ["s", "finished", "3/3"]
    assert f"s  {STORAGE}/s  finished" in second.typed("show", f"{STORAGE}/s").stdout
    found = second.typed("best", f"{STORAGE}/s", "--predict", "--split", "val", "--json")
    assert found.returncode == 0, found
    best = json.loads(found.stdout)
    assert best["predictions"]["accuracy"] == pytest.approx(best["metrics"]["val_accuracy"], abs=1e-12)
    assert best["predictions"]["files"][0] == f"{STORAGE}/s/predictions/val/prediction.txt"
    there = s3.read(BUCKET, "here/s/predictions/val/prediction.txt")
    assert len(there.splitlines()) == 32
    again = second.typed("run", "s.yaml")
    assert again.returncode == 0, again
    assert f"{STORAGE}/s is there: 3 of 3 trials are final, 0 to do" in again.stdout
    more = second.typed("run", "s.yaml", "--trials", "+1")
    assert more.returncode == 0, more
    assert_whole(second.run(), 4)
    assert_tidy(s3, second.run())


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_a_killed_sweep_goes_on_where_there_is_only_the_bucket(
    s3: Server, tmp_path: Path, demo_root: Path, kept: bool
) -> None:
    """Either the machine is lost with its disk and another one goes on, or it comes back with its own copy."""
    first = Machine(tmp_path / "first", s3, spec(demo_root, 8, search={"trials": 2}))
    process = first.begin()
    wait(process, lambda: len(reports_in(s3)) >= 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = reports_in(s3)
    second = first if kept else Machine(tmp_path / "second", s3, (first.folder / "s.yaml").read_text())
    done = second.typed("run", "s.yaml")
    assert done.returncode == 0, done
    run = second.run()
    assert_whole(run, 2)
    assert [report for report, _ in run.history][: len(before)] == before
    assert_tidy(s3, run)


@pytest.mark.slow
def test_an_outage_in_the_midst_costs_nothing(s3: Server, tmp_path: Path, demo_root: Path) -> None:
    machine = Machine(tmp_path / "first", s3, spec(demo_root, 10))
    process = machine.begin()
    wait(process, lambda: len(reports_in(s3)) >= 3)
    faults: list[Callable[[], None]] = [lambda: s3.faults.fail(503), lambda: s3.faults.cut("within"), s3.faults.refuse]
    for fault in faults:
        fault()
        time.sleep(8)
    s3.faults.heal()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "The sweep goes on; what it records waits on this machine" in out
    assert "s3://sweeps answers again, after" in out
    run = machine.run()
    assert_whole(run, 3)
    assert {trial.attempt for trial in run.trials.values()} == {1}
    assert_tidy(s3, run)


@pytest.mark.slow
def test_of_two_that_go_on_at_once_one_is_refused(s3: Server, tmp_path: Path, demo_root: Path) -> None:
    first = Machine(tmp_path / "first", s3, spec(demo_root, 6))
    second = Machine(tmp_path / "second", s3, spec(demo_root, 6))
    processes = [machine.begin() for machine in (first, second)]
    ends = [(process.communicate(timeout=PATIENCE), process.returncode) for process in processes]
    assert sorted(code for _, code in ends) == [0, 2], ends
    ((_, refused),) = (told for told, code in ends if code == 2)
    assert f"{STORAGE}/s: another sweep is running in this run directory (process " in refused
    assert "Traceback" not in refused
    winner = first if ends[0][1] == 0 else second
    assert_whole(winner.run(), 3)
    assert_tidy(s3, winner.run())


@pytest.mark.slow
def test_an_interrupt_uploads_what_was_recorded(s3: Server, tmp_path: Path, demo_root: Path) -> None:
    machine = Machine(tmp_path / "first", s3, spec(demo_root, 30))
    process = machine.begin()
    wait(process, lambda: len(reports_in(s3)) >= 3)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"Interrupted. Everything reported is in {STORAGE}/s; the same command goes on from there." in err
    assert reports_in(s3) == [report for report, _ in machine.run().history]
    # Elsewhere nobody has to wait: the lease was released.
    assert json.loads(s3.read(BUCKET, "here/s/lease.json"))["released"]


@pytest.mark.slow
def test_optuna_hands_out_what_the_bucket_knows(s3: Server, tmp_path: Path, demo_root: Path) -> None:
    machine = Machine(tmp_path / "first", s3, spec(demo_root, 4, search={"method": "optuna"}))
    done = machine.typed("run", "s.yaml")
    assert done.returncode == 0, done
    run = machine.run()
    assert len({trial.config["train"]["lr"] for trial in run.trials.values()}) == 3
    assert_tidy(s3, run)
