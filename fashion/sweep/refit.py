"""A winner trained again on training and validation images together: the spec of that, and where it is kept.

The refit is a run of one trial in the winner's run directory, RUN/refit, with a record of its own: it is started,
killed and gone on with as any other, and its promoted model is RUN/refit/best. The sweep's own record and ranking stay
as they are, since no validation score of a refit could be compared with theirs.
"""

from __future__ import annotations

from typing import Any

from fashion.bucket.address import is_address, parse_address
from fashion.bucket.store import Store
from fashion.config.trial import read_config
from fashion.data.splits.joined import JOINED
from fashion.errors import Problem, RunError
from fashion.record.cards.refit_words import finite
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial import trained_on_val
from fashion.spec.sweep_spec import SweepSpec
from fashion.storage.working_copy import push_manifest
from fashion.sweep.extend import known_run, run_path

NAME = "refit"


def refit_spec(record: Run, winner: Ranked, spec: SweepSpec) -> SweepSpec:
    """The winner's configuration for one trial on both splits, of as many epochs as were best, with the resources of
    `spec`. A schedule spans those epochs, and so does a warm-up that would not fit into them its share of it.

    Raises RunError where the winner was trained on both already, or where RUN/refit is another winner's.
    """
    if trained_on_val(winner.config):
        rule = f"trial {winner.trial} was trained on the validation images already"
        raise RunError(Problem("--refit", rule, record.location, "There is nothing to add"))
    config = read_config(winner.config).model_dump(mode="json")
    train = {**config["train"], "epochs": winner.epoch, "fit_on": JOINED}
    if train["warmup_epochs"] >= winner.epoch:
        train["warmup_epochs"] *= winner.epoch / config["train"]["epochs"]
    asked = spec.to_json()
    wanted = SweepSpec.from_json(
        {
            "name": NAME,
            # The models of folds, too, become one that is trained on all images.
            "data": {**config["data"], "root": asked["data"]["root"], "folds": None},
            "model": config["model"],
            "train": train,
            "search": {"method": "random", "trials": 1, "seed": spec.search.seed},
            "scheduler": {"name": "fifo"},
            "resources": asked["resources"],
            "storage": record.location,
        }
    )
    if run_path(wanted).exists():
        there = known_run(wanted)
        found = SweepSpec.from_json(there.manifest["spec"])
        if found.trial(0).anywhere() != wanted.trial(0).anywhere():
            of = there.manifest.get("refit_of", {})
            got = f"that of trial {of['trial']}, epoch {of['epoch']}" if of else "another configuration"
            rule = f"must be the refit of trial {winner.trial}, epoch {winner.epoch}"
            raise RunError(Problem(there.location, rule, got, "Remove the folder, or give it another name"))
    return wanted


def note_origin(refit: Run, record: Run, winner: Ranked) -> None:
    """Put down in the refit's manifest whose it is, in the bucket, too, where it is kept in one."""
    origin: dict[str, Any] = {
        "run": record.name,
        "trial": winner.trial,
        "epoch": winner.epoch,
        "val_accuracy": finite(winner.metrics.get("val_accuracy")),
        "val_loss": finite(winner.val_loss),
    }
    if refit.manifest.get("refit_of") == origin:
        return
    with refit.lock():
        refit.update_manifest(refit_of=origin)
    if is_address(refit.location):
        push_manifest(Store(parse_address(refit.location)), refit.path)
