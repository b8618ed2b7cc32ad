"""Where configurations come from: the spec and a trial number alone, or an Optuna study fed from the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from fashion.config import TrialConfig, read_config
from fashion.record.run import Run
from fashion.record.trial import Trial
from fashion.spec.space import Choice, Distribution, Int, LogUniform, Scalar, Uniform
from fashion.spec.sweep_spec import SweepSpec


class Source(Protocol):
    """Gives trial `number` its configuration, and is told how trials ended."""

    def config(self, number: int) -> TrialConfig: ...

    def ended(self, trial: Trial) -> None: ...


def make_source(spec: SweepSpec, run: Run) -> Source:
    """The source of `spec.search.method`, knowing what the record knows."""
    return OptunaSource(spec, run) if spec.search.method == "optuna" else SeededSource(spec)


class SeededSource:
    """random and grid: a pure function of the spec and the trial's number."""

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec

    def config(self, number: int) -> TrialConfig:
        return self.spec.trial(number)

    def ended(self, trial: Trial) -> None:
        pass


class OptunaSource:
    """Tree-structured Parzen estimator (Bergstra et al. 2011) over the spec's space, conditional dimensions included.

    Trials that the scheduler stopped are told as pruned, with every value that they reported. On resumption the study
    is filled from the record, so nothing of Optuna's own needs to be kept.
    """

    def __init__(self, spec: SweepSpec, run: Run) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.spec = optuna, spec
        # Seeded with the number of recorded trials too: a resumed sampler must not draw its first numbers again.
        sampler = optuna.samplers.TPESampler(seed=spec.search.seed + len(run.trials))
        direction: Literal["minimize", "maximize"] = "minimize" if spec.scheduler.mode == "min" else "maximize"
        self.study = optuna.create_study(direction=direction, sampler=sampler)
        self.asked: dict[int, Any] = {}
        for trial in run.trials.values():
            if trial.final:
                self.ended(trial)

    def config(self, number: int) -> TrialConfig:
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
        """The dimensions of a recorded configuration: each has its field's name before any bracket.

        None for one that is not in the spec's space: its ranges were edited since, and a study holds one space.
        """
        of = self.optuna.distributions
        try:
            config = read_config(config).model_dump(mode="json")  # whole, if an earlier version recorded it
        except ValidationError:
            return None
        params: dict[str, Scalar] = {}
        distributions: dict[str, Any] = {}

        def suggest(name: str, distribution: Distribution) -> Scalar:
            section, field = name.split("[")[0].split(".")
            params[name] = value = config[section][field]
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
