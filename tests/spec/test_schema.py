"""The JSON Schema accepts what load_spec accepts, and underlines the mistakes that an editor can see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fashion.cli.spec import schema
from fashion.errors import SpecError
from fashion.spec.schema import json_schema
from fashion.spec.sweep_spec import load_spec
from fashion.spec.yaml_lines import read_yaml

jsonschema = pytest.importorskip("jsonschema", reason="independent validator; comes with ray")
SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_specs_and_their_records_are_valid(validator: Any, path: Path) -> None:
    validator.validate(read_yaml(path, []).value)
    validator.validate(load_spec(path).to_json())


def form(**train: Any) -> dict[str, Any]:
    return {
        "data": {"root": "d", "resize": 64, "crop": 56},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": train,
    }


GOOD = [
    form(lr={"loguniform": [0.1, 0.2]}),
    form(epochs={"int": [1, 9], "step": 2}),
    form(momentum={"when": {"train.optimizer": ["sgd"]}, "uniform": [0.1, 0.2], "else": {"choice": [0.3]}}),
    form(lr={"switch": "train.optimizer", "cases": {"sgd": {"uniform": [0.1, 0.2]}}, "else": 0.1}),
    form() | {"train": None},
    form() | {"model": {"backbone": ["resnet18", "resnet50"], "feature_stages": [2, 3]}},
    form() | {"model": {"backbone": {"choice": [["resnet18", "resnet50"], "resnet18"]}}},
    form() | {"resources": {"gpus_per_worker": 0.5, "concurrent_trials": "auto"}},
]
BAD = [
    form(lr="fast"),
    form(lr=0),
    form(learning_rate=0.1),
    form(lr={"unifrom": [0.1, 0.2]}),
    form(lr={"uniform": [0.1]}),
    form(epochs={"uniform": [1, 5]}),
    form(optimizer="Adam"),
    form(optimizer={"choice": ["sgd", "Adam"]}),
    form(optimizer={"uniform": [0, 1]}),
    form(momentum={"when": {"optimizer": "sgd"}, "value": 0.5}),
    form(momentum={"when": {"train.optimizer": "sgd"}}),
    form(lr={"choice": []}),
    form() | {"data": {"resize": 64}},
    form() | {"data": {"root": {"choice": ["a", "b"]}}},
    form() | {"modle": {}},
    form() | {"name": "a/b"},
    form() | {"search": {"trials": 0}},
    form() | {"scheduler": {"name": "ahsa"}},
]


@pytest.mark.parametrize("spec", GOOD, ids=json.dumps)
def test_schema_and_loader_agree_on_good_specs(validator: Any, tmp_path: Path, spec: dict[str, Any]) -> None:
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    load_spec(tmp_path / "s.yaml")
    validator.validate(spec)


@pytest.mark.parametrize("spec", BAD, ids=json.dumps)
def test_schema_and_loader_agree_on_bad_specs(validator: Any, tmp_path: Path, spec: dict[str, Any]) -> None:
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    with pytest.raises(SpecError):
        load_spec(tmp_path / "s.yaml")
    assert not validator.is_valid(spec)


def test_the_command_prints_it() -> None:
    assert json.loads(CliRunner().invoke(schema).stdout) == json_schema()


def test_fields_carry_their_descriptions_and_defaults() -> None:
    train = json_schema()["properties"]["train"]["properties"]
    assert train["lr"]["default"] == 0.1
    assert "learning rate" in train["lr"]["description"]


def test_the_page_on_the_spec_is_up_to_date() -> None:
    from pathlib import Path

    from fashion.spec.docs import markdown

    page = Path(__file__).parents[2] / "docs" / "spec.md"
    assert page.read_text() == markdown(), "run: python -m fashion.spec.docs > docs/spec.md"
