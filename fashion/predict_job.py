"""The final predict job: the promoted model, on a Ray worker with a GPU where the cluster has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
import torch

from fashion.cluster import cluster
from fashion.errors import UserError
from fashion.predictions import Source, Written, predict_into
from fashion.room import largest_process

POLL_SECONDS = 0.25


@ray.remote(max_concurrency=2)  # type: ignore[call-overload]  # Ray's stubs lack it
class Predictor:
    """Predicts on one thread of this process and answers on the other how far it is."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.done = (0, 0)

    def run(self, promoted: Path, source: Source, folder: Path, cache_dir: Path | None) -> Written | UserError:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return predict_into(promoted, source, folder, cache_dir, device, self._note)
        except UserError as error:
            # As a value: Ray would wrap a raised one in its own type and traceback.
            return error

    def progress(self) -> tuple[int, int]:
        return self.done

    def _note(self, done: int, total: int) -> None:
        self.done = (done, total)


def predict_on_cluster(
    promoted: Path,
    source: Source,
    folder: Path,
    cache_dir: Path | None,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    address: str | None = None,
) -> Written:
    """Run `predict_into` as a Ray job and follow it. Raises what `predict_into` raises."""
    with cluster(address, note):
        cpus, gpu = largest_process()
        cpus = 1 if gpu else cpus
        predictor = Predictor.options(num_cpus=cpus, num_gpus=1 if gpu else 0).remote(cpus)  # type: ignore[attr-defined]  # Ray's decorator
        pending = predictor.run.remote(promoted, source, folder, cache_dir)
        while not ray.wait([pending], timeout=POLL_SECONDS)[0]:
            done, total = ray.get(predictor.progress.remote())
            if total:
                progress(done, total)
        outcome = ray.get(pending)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome
