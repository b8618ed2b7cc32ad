"""Promoting an ensemble to `RUN/ensemble`: its members' weights, what is said of each, and what is said of them all.

The folder is flat, as a bucket has it: model.json names the members, member-1.json and member-1.safetensors are what
`best/` has of a single model, and so on. Nothing in it refers to a place outside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion.files import now, write_atomic
from fashion.record.cards.ensemble_card import ensemble_card
from fashion.record.cards.model_card import NAME as CARD
from fashion.record.promote import DESCRIPTION, check_checkpoint, replacing, write_model
from fashion.record.ranking import Ranked
from fashion.record.run import Run

FOLDER = "ensemble"
FORMAT = 2  # of model.json; versions that know single models alone read format 1 and refuse this one


def promote_ensemble(run: Run, members: Sequence[tuple[Run, Ranked, int]], said: Mapping[str, Any]) -> Path:
    """Copy the members' weights to the run's folder `ensemble`, and write model.json and the card beside them. Returns
    the folder.

    members: each with the run that it is of and how often it was picked, which is its weight. said: what else
    model.json says: `temperatures` (of each attribute by name), `metrics`, and how they were found.

    The folder is whole or absent at any moment. Raises RunError where another process keeps promoting, CheckpointError
    where a checkpoint is missing, damaged or not the recorded one.
    """

    def check() -> None:
        for of, member, _ in members:
            check_checkpoint(of, member, of.checkpoint_path(member.trial, member.epoch))

    with replacing(run, FOLDER, weights_name(1), check) as fresh:
        written = []
        for place, (of, member, count) in enumerate(members, start=1):
            told = write_model(of, member, fresh, weights_name(place), description_name(place))
            named = {key: told[key] for key in ("run", "trial", "epoch")}
            written.append({"description": description_name(place), **named, "count": count, **_brief(told)})
        description = {
            "format": FORMAT,
            "kind": FOLDER,
            "run": run.name,
            "members": written,
            "attributes": told["attributes"],
            "label_counts": run.manifest["label_counts"],
            **said,
            "promoted": now(),
        }
        write_atomic(fresh / DESCRIPTION, json.dumps(description, indent=2, allow_nan=False).encode() + b"\n")
        write_atomic(fresh / CARD, ensemble_card(run.manifest, description).encode())
    return run.path / FOLDER


def weights_name(place: int) -> str:
    """The file of the weights of the member at that place, from 1."""
    return f"member-{place}.safetensors"


def description_name(place: int) -> str:
    return f"member-{place}.json"


def _brief(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the ensemble's model.json repeats of a member's own."""
    data = told["config"].get("data", {})
    return {
        "backbone": told["config"].get("model", {}).get("backbone"),
        "crop": data.get("crop"),
        "val_loss": told["metrics"].get("val_loss"),
        "val_accuracy": told["metrics"].get("val_accuracy"),
        "bytes": told["weights"]["bytes"],
        "sha256": told["weights"]["sha256"],
    }
