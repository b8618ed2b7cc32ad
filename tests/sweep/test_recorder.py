"""Reports are on disk before they are obeyed, ends are recorded once, and only the best checkpoint is kept."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fashion.display.live import Display
from fashion.display.tensorboard import EventFiles
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.schedulers.base import Scheduler
from fashion.schedulers.registry import make_scheduler
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.observers import Ignoring, OnTensorBoard
from fashion.sweep.recorder import Recorder, keep_only

TEXT = """\
name: sweep
data: {root: nowhere, resize: 32, crop: 32}
model: {backbone: tiny, weights: none}
train: {epochs: 4, lr: {loguniform: [0.001, 0.1]}}
search: {trials: 6}
scheduler: {name: asha, grace: 0.5, reduction: 2}
"""


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return load_spec(tmp_path / "sweep.yaml", [f"storage={tmp_path / 'runs'}"])


@pytest.fixture
def run(spec: SweepSpec) -> Run:
    manifest: dict[str, Any] = {"spec": spec.to_json(), "data_fingerprint": "f", "attributes": [], "label_counts": {}}
    return Run.create(spec.storage, spec.name, manifest)


def recorder_of(run: Run, spec: SweepSpec, scheduler: Scheduler | None = None) -> tuple[Recorder, io.StringIO]:
    told = io.StringIO()
    display = Display(run, spec, stream=told, mode="plain")
    chosen = scheduler or make_scheduler(spec.scheduler)
    recorder = Recorder(run, chosen, spec.total_trials, [OnTensorBoard(EventFiles(run)), display])
    recorder.catch_up()
    return recorder, told


def begin(recorder: Recorder, spec: SweepSpec, *numbers: int) -> None:
    for number in numbers:
        recorder.run.record_trial(number, spec.trial(number).model_dump(mode="json"))
        recorder.started(number)


def report(trial: int, epoch: int, loss: float, attempt: int = 1) -> EpochReport:
    metrics = {"val_loss": loss, "val_accuracy": 0.5, "train_loss": 1.0, "lr": 0.1}
    return EpochReport(trial, attempt, epoch, 4, metrics, 1.0, "2026-01-01T00:00:00+00:00")


def checkpoints(run: Run, number: int, *epochs: int) -> Path:
    folder = run.trial_dir(number)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*(f"best-{e:04d}.safetensors" for e in epochs), *(f"val-{e:04d}.parquet" for e in epochs)):
        (folder / name).write_bytes(b"x")
    for name in ("last.pt", ".last.pt.123.tmp", "progress.json", "error.txt"):
        (folder / name).write_bytes(b"x")
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_what_happens_to_a_trial_is_recorded_once_and_kept(run: Run, spec: SweepSpec) -> None:
    recorder, told = recorder_of(run, spec)
    begin(recorder, spec, 0)
    for _ in range(2):
        recorder.noted(0, "epoch 2: out of memory")
    assert told.getvalue().count("trial 0: epoch 2: out of memory") == 2
    assert Run.open(run.path).trials[0].notes == ["epoch 2: out of memory"]
    assert run.journal_path.read_text().count('"event":"note"') == 1


class Watching(Scheduler):
    """Notes what the disk holds at the moment of each decision."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.seen = run, 0

    def _decide(self, trial: int, progress: float, reward: float) -> Any:
        self.seen = self.run.journal_path.read_bytes().count(b'"report"')
        return "continue"


def test_a_decision_is_on_disk_before_it_is_handed_out(run: Run, spec: SweepSpec) -> None:
    scheduler = Watching(run)
    recorder, _ = recorder_of(run, spec, scheduler)
    begin(recorder, spec, 0)
    for epoch in (1, 2):
        assert recorder.received(report(0, epoch, 1.0)) == "continue"
        assert Run.open(run.path).trials[0].decisions == dict.fromkeys(range(1, epoch + 1), "continue")
        assert scheduler.seen == 2 * (epoch - 1)  # each line says it twice: decided first, then written


def test_what_cannot_be_recorded_is_not_decided_upon(run: Run, spec: SweepSpec) -> None:
    recorder, told = recorder_of(run, spec)
    begin(recorder, spec, 0)
    run.close()
    run.journal_path.rename(run.path / "elsewhere")
    run.journal_path.mkdir()  # as a disk that gave up
    before = told.getvalue()
    with pytest.raises(OSError, match="journal"):
        recorder.received(report(0, 1, 1.0))
    assert told.getvalue() == before  # nothing is shown that is not recorded
    assert not run.trials[0].reports


def test_a_known_report_gets_the_recorded_decision(run: Run, spec: SweepSpec) -> None:
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0, 1)
    assert [recorder.received(report(0, epoch, 0.5)) for epoch in (1, 2)] == ["continue", "continue"]
    assert [recorder.received(report(1, epoch, 0.9)) for epoch in (1, 2)] == ["continue", "stop"]
    size = run.journal_path.stat().st_size
    # Sent again by a worker that was started anew, with whatever numbers.
    assert recorder.received(report(0, 2, 9.0, attempt=2)) == "continue"
    assert recorder.received(report(1, 1, 0.1, attempt=2)) == "stop"  # it has ended: no worker may go on with it
    assert run.journal_path.stat().st_size == size
    assert [r.metrics["val_loss"] for r in run.trials[0].reports] == [0.5, 0.5]


def test_ends(run: Run, spec: SweepSpec) -> None:
    recorder, told = recorder_of(run, spec)
    begin(recorder, spec, 0, 1, 2, 3)
    for epoch in (1, 2, 3, 4):
        recorder.received(report(0, epoch, 1.0 - epoch / 10))
    recorder.received(report(1, 1, 2.0))
    assert recorder.received(report(1, 2, 2.0)) == "stop"
    recorder.received(report(2, 1, 0.5))
    assert recorder.received(report(2, 2, float("nan"))) == "stop"
    recorder.ended(3, "failed", "OutOfMemoryError: 64 GiB")
    recorder.ended(3, "completed")  # the first end holds
    found = Run.open(run.path).trials
    assert [found[number].status for number in range(4)] == ["completed", "stopped", "failed", "failed"]
    assert found[1].reason == "val_loss at epoch 2 of 4"
    assert found[2].reason == "epoch 2: val_loss is nan"
    assert found[3].reason == "OutOfMemoryError: 64 GiB"
    best = found[2].best()
    assert best is not None
    assert best.epoch == 1  # what it was before it diverged still counts
    assert "64 GiB" in told.getvalue()
    assert not recorder.abort  # something was learnt


def test_an_ended_trial_keeps_its_best_checkpoint_alone(run: Run, spec: SweepSpec) -> None:
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0)
    folder = checkpoints(run, 0, 1, 2, 4)
    for epoch, loss in enumerate((0.9, 0.4, 0.6), start=1):
        recorder.received(report(0, epoch, loss))
        assert "last.pt" in files(folder)  # a resumption may still need it
    recorder.received(report(0, 4, 0.5))
    assert files(folder) == {"best-0002.safetensors", "val-0002.parquet", "progress.json", "error.txt"}


def test_keep_only_of_a_trial_without_a_best_epoch(tmp_path: Path) -> None:
    for name in ("best-0001.safetensors", "last.pt", "best-00001.txt", "notes.tmp", "mine.parquet"):
        (tmp_path / name).write_bytes(b"")
    keep_only(tmp_path, None)
    assert sorted(os.listdir(tmp_path)) == ["best-00001.txt", "mine.parquet"]
    keep_only(tmp_path / "never made", 3)


@pytest.mark.parametrize("learnt", [False, True])
def test_a_sweep_in_which_nothing_ever_works_is_given_up(run: Run, spec: SweepSpec, learnt: bool) -> None:
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0, 1, 2, 3)
    if learnt:
        recorder.received(report(3, 1, 1.0))
    for number in (0, 1):
        recorder.ended(number, "failed", "no such file")
        assert not recorder.abort
    recorder.ended(2, "failed", "no such file")
    assert bool(recorder.abort) != learnt
    assert learnt or "the first 3 trials failed before their first epoch: no such file" in recorder.abort


def test_the_only_trial_failing_is_enough(run: Run, tmp_path: Path) -> None:
    spec = load_spec(tmp_path / "sweep.yaml", ["search.trials=1"])
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0)
    recorder.ended(0, "failed", "no such file")
    assert recorder.abort


def test_what_a_killed_driver_decided_is_carried_out(run: Run, spec: SweepSpec) -> None:
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0, 1, 2)
    folder = checkpoints(run, 0, 1)
    # The last lines before the kill: reports with their decisions, but no ends.
    for epoch in (1, 2, 3, 4):
        run.record_report(report(0, epoch, 0.1 * epoch), "continue")
    run.record_report(report(1, 1, 0.5), "stop")
    run.record_report(report(2, 1, 0.5), "continue")
    run.close()
    again = Run.open(run.path)
    recorder_of(again, spec)
    events = [json.loads(line) for line in run.journal_path.read_text().splitlines()]
    ends = {event["trial"]: event["status"] for event in events if event["event"] == "end"}
    assert ends == {0: "completed", 1: "stopped"}
    assert "last.pt" not in files(folder)
    assert not again.trials[2].final


def test_resuming_feeds_the_scheduler_from_the_record(run: Run, spec: SweepSpec) -> None:
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0, 1)
    for epoch in (1, 2):
        recorder.received(report(0, epoch, 0.5))
    again, told = recorder_of(Run.open(run.path), spec)
    assert again.scheduler.rungs() == recorder.scheduler.rungs()
    assert "would now be" not in told.getvalue()
    assert [again.received(report(1, epoch, 0.9)) for epoch in (1, 2)] == ["continue", "stop"]
    # A scheduler that would decide otherwise now does not undo what was decided.
    fifo = make_scheduler(spec.scheduler.model_copy(update={"name": "fifo"}))
    changed, told = recorder_of(Run.open(run.path), spec, fifo)
    assert "trial 1 epoch 2: recorded stop, would now be continue; the record holds" in told.getvalue()
    assert changed.run.trials[1].status == "stopped"


class Slow(Ignoring):
    """As a mirror that has not uploaded yet."""

    def __init__(self) -> None:
        self.up = False
        self.told: list[tuple[int, int | None, int]] = []

    def settled(self) -> bool:
        return self.up

    def cleared(self, number: int, best_epoch: int | None, at: int) -> None:
        self.told.append((number, best_epoch, at))


def test_the_mirror_hears_of_an_end_with_the_byte_behind_it(run: Run, spec: SweepSpec) -> None:
    recorder, _ = recorder_of(run, spec)
    slow = Slow()
    recorder.observers = [*recorder.observers, slow]
    begin(recorder, spec, 0)
    for epoch in range(1, 5):
        recorder.received(report(0, epoch, 1.0 / epoch))
    before = run.journal_path.read_bytes()
    assert before.splitlines()[-1].startswith(b'{"event":"end"')
    assert slow.told == [(0, 4, len(before))]


def test_what_cannot_be_computed_again_is_handed_out_once_it_is_up(run: Run, spec: SweepSpec) -> None:
    from fashion.engine.tune_hooks import NumberSearcher, SweepBlocked
    from fashion.sweep.search import SeededSource

    recorder, _ = recorder_of(run, spec)
    slow = Slow()
    recorder.settled = slow.settled
    searcher = NumberSearcher(iter([0, 1]), SeededSource(spec), recorder, lambda: 2, lambda: None, settle=True)
    assert searcher.suggest("a") is None
    assert sorted(run.trials) == [0]  # recorded, and on its way
    assert searcher.suggest("a") is None
    slow.up = True
    assert searcher.suggest("a")["number"] == 0
    assert searcher.suggest("b")["number"] == 1
    slow.up = False
    recorder.stop("the bucket is away")
    again = NumberSearcher(iter([2]), SeededSource(spec), recorder, lambda: 2, lambda: None, settle=True)
    with pytest.raises(SweepBlocked, match="the bucket is away"):
        again.suggest("c")
    assert recorder.blocked == "the bucket is away"


class Looking(Ignoring):
    """Notes what the journal and the trial's folder hold whenever it is told of something."""

    def __init__(self, run: Run) -> None:
        self.run, self.told = run, list[tuple[str, str, bool]]()

    def _look(self, what: str) -> None:
        last = json.loads(self.run.journal_path.read_text().splitlines()[-1])["event"]
        self.told.append((what, last, (self.run.trial_dir(0) / "last.pt").exists()))

    def trial_started(self, number: int) -> None:
        self._look("started")

    def reported(self, report: EpochReport, decision: Any) -> None:
        self._look("reported")

    def ended(self, number: int, status: Any, reason: str = "") -> None:
        self._look("ended")

    def cleared(self, number: int, best_epoch: int | None, at: int) -> None:
        assert at == self.run.journal_path.stat().st_size
        self._look(f"cleared {best_epoch}")


def test_observers_are_told_of_what_is_on_disk(run: Run, spec: SweepSpec) -> None:
    looking = Looking(run)
    recorder = Recorder(run, make_scheduler(spec.scheduler), spec.total_trials, [looking])
    begin(recorder, spec, 0)
    checkpoints(run, 0, 1, 2)
    recorder.received(report(0, 1, 0.5))
    recorder.received(report(0, 2, float("nan")))
    assert looking.told == [
        ("started", "attempt", False),
        ("reported", "report", True),
        ("reported", "report", True),
        ("ended", "end", False),
        ("cleared 1", "end", False),
    ]


def test_a_new_recorder_touches_nothing_until_it_catches_up(run: Run, spec: SweepSpec) -> None:
    begin(recorder_of(run, spec)[0], spec, 0)
    folder = checkpoints(run, 0, 4)
    for epoch in (1, 2, 3, 4):
        run.record_report(report(0, epoch, 1 / epoch), "continue")
    before = run.journal_path.read_bytes()
    recorder = Recorder(run, make_scheduler(spec.scheduler), spec.total_trials)
    assert run.journal_path.read_bytes() == before
    assert "last.pt" in files(folder)
    recorder.catch_up()
    assert run.trials[0].ended == "completed"
    assert "last.pt" not in files(folder)


def test_where_attempts_ran_is_recorded(run: Run, spec: SweepSpec) -> None:
    recorder, _ = recorder_of(run, spec)
    begin(recorder, spec, 0, 1)
    recorder.began(0, "a process", "node-1")
    recorder.began(1, "another", "node-2")
    recorder.died(0, "killed")
    recorder.started(0)
    recorder.began(0, "another", "node-2")
    found = Run.open(run.path).trials
    assert [(use.attempt, use.slot, use.node) for use in found[0].slots] == [(1, 0, "node-1"), (2, 1, "node-2")]
    assert [(use.attempt, use.slot, use.node) for use in found[1].slots] == [(1, 1, "node-2")]
    assert all(use.time for trial in found.values() for use in trial.slots)
