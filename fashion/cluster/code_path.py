"""Where Ray's workers find this package: they must import the very one that the command runs.

Ray puts the script's folder and the current folder in front of each worker's `sys.path`. A `fashion.py` of the user's
there, or an older checkout, would be imported instead, and the record would name code that did not train.
"""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

ABOVE_PACKAGE = Path(__file__).parents[2]


def folders_for_workers(
    joined: bool, above: Path = ABOVE_PACKAGE, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """What must stand first in a worker's `sys.path`: the folder above the package, and nothing where the worker's
    interpreter looks anyway.

    Installed packages stay where they are in the order, behind the standard library and PYTHONPATH. `joined`: nodes of
    a cluster that is running already have packages of their own; `doctor`, and each worker, tell where one differs.
    """
    if joined:
        return []
    known = [*site.getsitepackages(), site.getusersitepackages()]
    known += [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    return [] if str(above) in map(os.path.abspath, known) else [str(above)]
