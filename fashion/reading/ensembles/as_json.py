"""An ensemble as JSON values: what its `model.json` and `best --ensemble --json` say."""

from __future__ import annotations

import math
from typing import Any

from fashion.reading.ensembles.found import Ensemble
from fashion.record.trial import metrics_to_json


def ensemble_json(found: Ensemble) -> dict[str, Any]:
    """The ensemble as JSON values, its members aside: shares in [0, 1], losses in nats. A difference is the ensemble's
    value less the single model's; it is left out where it is no finite number."""
    run, single = found.single
    told = [each for each in found.differences if all(map(math.isfinite, vars(each.difference).values()))]
    return {
        "temperatures": dict(found.temperatures),
        "metrics": metrics_to_json(found.metrics),
        "single": {
            "run": run.name,
            "trial": single.trial,
            "epoch": single.epoch,
            "metrics": metrics_to_json(single.metrics),
        },
        "differences": [
            {
                "metric": each.metric,
                "first": each.first,
                "second": each.second,
                "difference": each.difference.value,
                "low": each.difference.low,
                "high": each.difference.high,
                "within_noise": each.difference.within_noise,
            }
            for each in told
        ],
        "images": found.images,
        "candidates": found.candidates,
        "left_out": list(found.left_out),
        "images_per_second": found.images_per_second,
        "parameters": found.parameters,
    }


def members_json(found: Ensemble) -> list[dict[str, Any]]:
    """The members as JSON values, those picked most often first."""
    return [
        {
            "run": member.run.location,
            "trial": member.chosen.trial,
            "epoch": member.chosen.epoch,
            "count": member.count,
            "metrics": metrics_to_json(member.chosen.metrics),
            "images_per_second": member.images_per_second,
            "parameters": member.parameters,
            "config": member.chosen.config,
        }
        for member in found.members
    ]
