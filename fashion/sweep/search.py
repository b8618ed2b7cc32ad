"""Where configurations come from: from the spec and a trial's number alone, or from an Optuna study of the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from fashion.config import TrialConfig, read_config
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
        of = self.optuna.distributions
        try:
            config = read_config(config).model_dump(mode="json")  # whole, if an earlier version recorded it
        except ValidationError:
            return None
        params: dict[str, Scalar] = {}
        distributions: dict[str, Any] = {}

        def suggest(name: str, distribution: Distribution) -> Scalar:
            section, field = name.split("[")[0].split(".")  # train.lr[sgd] is a dimension of the field train.lr
            value: Scalar = config[section][field]
            params[name] = value
            if isinstance(distribution, Choice):
                distributions[name] = of.CategoricalDistribution(list(distribution.values))
            elif isinstance(distribution, Int):
                step = 1 if distribution.log else distribution.step
                distributions[name] = of.IntDistribution(distribution.lo, distribution.hi, distribution.log, step)
            else:
                assert isinstance(distribution, Uniform | LogUniform)
                log = isinstance(distribution, LogUniform)
                distributions[name] = of.FloatDistribution(distribution.lo, distribution.hi, log)
            return value

        try:
            built = self.spec.build(suggest, number).model_dump(mode="json")
        except ValidationError:
            return None
        built["data"]["root"] = config["data"]["root"]  # a data set may have moved
        inside = all(self.spec.space[name].contains(value) for name, value in params.items())
        return (params, distributions) if inside and built == config else None


SOURCES: Mapping[str, Callable[[SweepSpec, Run], ConfigSource]] = {
    "random": SeededSource,
    "grid": SeededSource,
    "optuna": OptunaSource,
}
