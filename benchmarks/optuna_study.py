"""Optuna with its Hyperband pruner over the report's loop, in one process or in several that share a journal file.

    python -m benchmarks.optuna_study FILE      (see `child.module`)

The configurations are enqueued, so that every contender trains the same ones. One process has all cores for its
training threads; of several each has its share.
"""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.child import arguments_of, note, side_by_side
from benchmarks.plain import Settings, epochs

NAME = "sweep"  # Hyperband assigns trials to its brackets by the study's name


def worker(given: dict[str, Any]) -> None:
    """Train enqueued configurations until none is left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(max(given["cores"] // given["processes"], 1))
    study = open_study(given)
    while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.optimize(lambda trial: objective(trial, given), n_trials=1)


def objective(trial: optuna.Trial, given: dict[str, Any]) -> float:
    if trial.number >= len(given["configs"]):
        raise optuna.TrialPruned  # another process took the last one that was enqueued
    sampled = {
        "lr": trial.suggest_float("lr", *given["lr"], log=True),
        "weight_decay": trial.suggest_float("weight_decay", *given["weight_decay"], log=True),
        "dropout": trial.suggest_categorical("dropout", given["dropout"]),
    }
    settings = Settings(**{**given["configs"][trial.number]["settings"], **sampled})
    best, path = math.inf, Path(given["storage"]) / f"{trial.number}.pt"
    for epoch, val_loss, model in epochs(settings, Path(given["root"])):
        note(given["notes"], event="epoch", number=trial.number, epoch=epoch, val_loss=val_loss)
        if val_loss < best:
            best = val_loss
            torch.save(model.state_dict(), path)
        trial.report(val_loss, epoch)
        if epoch < settings.epochs and trial.should_prune():
            raise optuna.TrialPruned
    return best


def open_study(given: dict[str, Any]) -> optuna.Study:
    most = max(config["settings"]["epochs"] for config in given["configs"])
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=given["grace"], max_resource=most, reduction_factor=given["reduction"]
    )
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(Path(given["storage"]) / "study.log"))), study_name=NAME,
        pruner=pruner, load_if_exists=True,
    )  # fmt: skip


def main() -> None:
    given = arguments_of()
    Path(given["storage"]).mkdir(parents=True)
    study = open_study(given)
    for config in given["configs"]:
        study.enqueue_trial({name: config["settings"][name] for name in ("lr", "weight_decay", "dropout")})
    if given["processes"] == 1:
        worker(given)
        return
    processes = [
        multiprocessing.get_context("spawn").Process(target=worker, args=(given,)) for _ in range(given["processes"])
    ]
    side_by_side(processes)


if __name__ == "__main__":
    main()
