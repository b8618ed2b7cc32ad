"""Any standard output will do: closed, piped to a reader that goes, not UTF-8, a lost terminal, a full disk."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from fashion.display.streams import guarded_streams, reader_gone
from fashion.errors import UserError


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pipe whose writing end is standard output. Yields its reading end."""
    reading, writing = os.pipe()
    stream = open(writing, "w", encoding="iso-8859-1")  # noqa: SIM115 (closed below)
    monkeypatch.setattr(sys, "stdout", stream)
    yield reading
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr(sys, "unraisablehook", lambda _: None)
        with contextlib.suppress(OSError):
            stream.close()


def test_a_reader_that_goes_costs_nothing(pipe: int) -> None:
    before = sys.stdout
    os.close(pipe)
    done = False
    with guarded_streams():
        print("a line", flush=True)
        Console(file=sys.stdout).print("rich would end the command with 1 here")
        assert reader_gone(sys.stdout)
        print("x" * 100_000)
        done = True
    assert done
    assert sys.stdout is before


def test_what_the_encoding_lacks_is_a_question_mark(pipe: int) -> None:
    with guarded_streams():
        print("Blüse 連衣裙 \udcff")
        assert sys.stdout.encoding == "iso-8859-1"
        assert not reader_gone(sys.stdout)
    assert os.read(pipe, 100).decode("iso-8859-1") == "Blüse ??? ?\n"
    os.close(pipe)


def test_a_closed_stdout_is_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with guarded_streams():
        assert sys.stdout is not None
        assert not sys.stdout.isatty()
    assert sys.stdout is None


def test_a_pipe_that_does_not_block_is_waited_for(pipe: int) -> None:
    os.set_blocking(sys.stdout.fileno(), False)
    read, text = os.fork(), "x" * 200_000  # more than a pipe holds
    if read == 0:
        found = 0
        while found < len(text):
            found += len(os.read(pipe, 1 << 16))
        os._exit(0)
    os.close(pipe)
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
