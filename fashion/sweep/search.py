"""Where configurations come from: from the spec and a trial's number alone, or from an Optuna study of the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from fashion.config.trial import TrialConfig, read_config
from fashion.record.run import Run
from fashion.record.trial import Trial
from fashion.spec.space import Choice, Distribution, Int, LogUniform, Scalar, Uniform
from fashion.spec.sweep_spec import SweepSpec

MOST_ASKED = 100  # suggestions for one trial


class ConfigSource(Protocol):
    """Gives trial `number` its configuration, and is told how trials ended."""

    def config(self, number: int) -> TrialConfig: ...

    def ended(self, trial: Trial) -> None: ...


def make_source(spec: SweepSpec, run: Run) -> ConfigSource:
    """The source of `spec.search.method`, which knows what the run's record holds."""
    return SOURCES[spec.search.method](spec, run)


class SeededSource:
    """A pure function of the spec and the trial's number."""

    def __init__(self, spec: SweepSpec, run: Run | None = None) -> None:
        self.spec = spec

    def config(self, number: int) -> TrialConfig:
        return self.spec.trial(number)

    def ended(self, trial: Trial) -> None:
        pass


class OptunaSource:
    """Tree-structured Parzen estimator (Bergstra et al. 2011) over the spec's space, conditional dimensions included.

    Trials that the scheduler stopped count as pruned, with every value that they reported. When a run is resumed, the
    study is filled from the record, so Optuna keeps nothing of its own. A subclass may take another sampler.
    """

    def __init__(self, spec: SweepSpec, run: Run) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.spec = optuna, spec
        # The number of recorded trials is part of the seed: a resumed sampler must not draw its first numbers again.
        sampler = self.sampler(spec.search.seed + len(run.trials))
        direction: Literal["minimize", "maximize"] = "minimize" if spec.scheduler.mode == "min" else "maximize"
        self.study = optuna.create_study(direction=direction, sampler=sampler)
        self.asked: dict[int, Any] = {}
        for trial in run.trials.values():
            if trial.final:
                self.ended(trial)

    def sampler(self, seed: int) -> Any:
        """Optuna's sampler of the study."""
        return self.optuna.samplers.TPESampler(seed=seed)

    def config(self, number: int) -> TrialConfig:
        """A suggestion that keeps every rule. Loading has refused spaces that allow another, but for the very ends of
        ranges, which Optuna may take: warmup_epochs {uniform: [0, 5]} is below epochs 5 anywhere else."""
        for _ in range(MOST_ASKED - 1):
            try:
                return self._suggested(number)
            except ValidationError:
                self.study.tell(self.asked.pop(number), state=self.optuna.trial.TrialState.FAIL)
        return self._suggested(number)

    def _suggested(self, number: int) -> TrialConfig:
        asked = self.study.ask()
        self.asked[number] = asked

        def suggest(name: str, distribution: Distribution) -> Scalar:
            if isinstance(distribution, Choice):
                return asked.suggest_categorical(name, list(distribution.values))
            if isinstance(distribution, Int):
                step = 1 if distribution.log else distribution.step
                return asked.suggest_int(name, distribution.lo, distribution.hi, step=step, log=distribution.log)
            assert isinstance(distribution, Uniform | LogUniform)
            return asked.suggest_float(name, distribution.lo, distribution.hi, log=isinstance(distribution, LogUniform))

        return self.spec.build(suggest, number)

    def ended(self, trial: Trial) -> None:
        states = self.optuna.trial.TrialState
        state = {"completed": states.COMPLETE, "stopped": states.PRUNED}.get(trial.status, states.FAIL)
        metric, best = self.spec.scheduler.metric, max if self.spec.scheduler.mode == "max" else min
        values = {report.epoch: report.metrics[metric] for report in trial.reports}
        asked = self.asked.pop(trial.number, None)
        if asked is not None:
            for epoch, value in values.items():
                asked.report(value, epoch)
            self.study.tell(asked, best(values.values()) if state == states.COMPLETE else None, state)
            return
        found = self._recorded(trial.config, trial.number)
        if found is None:
            return
        params, distributions = found
        self.study.add_trial(
            self.optuna.trial.create_trial(
                state=state,
                value=best(values.values()) if state == states.COMPLETE else None,
                params=params,
                distributions=distributions,
                intermediate_values=values,
            )
        )

    def _recorded(self, config: Mapping[str, Any], number: int) -> tuple[dict[str, Scalar], dict[str, Any]] | None:
        """Values and distributions of a recorded configuration's dimensions.

        None for a configuration outside the spec's space, whose ranges were edited since: a study holds one space.
        """
        found = recorded_dimensions(self.spec, config, number)
        if found is None or not found.built:
            return None
        distributions = {name: optuna_distribution(each) for name, each in found.distributions.items()}
        return found.values, distributions


@dataclass(frozen=True)
class RecordedDimensions:
    """The dimensions of a spec's space that apply to a recorded configuration, all of its values inside of them.

    built: whether the spec with these values gives that very configuration; if not, a fixed field was edited since."""

    values: dict[str, Scalar]
    distributions: dict[str, Distribution]
    built: bool


def recorded_dimensions(spec: SweepSpec, config: Mapping[str, Any], number: int) -> RecordedDimensions | None:
    """The dimensions of trial `number`'s recorded configuration; None where it lies outside of the spec's space."""
    try:
        config = read_config(config).model_dump(mode="json")  # whole, if an earlier version recorded it
    except ValidationError:
        return None
    values: dict[str, Scalar] = {}
    distributions: dict[str, Distribution] = {}

    def suggest(name: str, distribution: Distribution) -> Scalar:
        section, field = name.split("[")[0].split(".")  # train.lr[sgd] is a dimension of the field train.lr
        value: Scalar = config[section][field]
        values[name], distributions[name] = value, distribution
        return value

    try:
        built = spec.build(suggest, number).model_dump(mode="json")
    except ValidationError:
        return None
    built["data"]["root"] = config["data"]["root"]  # a data set may have moved
    inside = all(distributions[name].contains(value) for name, value in values.items())
    return RecordedDimensions(values, distributions, built == config) if inside else None


def optuna_distribution(distribution: Distribution) -> Any:
    """The same distribution as one of Optuna's."""
    from optuna import distributions as of

    if isinstance(distribution, Choice):
        return of.CategoricalDistribution(list(distribution.values))
    if isinstance(distribution, Int):
        step = 1 if distribution.log else distribution.step
        return of.IntDistribution(distribution.lo, distribution.hi, distribution.log, step)
    assert isinstance(distribution, Uniform | LogUniform)
    return of.FloatDistribution(distribution.lo, distribution.hi, isinstance(distribution, LogUniform))


SOURCES: Mapping[str, Callable[[SweepSpec, Run], ConfigSource]] = {
    "random": SeededSource,
    "grid": SeededSource,
    "optuna": OptunaSource,
}
