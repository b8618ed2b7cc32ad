"""The worker processes of one trial, without Ray."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

# A process that imports torch anew takes seconds. These are forked from one that has imported it, once a session.
PRELOADED = ["pytest", "pyarrow.parquet", "boto3", "tests.support.trained", "fashion.training.worker"]


def run_workers(worker: Callable[..., None], count: int, *arguments: Any) -> None:
    """`worker(rank, *arguments)` in `count` processes with this one's environment, to their end.

    Raises ProcessRaisedException, with the traceback, when one of them fails.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    start_processes(_with_environment, (dict(os.environ), worker, arguments), count, start_method="forkserver")


def _with_environment(rank: int, environment: dict[str, str], worker: Callable[..., None], arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)  # the server's is that of the first test that asked
    worker(rank, *arguments)
