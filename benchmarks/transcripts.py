"""The transcripts of the documentation, from real runs:  python -m benchmarks.transcripts FILE...

A transcript is a fenced block whose first line begins with "$ ". Each of its lines that does is typed in the working
folder, and what it prints takes the place of what stood below it, with the paths of this folder left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from fashion.files import write_atomic

BLOCK = re.compile(r"^```\n(\$ .*?)^```$", re.M | re.S)
MOST = 40  # lines of one command's output; a longer one ends with an ellipsis
WIDTH = 110  # of a table, which would be wrapped here otherwise


def retold(text: str) -> str:
    """The text with the output of every transcript made anew. Raises RuntimeError for a command that fails."""
    return BLOCK.sub(lambda block: f"```\n{_typed(block[1])}```", text)


def _typed(transcript: str) -> str:
    commands = [line[2:] for line in transcript.splitlines() if line.startswith("$ ")]
    return "".join(f"$ {command}\n{_printed(command)}" for command in commands)


def _printed(command: str) -> str:
    environment = {**os.environ, "COLUMNS": str(WIDTH), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*shlex.split(command)], capture_output=True, text=True, env=environment, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stderr}")
    lines = [line.rstrip() for line in done.stdout.replace(f"{os.getcwd()}/", "").splitlines()]
    shown = lines if len(lines) <= MOST else [*lines[: MOST - 1], "..."]
    return "".join(f"{line}\n" for line in shown)


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        write_atomic(path, retold(path.read_text()).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
