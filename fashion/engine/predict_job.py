"""The final predict job: the promoted model, on a Ray worker with a GPU where the cluster has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError

from fashion.bucket.address import Address
from fashion.cluster.placement import largest_process
from fashion.cluster.session import cluster
from fashion.errors import BlockedError, UserError
from fashion.prediction.write import PredictionInput, Written, fetch_predictions, predict_in_bucket, predict_into

POLL_SECONDS = 0.25


@ray.remote(max_concurrency=2)  # type: ignore[call-overload]  # Ray's stubs lack it
class Predictor:
    """Predicts on one thread of this process and answers on the other how far it is."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.done = (0, 0)

    def run(self, promoted: Path | Address, source: PredictionInput, folder: Path) -> Written | UserError:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            if isinstance(promoted, Address):
                return predict_in_bucket(promoted, source, folder.name, device, self._note)
            return predict_into(promoted, source, folder, None, device, self._note)
        except UserError as error:
            # As a value: Ray would wrap a raised one in its own type and traceback.
            return error
        except (MemoryError, torch.OutOfMemoryError) as error:
            return BlockedError(f"There is too little memory for the model and one batch of images: {error}")

    def progress(self) -> tuple[int, int]:
        return self.done

    def _note(self, done: int, total: int) -> None:
        self.done = (done, total)


def predict_on_cluster(
    promoted: Path | Address,
    source: PredictionInput,
    folder: Path,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    address: str | None = None,
) -> Written:
    """Run `predict_into` as a Ray job and follow it. With the address of a run in a bucket instead of the promoted
    folder its worker needs nothing of this machine but the images. Raises what `predict_into` raises, and
    StorageError."""
    with cluster(address, note):
        cpus, gpu = largest_process()
        cpus = 1 if gpu else cpus
        predictor = Predictor.options(num_cpus=cpus, num_gpus=1 if gpu else 0).remote(cpus)  # type: ignore[attr-defined]  # Ray's decorator
        pending = predictor.run.remote(promoted, source, folder)
        try:
            while not ray.wait([pending], timeout=POLL_SECONDS)[0]:
                done, total = ray.get(predictor.progress.remote())
                if total:
                    progress(done, total)
            outcome = ray.get(pending)
        except (RayActorError, OutOfMemoryError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BlockedError(
                f"The process that predicts has died: {first} The same command goes on where it stopped."
            ) from error
    if isinstance(outcome, UserError):
        raise outcome
    return fetch_predictions(promoted, folder.name, outcome) if isinstance(promoted, Address) else outcome
