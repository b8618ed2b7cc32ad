"""Names and values of a spec, taken for what they are; and the field that was meant under another name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion.errors import SpecError
from fashion.spec.fields import sampled_rules, section_rules
from fashion.spec.sweep_spec import load_spec
from fashion.spec.synonyms import _NAMES, meant

TEXT = "%sdata: {root: data, resize: 32, crop: 32}\nmodel: {backbone: tiny, weights: none}\n"


def refused(folder: Path, text: str, *overrides: str, file: str = "s.yaml") -> str:
    (folder / file).write_text(text)
    with pytest.raises(SpecError) as error:
        load_spec(folder / file, overrides)
    (problem,) = error.value.problems
    return str(problem)


@pytest.mark.parametrize("name", ["20250131", "null", "3e5", "true"])
def test_a_name_that_yaml_takes_for_something_else_is_to_be_quoted(tmp_path: Path, name: str) -> None:
    (tmp_path / "s.yaml").write_text(TEXT % f'name: "{name}"\n')
    assert load_spec(tmp_path / "s.yaml").name == name
    assert 'Write it in quotes, such as name: "20250131"' in refused(tmp_path, TEXT % f"name: {name}\n")


def test_a_name_that_is_no_folders_is_refused_with_one_that_is(tmp_path: Path) -> None:
    assert refused(tmp_path, TEXT % "name: Kürzung № 3\n").endswith("For example Kurzung-No-3")
    assert "must be up to 64 letters" in refused(tmp_path, TEXT % "name: ../x\n")
    assert "give it another with name: or --name" in refused(tmp_path, TEXT % "", file="été.yaml")


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    for field in ("storage", "data.root", "model.weights"):
        value = "~nobody-of-this-name/x.pth"
        assert "but this machine has no such user" in refused(tmp_path, TEXT % "", f"{field}={value}")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("train.learning_rate=0.1", "Did you mean train.lr?"),
        ("learning_rate=0.1", "Did you mean train.lr?"),
        ("model.arch=resnet18", "Did you mean model.backbone?"),
        ("train.bs=3", "Did you mean train.batch_size?"),
        ("n_trials=3", "Did you mean search.trials?"),
        ("train.batchsize=3", "Did you mean train.batch_size?"),
        ("train.epohcs=3", "Did you mean train.epochs?"),
    ],
)
def test_a_field_under_another_name(tmp_path: Path, override: str, wanted: str) -> None:
    assert wanted in refused(tmp_path, TEXT % "", override)


def test_a_field_under_another_name_in_the_file(tmp_path: Path) -> None:
    assert "Did you mean train.lr?" in refused(tmp_path, TEXT % "train: {learning_rate: 0.1}\n")
    assert "Did you mean train.lr?" in refused(tmp_path, TEXT % "learning_rate: 0.1\n")
    condition = "train: {momentum: {when: {learning_rate: 0.1}, value: 0.5}}\n"
    assert "Did you mean train.lr?" in refused(tmp_path, TEXT % condition)


def test_other_names_are_of_fields_that_there_are_and_of_one_each() -> None:
    fields = {*sampled_rules(), "name", "storage"}
    fields |= {
        rule.name for section in ("search", "scheduler", "resources") for rule in section_rules(section).values()
    }
    assert set(_NAMES) <= fields
    words = [word for synonyms in _NAMES.values() for word in synonyms.split()]
    assert len(words) == len(set(words))
    assert not {name.split(".")[-1] for name in fields} & set(words)
    assert meant("Learning-Rate") == "train.lr"
    assert meant("nonsense") == ""
