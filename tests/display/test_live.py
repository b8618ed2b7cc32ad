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
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fashion.display.live import Display
from fashion.display.tables import picture
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from tests.support.displayed import begin, end, new_run, report, sweep


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
    assert "trial 0, epoch 1 of 10: val_loss 1.5000" in text
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
