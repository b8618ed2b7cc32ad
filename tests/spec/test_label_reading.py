"""`data.attributes`, `data.missing` and `data.split` in a spec: values like any other, but never sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion.config.data import LabelReading, SplitRule
from fashion.errors import SpecError
from fashion.spec.schema import json_schema
from fashion.spec.sweep_spec import SweepSpec, load_spec

MODEL = "model: {backbone: tiny, weights: none}\nsearch: {trials: 2}\n"


def written(folder: Path, data: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(f"data: {{root: labels.csv, {data}}}\n{MODEL}")
    return path


def test_they_reach_the_trial_and_the_record(tmp_path: Path) -> None:
    path = written(tmp_path, "attributes: [size, colour], missing: -1, split: {val: 0.2, group: patient}")
    spec = load_spec(path)
    config = spec.trial(0)
    rule = SplitRule(val=0.2, group="patient")
    assert config.data.label_reading == LabelReading(("size", "colour"), -1, rule)
    assert hash(config) == hash(spec.trial(0))
    recorded = spec.to_json()
    assert recorded["data"]["split"] == {"val": 0.2, "test": 0.15, "seed": 0, "group": "patient"}
    assert SweepSpec.from_json(recorded) == spec
    assert load_spec(path, ["data.split={val: 0.1}"]).trial(0).data.split == SplitRule(val=0.1)


def test_a_record_without_them_is_of_its_time(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, "resize: 320"))
    recorded = spec.to_json()
    for name in LabelReading._fields:
        del recorded["data"][name]
    assert SweepSpec.from_json(recorded) == spec
    assert spec.trial(0).data.label_reading == LabelReading()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("split: {val: 2}", "must be a mapping of val, test, seed, group or null; got"),
        ("split: {val: 0.6, test: 0.4}", "must leave images for training"),
        ("split: {choice: [{val: 0.1}]}", "must be a mapping of val, test, seed, group"),
        ("split: 0.2", "must be a mapping of val, test, seed, group"),
        ("missing: -2", "must be -1 or null"),
        ("missing: {choice: [-1, null]}", "can't be sampled"),
        ("attributes: []", "must be a list of text or null"),
        ("attributes: {choice: [[a], [b]]}", "can't be sampled"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, data: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, data))
    assert said in str(caught.value)


def test_the_schema_holds_them_whole() -> None:
    fields = json_schema()["properties"]["data"]["properties"]
    assert set(fields["split"]["anyOf"][0]["properties"]) == {"val", "test", "seed", "group"}
