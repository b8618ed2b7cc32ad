"""How a test's worker leaves its process group."""

from __future__ import annotations

import gc

from torch import distributed


def leave_together() -> None:
    """After the last thing that the workers do with one another."""
    gc.collect()  # DDP's threads must not outlive the group, or the interpreter may abort as it ends
    distributed.barrier()
    distributed.destroy_process_group()
