"""A promoted ensemble: what its `model.json` says, read from that folder alone, and the mean of its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.data.layout import Attribute
from fashion.data.lists import MISSING
from fashion.errors import CheckpointError, Problem
from fashion.files import parse, whole
from fashion.prediction.promoted import DESCRIPTION, Promoted, described, shares_of
from fashion.record.ensembles.promote_ensemble import FOLDER, FORMAT
from fashion.record.trial import metrics_from_json
from fashion.record.validate import check, metric
from fashion.statistics.calibration import COLDEST, HOTTEST, scaled
from fashion.statistics.ensemble import mixed
from fashion.statistics.outcomes import HeadLabels


@dataclass(frozen=True)
class PromotedEnsemble:
    """members: each with its own configuration, `descriptions` the files that say so, `counts` how often each was
    picked, which is its weight. temperatures: of each attribute. metrics: cross-fitted, by the names that reports have:
    losses in nats, shares in [0, 1]. shares: as `Promoted` has them."""

    run: str
    members: tuple[Promoted, ...]
    descriptions: tuple[str, ...]
    counts: tuple[int, ...]
    temperatures: tuple[float, ...]
    metrics: dict[str, float]
    shares: tuple[tuple[float, ...], ...] | None = None

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return self.members[0].attributes

    @property
    def class_counts(self) -> tuple[int, ...]:
        return self.members[0].class_counts

    @property
    def multi_label(self) -> tuple[bool, ...]:
        return self.members[0].multi_label

    def identity(self) -> dict[str, Any]:
        """What names the ensemble, for a record of what it predicted."""
        members = zip(self.members, self.counts, strict=True)
        return {"run": self.run, "ensemble": [{**each.identity(), "count": count} for each, count in members]}

    def together(
        self, members: Sequence[Sequence[NDArray[np.float32]]]
    ) -> tuple[NDArray[np.int64], tuple[NDArray[np.float32], ...]]:
        """What the members predict together for n images. members: of each one the probabilities (n, classes) of each
        head. Returns classes (n, columns), as `Predictions` has them, and probabilities (n, classes) of each head."""
        classes, found = [], []
        for head, (attribute, by) in enumerate(zip(self.attributes, self.temperatures, strict=True)):
            mean = mixed([member[head] for member in members], self.counts)
            shape = mean.shape if attribute.multi_label else mean.shape[:1]
            unlabelled = HeadLabels(attribute.name, len(attribute.classes), np.full(shape, MISSING, np.int64))
            probabilities = scaled(unlabelled, mean, by).astype(np.float32)
            found.append(probabilities)
            if attribute.multi_label:
                classes.append((probabilities > 0.5).astype(np.int64))
            else:
                classes.append(probabilities.argmax(axis=1)[:, None].astype(np.int64))
        return np.concatenate(classes, axis=1), tuple(found)


def read_ensemble(directory: str | Path) -> PromotedEnsemble | None:
    """The ensemble in a folder; None where that holds anything else, or nothing.

    Raises CheckpointError where it is damaged, or where members are missing or do not belong together.
    """
    place = Path(directory) / DESCRIPTION
    try:
        content = parse(place.read_bytes())
    except (OSError, ValueError):
        return None  # whoever expects a single model there will say what is wrong
    if not isinstance(content, dict) or content.get("kind") != FOLDER:
        return None
    if content.get("format") != FORMAT:
        raise CheckpointError(Problem(str(place), f"this version reads format {FORMAT}", repr(content.get("format"))))
    try:
        listed = content["members"]
        for each in listed:
            check(each, {"count": whole(1)})
        names = tuple(str(each["description"]) for each in listed)
        if not names or any(Path(name).name != name or "\0" in name for name in names):
            raise ValueError("members: each must be a file beside it")
        check(content["metrics"], dict.fromkeys(content["metrics"], metric))
        members = tuple(described(place.with_name(name)) for name in names)
        first = members[0]
        given = content["temperatures"]
        found = tuple(float(given[attribute.name]) for attribute in first.attributes)
        if not all(COLDEST <= value <= HOTTEST for value in found):
            raise ValueError(f"temperatures: each must be within {COLDEST:g} and {HOTTEST:g}")
        for name, each in zip(names, members, strict=True):
            if each.attributes != first.attributes:
                raise ValueError(f"{name}: predicts other attributes than {names[0]}")
        return PromotedEnsemble(
            run=str(content["run"]),
            members=members,
            descriptions=names,
            counts=tuple(int(each["count"]) for each in listed),
            temperatures=found,
            metrics=metrics_from_json(content["metrics"]),
            shares=shares_of(content.get("label_counts"), first.attributes),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fix = "Promote again: fashion-sweep best --ensemble"
        raise CheckpointError(Problem(str(place), "must describe an ensemble", repr(error), fix)) from error
