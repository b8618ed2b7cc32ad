"""What Tune is told to run, in a module that the driver imports without loading torch, which takes it seconds."""

from __future__ import annotations

from typing import Any

from fashion.training.task import SharedInputs


def run_trial(config: dict[str, Any], shared: SharedInputs) -> None:
    """The function that Tune runs: `config` holds "number" and "config" (the trial's configuration as JSON)."""
    from fashion.engine.tune_trial import run_trial as run

    run(config, shared)
