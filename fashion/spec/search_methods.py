"""The search methods by name: what a spec may ask for, and what loading and resuming must know of each.

How a method finds a trial's configuration is its row in `fashion.sweep.search`, which may import more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fashion.spec.space import Choice, Grid


@dataclass(frozen=True)
class SearchMethod:
    """about: what the spec's page says of it. crossed: the distributions whose values it combines in every way.
    adaptive: it suggests values from the results so far; otherwise a trial is a function of the spec and its number."""

    about: str
    crossed: tuple[type[Choice], ...] = ()
    adaptive: bool = False


SEARCH_METHODS: Mapping[str, SearchMethod] = {
    "random": SearchMethod("independent samples, grids crossed", crossed=(Grid,)),
    "grid": SearchMethod("every combination", crossed=(Grid, Choice)),
    "optuna": SearchMethod("TPE, a tree-structured Parzen estimator", adaptive=True),
}
