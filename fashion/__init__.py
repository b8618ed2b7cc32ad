"""Hyper-parameter sweeps on Ray for multi-head image classification.

What a script or a notebook needs is here (docs/python.md). Each name is imported when it is first used, so that
`import fashion` is quick and reading a run needs neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fashion.api.model import EnsembleModel as EnsembleModel
    from fashion.api.model import ImageLike as ImageLike
    from fashion.api.model import Prediction as Prediction
    from fashion.api.model import PredictionModel as PredictionModel
    from fashion.api.model import load_model as load_model
    from fashion.api.recorded_run import RecordedRun as RecordedRun
    from fashion.api.recorded_run import open_run as open_run
    from fashion.api.sweeps import SweptRun as SweptRun
    from fashion.api.sweeps import load_spec as load_spec
    from fashion.api.sweeps import run as run
    from fashion.api.validation import AttributePredictions as AttributePredictions
    from fashion.api.validation import ValidationPredictions as ValidationPredictions
    from fashion.config.trial import TrialConfig as TrialConfig
    from fashion.data.lists import Attribute as Attribute
    from fashion.errors import BlockedError as BlockedError
    from fashion.errors import CheckpointError as CheckpointError
    from fashion.errors import DataError as DataError
    from fashion.errors import Problem as Problem
    from fashion.errors import ResourcesError as ResourcesError
    from fashion.errors import RunError as RunError
    from fashion.errors import SpecError as SpecError
    from fashion.errors import StorageError as StorageError
    from fashion.errors import UserError as UserError
    from fashion.errors import WeightsError as WeightsError
    from fashion.reading.certainty import Certainty as Certainty
    from fashion.reading.certainty import Disagreement as Disagreement
    from fashion.reading.certainty import TrialCertainty as TrialCertainty
    from fashion.reading.ensembles.found import Ensemble as Ensemble
    from fashion.reading.ensembles.found import EnsembleMember as EnsembleMember
    from fashion.record.ranking import Ranked as Ranked
    from fashion.spec.sweep_spec import SweepSpec as SweepSpec
    from fashion.statistics.results import Difference as Difference
    from fashion.statistics.results import Interval as Interval
    from fashion.sweep.outcome import SweepOutcome as SweepOutcome

# Public name -> the module that has it.
_MODULES = {
    "Attribute": "fashion.data.lists",
    "AttributePredictions": "fashion.api.validation",
    "BlockedError": "fashion.errors",
    "Certainty": "fashion.reading.certainty",
    "CheckpointError": "fashion.errors",
    "DataError": "fashion.errors",
    "Difference": "fashion.statistics.results",
    "Disagreement": "fashion.reading.certainty",
    "Ensemble": "fashion.reading.ensembles.found",
    "EnsembleMember": "fashion.reading.ensembles.found",
    "EnsembleModel": "fashion.api.model",
    "ImageLike": "fashion.api.model",
    "Interval": "fashion.statistics.results",
    "Prediction": "fashion.api.model",
    "PredictionModel": "fashion.api.model",
    "Problem": "fashion.errors",
    "Ranked": "fashion.record.ranking",
    "RecordedRun": "fashion.api.recorded_run",
    "ResourcesError": "fashion.errors",
    "RunError": "fashion.errors",
    "SpecError": "fashion.errors",
    "StorageError": "fashion.errors",
    "SweepOutcome": "fashion.sweep.outcome",
    "SweepSpec": "fashion.spec.sweep_spec",
    "SweptRun": "fashion.api.sweeps",
    "TrialCertainty": "fashion.reading.certainty",
    "TrialConfig": "fashion.config.trial",
    "UserError": "fashion.errors",
    "ValidationPredictions": "fashion.api.validation",
    "WeightsError": "fashion.errors",
    "load_model": "fashion.api.model",
    "load_spec": "fashion.api.sweeps",
    "open_run": "fashion.api.recorded_run",
    "run": "fashion.api.sweeps",
}

__all__ = [
    "Attribute",
    "AttributePredictions",
    "BlockedError",
    "Certainty",
    "CheckpointError",
    "DataError",
    "Difference",
    "Disagreement",
    "Ensemble",
    "EnsembleMember",
    "EnsembleModel",
    "ImageLike",
    "Interval",
    "Prediction",
    "PredictionModel",
    "Problem",
    "Ranked",
    "RecordedRun",
    "ResourcesError",
    "RunError",
    "SpecError",
    "StorageError",
    "SweepOutcome",
    "SweepSpec",
    "SweptRun",
    "TrialCertainty",
    "TrialConfig",
    "UserError",
    "ValidationPredictions",
    "WeightsError",
    "load_model",
    "load_spec",
    "open_run",
    "run",
]


if not TYPE_CHECKING:  # else every name would be there for a type checker

    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value  # the next time it is found without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
