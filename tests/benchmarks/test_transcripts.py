"""The documentation's transcripts, made anew."""

from __future__ import annotations

import pytest

from benchmarks.transcripts import MOST, retold


def test_what_commands_print_takes_the_place_of_what_stood_there() -> None:
    text = "Words.\n\n```\n$ printf 'one\\ntwo\\n'\nold\n$ realpath three\n```\n\n```\nfashion-sweep ls\n```\n"
    assert retold(text) == text.replace("old\n", "one\ntwo\n").replace("three\n", "three\nthree\n")
    assert retold(retold(text)) == retold(text)


def test_a_long_output_is_cut_and_a_command_that_fails_is_told() -> None:
    lines = retold("```\n$ seq 100\n```\n").splitlines()
    assert len(lines) == MOST + 3
    assert lines[-2] == "..."
    with pytest.raises(RuntimeError, match="exit code 1"):
        retold("```\n$ false\n```\n")
