"""Long work shows itself, on a terminal and off it; quick work does not, and stdout stays clean."""

from __future__ import annotations

import os
import sys
import time
from contextlib import redirect_stdout

import pytest

from fashion.display.progress import Bars


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is taken for a terminal that can move its cursor."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")


def test_off_a_terminal_long_work_prints_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 2.5, 3.0, 16.0, 18.0, 100.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Bars() as bars:
        for done in range(6):
            bars("decoding", done, 6)
        bars("quick", 1, 1)
    out, err = capsys.readouterr()
    assert err.splitlines() == ["decoding: 2 of 6", "decoding: 5 of 6"]
    assert out == ""


def test_where_nobody_knows_how_much_there_is_only_what_is_done_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Bars() as bars:
        bars("images looked for", 1000, 0)
        bars("images looked for", 2000, 0)
    assert capsys.readouterr().err.splitlines() == ["images looked for: 2000"]


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_without_cursor_movement_lines_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    clock = iter([0.0, 2.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Bars() as bars:
        for done in range(2):
            bars("decoding", done, 2)
    assert "decoding: 1 of 2" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_each_work_has_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        bars.of("decoding")(3, 6)
        bars("resizing", 1, 2)
        bars("images looked for", 3000, 0)
    out, err = capsys.readouterr()
    assert "decoding" in err
    assert "3/6" in err
    assert "resizing" in err
    assert "3000/?" in err
    assert out == ""


@pytest.mark.usefixtures("terminal")
def test_bars_leave_stdout_as_it_was() -> None:
    """Bars that begin where stdout is led elsewhere (as Ray's is) and end after it: `best --predict` on a terminal."""
    before = sys.stdout
    with Bars() as bars:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            bars("predicting", 1, 2)
            print("Ray's own words")
        assert sys.stdout is before
    assert sys.stdout is before
