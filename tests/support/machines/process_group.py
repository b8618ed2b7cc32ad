"""How the workers of a test leave their process group."""

from __future__ import annotations

import gc

from torch import distributed


def leave_together() -> None:
    """Wait for all workers, then leave. Call it last."""
    gc.collect()  # DDP's threads must not outlive the group, or the interpreter may abort as it ends
    distributed.barrier()
    distributed.destroy_process_group()
