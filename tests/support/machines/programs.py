"""Where programs are found in a shell where no environment is activated and root's folders are not on PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

BIN = Path(sys.executable).parent  # of the environment that runs the tests: python, ray, fashion-sweep
PATH = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def which(name: str) -> str | None:
    """The program's path, if it is installed."""
    return shutil.which(name, path=PATH)
