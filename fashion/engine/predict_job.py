"""The final predict job on a cluster: the promoted model on a Ray worker, with a GPU where the cluster has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError

from fashion.bucket.address import Address
from fashion.cluster.interrupts import deferred, interruptible
from fashion.cluster.placement import largest_process
from fashion.cluster.session import cluster
from fashion.errors import BlockedError, FashionError, UserError
from fashion.prediction.write import BEST, PredictionInput, Written, fetch_predictions, predict_here
from fashion.training.task import code_here, require_code

POLL_SECONDS = 0.25
STOP_SECONDS = 5.0  # for a worker to end in good order when somebody asks the command to end


class PredictionStopped(FashionError):  # noqa: N818 (somebody asked for it)
    """The command that wants the prediction is ending."""


@ray.remote(max_concurrency=2)  # type: ignore[call-overload]  # Ray's stubs lack it
class Predictor:
    """Predicts on one thread of this process and answers on the other how far it is."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.done, self.stopped = (0, 0), False

    def run(
        self, promoted: Path | Address, source: PredictionInput, folder: Path, model: str, code: str
    ) -> Written | UserError:
        try:
            require_code(code)
            return predict_here(promoted, source, folder, self._note, model)
        except UserError as error:
            # As a value: Ray would wrap a raised one in its own type and traceback.
            return error
        except PredictionStopped:
            return UserError("The prediction was stopped.")

    def progress(self) -> tuple[int, int]:
        return self.done

    def stop(self) -> None:
        """Let `run` end at its next batch, and remove what it has half written."""
        self.stopped = True

    def _note(self, done: int, total: int) -> None:
        self.done = (done, total)
        if self.stopped:
            raise PredictionStopped


def predict_on_cluster(
    promoted: Path | Address,
    source: PredictionInput,
    folder: Path,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    address: str,
    model: str = BEST,
) -> Written:
    """Run `predict_here` as a job of the Ray cluster at `address` and follow it.

    For a run in a bucket the worker needs nothing of this machine but the images. Raises what `predict_here` raises,
    ResourcesError where no cluster answers, and StorageError.
    """
    with interruptible(), cluster(address, note):
        cpus, gpu = largest_process()
        cpus = 1 if gpu else cpus
        predictor = Predictor.options(num_cpus=cpus, num_gpus=1 if gpu else 0).remote(cpus)  # type: ignore[attr-defined]  # Ray's decorator
        pending = predictor.run.remote(promoted, source, folder, model, code_here())
        try:
            while not ray.wait([pending], timeout=POLL_SECONDS)[0]:
                done, total = ray.get(predictor.progress.remote())
                if total:
                    progress(done, total)
            outcome = ray.get(pending)
        except KeyboardInterrupt:
            with deferred():
                predictor.stop.remote()
                ray.wait([pending], timeout=STOP_SECONDS)
            raise
        except (RayActorError, OutOfMemoryError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BlockedError(
                f"The process that predicts has died: {first} The same command goes on where it stopped."
            ) from error
    if isinstance(outcome, UserError):
        raise outcome
    return fetch_predictions(promoted, folder.name, outcome) if isinstance(promoted, Address) else outcome
