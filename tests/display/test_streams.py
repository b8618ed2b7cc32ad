"""Any standard output will do: closed, piped to a reader that goes, not UTF-8, a lost terminal, a full disk."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from rich.console import Console

from fashion.display.streams import guarded_streams, reader_gone
from fashion.errors import UserError


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: its reading end, and a stream on the other one. Tests make that standard output, since pytest sets its
    own between fixtures and tests."""
    reading, writing = os.pipe()
    stream = open(writing, "w", encoding="iso-8859-1")  # noqa: SIM115 (closed below)
    yield reading, stream
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr(sys, "unraisablehook", lambda _: None)
        with contextlib.suppress(OSError):
            stream.close()


def test_a_reader_that_goes_costs_nothing(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, stream = pipe
    monkeypatch.setattr(sys, "stdout", stream)
    os.close(reading)
    done = False
    with guarded_streams():
        print("a line", flush=True)
        Console(file=sys.stdout).print("rich would end the command with 1 here")
        assert reader_gone(sys.stdout)
        print("x" * 100_000)
        done = True
    assert done
    assert sys.stdout is stream


def test_what_the_encoding_lacks_is_a_question_mark(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, stream = pipe
    monkeypatch.setattr(sys, "stdout", stream)
    with guarded_streams():
        print("Blüse 連衣裙 \udcff")
        assert sys.stdout.encoding == "iso-8859-1"
        assert not reader_gone(sys.stdout)
    assert os.read(reading, 100).decode("iso-8859-1") == "Blüse ??? ?\n"
    os.close(reading)


def test_a_closed_stdout_is_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with guarded_streams():
        assert sys.stdout is not None
        assert not sys.stdout.isatty()
    assert sys.stdout is None


def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, stream = pipe
    monkeypatch.setattr(sys, "stdout", stream)
    os.set_blocking(sys.stdout.fileno(), False)
    read, text = os.fork(), "x" * 200_000  # more than a pipe holds
    if read == 0:
        found = 0
        while found < len(text):
            found += len(os.read(reading, 1 << 16))
        os._exit(0)
    os.close(reading)
    with guarded_streams():
        sys.stdout.write(text)
    assert os.waitpid(read, 0)[1] == 0


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(UserError, match=r"standard output: .*No space left"), guarded_streams():
        print("lost")


def test_a_terminal_that_hangs_up_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(sys, "stdout", open(theirs, "w"))  # noqa: SIM115
    with guarded_streams():
        assert sys.stdout.isatty()
        os.close(ours)
        print("nobody is there", flush=True)
        assert reader_gone(sys.stdout)
        assert not sys.stdout.isatty()


def test_streams_in_memory_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with guarded_streams():
        assert sys.stdout is stream
        print("shown")
    assert stream.getvalue() == "shown\n"
