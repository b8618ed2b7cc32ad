"""The display's three modes over a real record: what is told, what fits, and that it can't hurt the sweep."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, ConsoleDimensions
from rich.progress_bar import ProgressBar

from fashion.display.columns import columns
from fashion.display.live import Display
from fashion.display.tables import View, picture
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.schedulers.registry import make_scheduler
from tests.support.displayed import SCHEDULER, begin, end, new_run, report, sweep


def test_plain_lines_are_one_an_event_and_greppable(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 3)
    stream = io.StringIO()
    sweep(run, Display(run, spec, stream))
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d [a-z]+ +\S", line) for line in lines)
    events = [line.split()[1] for line in lines]
    assert events == ["sweep", "start", "start", "report", "report", "end", "note", "report", "end", "done"]
    assert lines[1].endswith(
        "trial=0 attempt=1 epochs_done=0 backbone=resnet18 dropout=0.5 epochs=10 optimizer=sgd lr=0.01"
    )
    assert "trial=0 epoch=1/10 val_loss=1.5000 val_accuracy=0.5000 train_loss=1.6000 lr=0.01 seconds=2" in lines[3]
    assert lines[3].endswith("decision=continue best=yes")
    assert lines[4].endswith("decision=stop")
    assert (
        'trial=1 status=stopped epochs_done=1 val_loss=1.6000 val_accuracy=0.5000 reason="val_loss at epoch 1 of 10"'
        in lines[5]
    )
    assert "val_loss=nan" in lines[7]
    assert "waiting=1 stopped=1 failed=1 best_trial=0 best_epoch=1 val_loss=1.5000" in lines[9]
    assert "\x1b" not in stream.getvalue()


def test_json_lines_carry_whole_reports(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 3)
    stream = io.StringIO()
    sweep(run, Display(run, spec, stream, "json"))

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    events = [json.loads(line, parse_constant=no_constant) for line in stream.getvalue().splitlines()]
    reports = [event for event in events if event["event"] == "report"]
    assert [
        EpochReport.from_json({key: each[key] for key in EpochReport.__dataclass_fields__}).epoch for each in reports
    ] == [1, 1, 2]
    assert [each["decision"] for each in reports] == ["continue", "stop", "continue"]
    assert [each["best"] for each in reports] == [True, False, False]
    assert reports[2]["metrics"]["val_loss"] == "nan"
    assert events[1]["config"]["train.lr"] == 0.01
    assert events[-1]["best_trial"] == 0


def test_going_on_starts_from_the_record(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 3)
    sweep(run, Display(run, spec, io.StringIO()))
    run.close()
    again = Run.open(run.path)
    stream = io.StringIO()
    display = Display(again, spec, stream)
    display.started()
    assert "trials=3 final=2 epochs_recorded=3" in stream.getvalue()
    begin(again, display, 2)
    report(again, display, 2, 1, 1.55)
    assert "best=yes" not in stream.getvalue(), "1.5 of the first session is still the best"
    report(again, display, 2, 2, 1.2)
    assert "best=yes" in stream.getvalue()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Display:
    """158 trials: 8 running, the others stopped, completed or failed with a long reason."""
    run, spec = new_run(tmp_path_factory.mktemp("crowd"), 200)
    display = Display(run, spec, io.StringIO(), "plain")
    for number in range(158):
        begin(run, display, number)
        report(run, display, number, 1, 1.5 + number / 100)
        if number < 140:
            end(run, display, number, "stopped", "val_loss at epoch 1 of 10")
        elif number < 150:
            end(run, display, number, "failed", "RuntimeError: CUDA out of memory. " * 8)
    display.note("a note that is much longer than the terminal is wide, " * 5)
    return display


@pytest.mark.parametrize(("width", "height"), [(60, 15), (80, 24), (100, 30), (140, 40), (220, 60)])
def test_the_picture_fits_its_terminal(crowded: Display, width: int, height: int) -> None:
    view = crowded._view()
    out = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with out.capture() as captured:
        out.print(picture(view, width, height - 1))
    lines = captured.get().splitlines()
    assert len(lines) <= height - 1
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "150/200 trials" in text
    whole, brief = "epoch 1 of 10: val_loss 1.5000, val_accuracy 50.00 %", "epoch 1: val_loss 1.5000, val_acc 50.00 %"
    assert f"best  trial 0, {whole if width >= 80 else brief}" in text
    assert re.search(r"^ *\*0 +stopped", text, re.MULTILINE), "the best trial is listed and marked"
    assert re.search(r"^ *15\d +running", text, re.MULTILINE)
    assert re.search(r"and \d+ more: .*stopped", text)
    assert "failed: RuntimeError: CUDA" in text
    if height >= 24:
        assert "rungs" in text
        assert re.search(r"reached +158", text)
    if width >= 80:
        assert " lr" in text
        assert "resnet18" in text


def finished(folder: Path, trials: int = 40) -> Display:
    """A sweep that has ended, whose last trials are its worst."""
    run, spec = new_run(folder, trials)
    display = Display(run, spec, io.StringIO(), "plain")
    for number in range(trials):
        begin(run, display, number)
        for epoch in range(1, 4):
            report(run, display, number, epoch, 1.0 + number / 100 + 1 / epoch)
        end(run, display, number, "stopped", "val_loss at epoch 3 of 10")
    return display


def drawn(view: View, width: int, height: int | None) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height or 50, force_terminal=True, color_system=None)
    with out.capture() as captured:
        out.print(picture(view, width, height))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_last_picture_ends_with_the_best_trials_on_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    display = finished(tmp_path)
    spec: Any = SimpleNamespace(total_trials=40, scheduler=SimpleNamespace(**SCHEDULER))
    live = Display(display.run, spec, terminal, "live")
    live._console.size = ConsoleDimensions(80, 24)
    with live:
        live.started()
    lines = terminal.getvalue().rpartition("\x1b[2K")[2].splitlines()
    assert len(lines) <= 24 - 4, "the command's last words and the prompt have room below"
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "\n".join(lines))
    assert "best  trial 0, epoch 3 of 10" in text
    numbers = [int(found) for found in re.findall(r"^ *\*?(\d+) stopped", text, re.MULTILINE)]
    assert numbers == list(range(len(numbers))), "from the best down"
    assert len(numbers) >= 5
    assert "next needs" in text


def test_wide_terminals_have_a_column_for_every_sampled_field_and_a_curve(tmp_path: Path) -> None:
    display = finished(tmp_path, 9)
    head = next(line for line in drawn(display._view(), 200, 49) if "val_loss" in line and "status" in line)
    assert head.split() == ["trial", "status", "epoch", "last", "val_loss", "at", "val_acc", "backbone", "lr",
                            "optimizer", "dropout", "curve"]  # fmt: skip
    lines = drawn(display._view(), 200, 49)
    assert not any("no room for" in line for line in lines)
    best = next(line for line in lines if line.strip().startswith("*0"))
    curve = best.split()[-1]
    assert curve[0] in "▇█"
    assert curve[-1] == "▁"
    assert len(curve) == 3, "three of ten epochs"


def test_trials_that_exploded_do_not_flatten_the_curves_of_the_others(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 4)
    display = Display(run, spec, io.StringIO(), "plain")
    for number in range(4):
        begin(run, display, number)
        report(run, display, number, 1, 3e5 if number > 1 else 1.2)
    report(run, display, 0, 2, 1.1)
    report(run, display, 0, 3, 1.0)
    line = next(line for line in drawn(display._view(), 200, 49) if line.strip().startswith("*0"))
    curve = line.split()[-1]
    first, last = curve[0], curve[-1]
    assert len(curve) == 3
    assert first > last == "▁"
    display.leave()


def test_narrow_terminals_keep_what_matters_and_name_the_rest(tmp_path: Path) -> None:
    view = finished(tmp_path, 9)._view()
    lines = drawn(view, 60, 23)
    head = next(line for line in lines if line.startswith("trial"))
    assert head.split() == ["trial", "status", "epoch", "val_loss", "val_acc", "backbone", "lr", "optimiz…"]
    assert "no room for dropout, at, last, curve" in lines


def test_without_blocks_there_is_no_curve(tmp_path: Path) -> None:
    view = replace(finished(tmp_path, 9)._view(), ascii=True, waiting="starting Ray on this machine")
    lines = drawn(view, 200, 49)
    assert not any("curve" in line for line in lines)
    assert lines[-1][1:] == " starting Ray on this machine"
    assert lines[-1].isascii()


def test_bars_are_calm_and_red_means_failure(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 2)
    display = Display(run, spec, io.StringIO(), "plain")
    for number, status in enumerate(("completed", "failed")):
        begin(run, display, number)
        report(run, display, number, 5, 1.0)
        end(run, display, number, status, "why")
    found = columns(list(display._rows.values()), [], {}, "val_loss", None, True)
    bars = next(column for column in found if not column.head).cells
    styles = [(bar.complete_style, bar.finished_style) for bar in bars if isinstance(bar, ProgressBar)]
    assert styles == [("cyan", "cyan"), ("red", "red")]


def test_a_decision_that_the_rungs_seem_to_contradict_is_explained(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 8)
    display = Display(run, spec, io.StringIO(), "plain")
    scheduler = make_scheduler(spec.scheduler)
    for number, loss in enumerate([0.95, 1.0107, 1.2, 1.3, 1.4, 1.5]):
        begin(run, display, number)
        each = EpochReport(number, 1, 1, 10, {"val_loss": loss, "val_accuracy": 0.5}, 2.0, "")
        decision = scheduler.observe(each)
        display.reported(each, run.record_report(each, decision))
        if decision == "stop":
            end(run, display, number, "stopped")
    text = " ".join(drawn(display._view(), 80, None))
    assert "Rungs move as trials arrive: trial 1 had 1.0107 when 0.9500 was needed" in text


def test_a_spinner_shows_what_is_waited_for_and_goes(tmp_path: Path) -> None:
    run, spec = new_run(tmp_path, 2)
    stream = io.StringIO()
    display = Display(run, spec, stream, "plain")
    display.waiting("starting Ray on this machine")
    assert "starting Ray on this machine" in drawn(display._view(), 80, None)[-1]
    display.waiting("")
    assert not any("Ray" in line for line in drawn(display._view(), 80, None))
    assert stream.getvalue().count("starting Ray") == 1


def test_of_a_resized_terminal_as_many_lines_are_wiped_as_the_picture_now_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    run, spec = new_run(tmp_path, 2)
    terminal = Terminal()
    display = Display(run, spec, terminal, "live")
    assert display._live is not None

    def wiped(width: int) -> int:
        """Lines that the next picture wipes away."""
        display._console.size = ConsoleDimensions(width, 24)
        before = len(terminal.getvalue())
        display._live.refresh()  # type: ignore[union-attr]
        return terminal.getvalue()[before:].count("\x1b[2K")

    display._console.size = ConsoleDimensions(80, 24)
    display.started()
    same = wiped(80)
    lengths = display._live._drawn.lengths
    # A narrower terminal breaks the longest line in two.
    assert wiped(max(lengths) - 1) == same + sum(length == max(lengths) for length in lengths) > same
    assert wiped(80) == same
    assert wiped(90) == same
    display.close()
    assert "\x1b[2J" not in terminal.getvalue(), "it would be kept in the lines to scroll back to"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    """A pipe whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("mode", ["plain", "json", "live"])
def test_a_closed_stream_does_not_reach_the_sweep(tmp_path: Path, mode: Any) -> None:
    run, spec = new_run(tmp_path, 3)
    sweep(run, Display(run, spec, Closed(), mode))
    assert len(run.history) == 3


CHILD = """
import sys; sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.displayed import new_run, sweep
from fashion.display.live import Display
run, spec = new_run(Path({folder!r}), 3)
sweep(run, Display(run, spec, mode={mode!r}))
print("the sweep has ended", file=sys.stderr)
"""


def child(folder: Path, mode: str) -> list[str]:
    return [sys.executable, "-c", CHILD.format(root=str(Path(__file__).parents[2]), folder=str(folder), mode=mode)]


def test_head_may_close_the_pipe(tmp_path: Path) -> None:
    process = subprocess.Popen(child(tmp_path, "plain"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait() == 0
    assert errors.strip() == "the sweep has ended"


def test_a_terminal_gets_the_live_picture(tmp_path: Path) -> None:
    terminal, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(child(tmp_path, "auto"), stdout=other, stderr=subprocess.PIPE, env=environment)
    os.close(other)
    content = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # Linux reports a closed terminal so
            break
        if not block:
            break
        content += block
    os.close(terminal)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", content.decode())
    assert "\x1b[" in content.decode()
    assert "2/3 trials: 1 waiting, 1 stopped, 1 failed" in text
    assert "trial 0 failed: epoch 2: val_loss is nan" in text
    assert "decision=" not in text
