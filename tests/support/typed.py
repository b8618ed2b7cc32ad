"""Commands run in this process: what they print and which files they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fashion.cli.main import main

Shell = pytest.CaptureFixture[str]


def told(capsys: Shell, *arguments: str, code: int | tuple[int, ...] = 2) -> str:
    """What a command that ends with this exit code prints. A bug would raise its own exception."""
    try:
        main(arguments)
        found: Any = 0
    except SystemExit as ended:
        found = ended.code
    said = capsys.readouterr()
    assert found in (code if isinstance(code, tuple) else (code,)), (arguments, found, said)
    assert "Traceback" not in said.err
    return said.out + said.err


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out
