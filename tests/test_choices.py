"""Every word that a spec allows has an implementation of its own: a word without one fails here, and trains nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fashion.bucket.address import OBJECT_STORES
from fashion.bucket.obstore_client import CLIENTS
from fashion.cli.main import COMMANDS, HIDDEN, cli
from fashion.config.trial import TrialConfig
from fashion.data.augment import AUTO_AUGMENTS, CROPS
from fashion.data.images import ORIENTATIONS, resize_square
from fashion.data.pictures.depth import DEPTHS
from fashion.data.views import EVAL_CROPS
from fashion.model.backbones import BACKBONES
from fashion.model.classifier import BIAS_INITS, FEATURE_NORMS, NORMALIZATIONS, build_model
from fashion.model.loss import CLASS_WEIGHTINGS, OBJECTIVES, build_loss
from fashion.model.metrics import Meter
from fashion.model.network import BUILDERS, OWN, WITH_CLASSIFIER
from fashion.model.optim import DECAYS, OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule
from fashion.model.parts.stage_features import FEATURE_STATS
from fashion.record.validate import SCHEDULER
from fashion.schedulers.metrics import METRICS
from fashion.schedulers.registry import SCHEDULERS, make_scheduler
from fashion.spec.docs import markdown
from fashion.spec.fields import sampled_rules, section_rules
from fashion.spec.search_methods import SEARCH_METHODS
from fashion.spec.settings import SchedulerConfig
from fashion.sweep.search import SOURCES
from fashion.training.autotune import candidates
from fashion.training.initial.heads import HEAD_INITS


def words(field: str) -> list[str]:
    """The words that the spec allows for a field."""
    section, name = field.split(".")
    return section_rules(section)[name].words


TABLES: dict[str, Mapping[str, Any]] = {
    "data.orientation": ORIENTATIONS,
    "data.depth": DEPTHS,
    "data.auto_augment": AUTO_AUGMENTS,
    "data.crop_mode": CROPS,
    "data.eval_crops": {str(crops): places for crops, places in EVAL_CROPS.items()},
    "data.normalize": NORMALIZATIONS,
    "model.feature_norm": FEATURE_NORMS,
    "model.feature_stats": FEATURE_STATS,
    "train.init_heads": HEAD_INITS,
    "train.optimizer": OPTIMIZERS,
    "train.decay_biases": DECAYS,
    "train.init_biases": BIAS_INITS,
    "train.schedule": SCHEDULES,
    "train.loss": OBJECTIVES,
    "train.class_weighting": CLASS_WEIGHTINGS,
    "search.method": SEARCH_METHODS,
    "scheduler.name": SCHEDULERS,
    "scheduler.metric": METRICS,
}
# Choices whose words switch something on, or off, where it is used: held by the tests below.
ELSEWHERE = {"data.fit", "data.interpolation", "train.precision", "train.layout", "train.compile", "train.mode"}
ELSEWHERE |= {"scheduler.compare", "data.on_error", "train.fit_on"}


def trial(**fields: str) -> TrialConfig:
    sections: dict[str, dict[str, Any]] = {"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": {"epochs": 2}}
    for name, value in fields.items():
        section, field = name.split("__")
        sections[section][field] = value
    return TrialConfig.model_validate(sections)


@pytest.mark.parametrize("field", TABLES)
def test_the_words_of_a_spec_are_the_rows_of_its_table(field: str) -> None:
    assert set(words(field)) == set(TABLES[field])


def test_every_choice_of_a_spec_has_a_table_or_a_test() -> None:
    rules = [*sampled_rules().values()]
    rules += [rule for section in ("search", "scheduler", "resources") for rule in section_rules(section).values()]
    assert {rule.name for rule in rules if len(rule.words) > 1} == TABLES.keys() | ELSEWHERE


def test_the_rows_of_one_choice_stand_in_one_place_each() -> None:
    assert SOURCES.keys() == SEARCH_METHODS.keys()
    assert CLIENTS.keys() == OBJECT_STORES.keys()
    assert {row.source for row in BACKBONES.values()} <= BUILDERS.keys() == WITH_CLASSIFIER.keys()
    assert {row.name for row in BACKBONES.values() if row.source == "own"} == OWN.keys()


@pytest.mark.parametrize("field", ["train.optimizer", "train.schedule", "train.loss", "train.class_weighting"])
def test_a_word_without_an_implementation_trains_nothing(field: str) -> None:
    name = field.split(".")[1]
    train = trial().train.model_copy(update={name: "absent"})
    weight = torch.nn.Parameter(torch.zeros(2, 2))

    def build() -> None:
        build_schedule(train, build_optimizer(train, [], [weight]), 3)
        build_loss(train, (2,), [np.array([1, 2])])

    with pytest.raises(KeyError, match="absent"):
        build()


def test_an_unknown_word_of_the_other_choices_is_an_error_too() -> None:
    with pytest.raises(KeyError, match="absent"):
        NORMALIZATIONS["absent"](BACKBONES["tiny"])
    with pytest.raises(KeyError, match="absent"):
        build_model(trial().model.model_copy(update={"feature_norm": "absent"}), (2,))
    with pytest.raises(KeyError, match="absent"):
        make_scheduler(SchedulerConfig().model_copy(update={"name": "absent"}))
    with pytest.raises(KeyError, match="absent"):
        make_scheduler(SchedulerConfig().model_copy(update={"metric": "absent"}))


def test_objectives_differ() -> None:
    logits, targets = [torch.tensor([[2.0, -1.0, 0.5]])], torch.tensor([[1]])
    losses = {word: float(build_loss(trial(train__loss=word).train, (3,))(logits, targets)) for word in OBJECTIVES}
    assert len(set(losses.values())) == len(losses)


def test_optimisers_and_schedules_differ() -> None:
    made = {}
    for word in OPTIMIZERS:
        parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))]
        made[word] = type(build_optimizer(trial(train__optimizer=word).train, [], parameters))
    assert len(set(made.values())) == len(made)
    courses = set()
    for word in SCHEDULES:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        course, rates = build_schedule(trial(train__schedule=word).train, optimizer, 5), []
        for _ in range(9):
            optimizer.step()
            course.step()
            rates.append(optimizer.param_groups[0]["lr"])
        courses.add(tuple(rates))
    assert len(courses) == len(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_record_takes_the_schedulers_that_a_spec_takes(name: str) -> None:
    settings = SchedulerConfig(name=name)
    assert settings.brackets == SCHEDULERS[name].brackets
    recorded = settings.model_dump(mode="json")
    assert all(rule(recorded[key]) for key, rule in SCHEDULER.items())
    assert not SCHEDULER["name"](f"{name}x")
    assert make_scheduler(settings).mode == "min"


def test_a_metric_is_measured_and_has_the_direction_of_its_row() -> None:
    meter = Meter((2,))
    meter.update([torch.tensor([[1.0, 0.0]])], torch.tensor([[0]]))
    measured = {f"val_{name}" for name in meter.compute(["a"])}
    assert METRICS.keys() <= measured
    assert {name for name, metric in METRICS.items() if metric.mode == "min"} == {"val_loss", "val_loss_report"}
    assert [metric.column for metric in METRICS.values() if metric.column] == ["val_acc"]
    assert not SCHEDULER["metric"]("val_absent")


def test_precisions_layouts_and_compilation_differ() -> None:
    cpu = torch.device("cpu")
    for field in ("train__precision", "train__layout", "train__compile"):
        settled = [word for word in words(field.replace("__", ".")) if word != "auto"]
        fixed = {"train__precision": "fp32", "train__layout": "nchw"}
        found = [candidates(trial(**{**fixed, field: word}), cpu) for word in settled]
        assert all(len(each) == 1 for each in found)
        assert len({str(each[0]) for each in found}) == len(settled)


def test_fits_and_filters_differ() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 31, 3), dtype=np.uint8))
    forms = [(fit, filter) for fit in words("data.fit") for filter in words("data.interpolation")]
    pixels = {resize_square(image, 16, *form).tobytes() for form in forms}
    assert len(pixels) == len(forms)


def test_every_command_of_the_table_is_there() -> None:
    import click

    context = click.Context(cli)
    for name in (*COMMANDS, *HIDDEN):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_the_page_names_every_row() -> None:
    page = markdown()
    for field in TABLES:
        assert ", ".join(words(field)) in page
    for name, method in SEARCH_METHODS.items():
        assert f"{name}: {method.about}" in page
    for name, row in SCHEDULERS.items():
        assert f"{name}: {row.about}" in page


def test_the_tables_cost_a_light_command_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "import fashion.record.validate, fashion.spec.settings, fashion.spec.search_methods, fashion.bucket.address\n"
        "print(sorted({'torch', 'ray', 'optuna', 'obstore', 'rich', 'statistics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]", done.stderr


def test_the_median_rule_still_takes_the_middle() -> None:
    from statistics import median

    from fashion.schedulers.median import _median

    for values in ([1.0], [1.0, 2.5], [0.1, 0.2, 7.0], [0.1, 0.2, 0.3, math.pi]):
        assert _median(values) == median(values)
