"""Mistakes in a spec: each one named with its line, all at once, and never anything but a SpecError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fashion.cli.spec import check
from fashion.errors import SpecError
from fashion.spec.fields import sampled_rules
from fashion.spec.sweep_spec import SweepSpec, load_spec

SWEEPS = Path(__file__).parents[2] / "sweeps"
BASE = "data: {root: d, resize: 64, crop: 56}\nmodel: {backbone: tiny, weights: none}\ntrain:\n"
# What is said of a spec's text and `--set`s.
Problems = Callable[..., list[str]]


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    def problems(text: str | bytes, *overrides: str) -> list[str]:
        path = tmp_path / "s.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(SpecError) as caught:
            load_spec(path, overrides)
        return [str(problem).replace(str(path), "s.yaml") for problem in caught.value.problems]

    return problems


def test_all_problems_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    found = problems(
        "data: {resize: 64, crop: 56, flip: yes}\n"
        "modle: {}\n"
        "model: {backbone: tinny, weights: imagnet}\n"
        "train:\n"
        "  epochs: '10'\n"
        "  lr: {loguniform: [0, 1]}\n"
        "  optimizer: Adam\n"
        "  learning_rate: 0.1\n"
        "  batch_size: {choice: [16, 32.0]}\n"
        "  ema: 0.9\n"
        "  ema: 0.99\n"
        "search: {trials: 0}\n"
        "scheduler: {name: ahsa}\n"
        "resources: {gpus_per_worker: all}\n"
    )
    matches = [re.match(r"s\.yaml:(\d+) (\S+):", text) for text in found]
    places = [match.groups() if match else None for match in matches]
    assert places == [
        ("1", "data"), ("1", "data.flip"), ("2", "modle"), ("3", "model.backbone"), ("3", "model.weights"),
        ("5", "train.epochs"), ("6", "train.lr.loguniform[0]"), ("7", "train.optimizer"), ("8", "train.learning_rate"),
        ("9", "train.batch_size.choice[1]"), ("11", "train.ema"), ("12", "search.trials"), ("13", "scheduler.name"),
        ("14", "resources.gpus_per_worker"),
    ]  # fmt: skip
    text = "\n".join(found)
    for expected in (
        "data.root is missing", "Did you mean model?", "Did you mean tiny?", "Did you mean imagenet?",
        'a whole number from 1 to 10,000; got "10". Write it without quotes', "above 0 and at most 100; got 0",
        'one of sgd, adam, adamw, lbfgs; got "Adam". Did you mean adam?', "Did you mean train.lr?",
        "got 32.0. Write 32",
        "twice, first on line 10", "Did you mean asha?", 'auto or a number from 0 to 64; got "all"',
    ):  # fmt: skip
        assert expected in text


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (
            "lr: {uniform: [0.2, 0.1]}",
            "s.yaml:4 train.lr.uniform: the first number must be below the second; got [0.2, 0.1]",
        ),
        ("lr: {uniform: [0.1]}", "needs two numbers"),
        ("lr: {uniform: [0.1, a]}", "needs two numbers"),
        ("lr: {uniform: 0.1}", "needs a list; got 0.1"),
        ("lr: {choice: []}", "needs a list; got []"),
        ("lr: [0.1, 0.2]", "To try several values write {choice: [0.1, 0.2]}"),
        ("lr: {unifrom: [0.1, 0.2]}", "Did you mean uniform?"),
        ("lr: {choice: [0.1, 0.1]}", "s.yaml:4 train.lr.choice[1]: this value is listed twice"),
        ("lr: {uniform: [0.1, 0.2], choice: [1]}", "Keep one of choice, uniform"),
        ("lr: {uniform: [0.1, 0.2], step: 2}", "train.lr.step: unknown key"),
        ("weight_decay: {loguniform: [0, 0.1]}", "loguniform needs numbers above 0"),
        ("ema: {uniform: [0.9, 1.0]}", "train.ema.uniform[1]: must be a number of at least 0 and below 1"),
        ("epochs: {uniform: [1, 5]}", "takes whole numbers only; got [1, 5]. Write {int: [1, 5]}"),
        ("epochs: {int: [1, 5], step: 9}", "the step is larger than the range"),
        ("epochs: {int: [2, 8], step: 2, log: true}", "exclude each other"),
        (
            "optimizer: {uniform: [0, 1]}",
            "one of sgd, adam, adamw, lbfgs, which has no ranges; got [0, 1]. List values: {choice: [\"sgd\"",
        ),
        ("freeze_backbone: {int: [0, 1]}", "must be true or false, which has no ranges"),
        (
            "momentum: {when: {optimizer: sgd}, value: 0.5}",
            "unknown field; got \"optimizer\". Did you mean train.optimizer?",
        ),
        ("momentum: {when: {train.optimizer: sdg}, value: 0.5}", "Did you mean sgd?"),
        ("momentum: {when: {train.optimizer: adam}, value: 0.5}", 'never applies: train.optimizer is never "adam"'),
        ("momentum: {when: {train.optimizer: sgd}}", "gives a condition without a value"),
        ("momentum: {when: {train.momentum: 0.9}, value: 0.5}", "can't ask about the field itself"),
        ("momentum: {switch: train.optimizer}", "needs cases"),
        ("momentum: {switch: train.optimizer, cases: {adamw: 0.5}}", "cases.adamw: never applies"),
        ("lr: 1e999", "got Infinity"),
        ("lr: .nan", "got NaN"),
        ("epochs: true", "got true"),
        ("schedule:", "Give a value, or remove the line"),
        ("warmup_epochs: 60", "warmup_epochs (60.0) must be less than epochs (50)"),
        ("seed: 3", "train.seed: unknown field. Did you mean search.seed?"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_problem(problems: Problems, train: str, expected: str) -> None:
    found = problems(BASE + f"  {train}\n")
    assert len(found) == 1
    assert expected in found[0]
    assert "s.yaml:4" in found[0]


def test_rules_between_fields_are_found_by_drawing(problems: Problems) -> None:
    found = problems(
        BASE.replace("crop: 56", "crop: {choice: [56, 72]}") + "  epochs: {choice: [3, 10]}\n  warmup_epochs: 5\n"
    )
    assert len(found) == 2
    assert re.search(
        r"s.yaml:1 data.crop: crop \(72\) must not be larger than resize \(64\). This concerns \d of 10 trials",
        found[0],
    )
    assert "s.yaml:5 train.warmup_epochs: warmup_epochs (5.0) must be less than epochs (3)" in found[1]


def test_a_backbone_must_have_what_is_asked_of_it(problems: Problems) -> None:
    assert "weights must be none" in problems(BASE.replace(", weights: none", ""))[0]
    found = problems(BASE.replace("weights: none", "weights: none, drop_path: 0.1"))
    assert "drop_path must be 0" in found[0]
    assert "s.yaml:2 model.drop_path" in found[0]


def test_circles_are_named(problems: Problems) -> None:
    text = BASE + "  ema: {when: {train.momentum: 0.5}, value: 0.1}\n  momentum: {when: {train.ema: 0.1}, value: 0.5}\n"
    (found,) = problems(text)
    assert (
        "train.momentum -> train.ema -> train.momentum" in found or "train.ema -> train.momentum -> train.ema" in found
    )


def test_a_wrong_field_is_not_blamed_on_those_that_ask_about_it(problems: Problems) -> None:
    found = problems(BASE + "  optimizer: Adam\n  lr: {switch: train.optimizer, cases: {sgd: 0.1}}\n")
    assert len(found) == 1


HUNDREDTHS = ", ".join(str(i / 100) for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the spec is empty"),
        ("# only a comment\n", "the spec is empty"),
        ("- a\n- b\n", "a spec is a mapping"),
        ("data: [1]\nmodel: x\n", "must be a mapping of fields"),
        (b"\x7fELF\x02\xd0\xff", "UTF-8"),
        ("data: {root: \x00}\n", "special characters"),
        ("data:\n\troot: x\n", "spaces"),
        ("data:\n  root: x\n model: y\n", "s.yaml:3: this line's indentation"),
        ("data: {root: x\nmodel: y\n", "bracket or quote may be open"),
        ('data: {root: "x}\n', "ends inside brackets or quotes"),
        ("a: b: c\n", "a second ': '"),
        ("a: 1\n---\nb: 2\n", "one YAML document"),
        ("data: *nope\n", "undefined alias"),
        ("data: &a [*a]\n", "must not contain itself"),
        ("data: {root: !!python/object:os.system x}\nmodel: {backbone: tiny, weights: none}\n", "tags are not used"),
        ("[" * 1500, "nested too deeply"),
        ("x: " + "y" * 260_000, "at most 250,000 bytes"),
        ("? [a, b]\n: c\n", "a key must be a word"),
        ("%YAML 3.1\n---\na: 1\n", ""),
        ("data: {root: {choice: [a, b]}}\nmodel: {backbone: tiny, weights: none}\n", "can't be sampled"),
        ("data: {root: d}\nmodel: {backbone: 'timm:', weights: none}\n", "after timm:"),
        (BASE + "  lr: 0.1\nsearch: {method: grid}\nname: ../up\n", "names a folder"),
        (BASE + "  lr: {uniform: [0.1, 1]}\nsearch: {method: grid}\n", "method grid needs choice or grid"),
        (
            BASE
            + "  optimizer: {choice: [sgd, adam]}\n"
            + "  lr: {switch: train.optimizer, cases: {sgd: {grid: [0.1, 0.2]}}}\n",
            "drawn at random. Make train.optimizer a grid too",
        ),
        pytest.param(
            BASE + "".join(f"  {name}: {{grid: [{HUNDREDTHS}]}}\n" for name in ("lr", "ema", "momentum")),
            "more than 100,000 combinations",
            marks=pytest.mark.slow,
        ),
        (BASE + "scheduler: {grace: 3}\n", "scheduler.grace: grace must be a fraction"),
        (BASE + "scheduler: {compare: epoch, grace: 0.5}\n", "whole number of epochs"),
    ],
)  # fmt: skip
def test_files_that_are_no_spec(problems: Problems, text: str | bytes, expected: str) -> None:
    assert expected in "\n".join(problems(text))


def test_nested_aliases_do_not_explode(problems: Problems) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "at most 20,000 values" in problems("\n".join(lines))[0]


def test_missing_files_and_folders_name_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(BASE)
    with pytest.raises(SpecError, match=r"no such file\. Did you mean .*/quickstart.yaml\?"):
        load_spec(tmp_path / "quikstart.yaml")
    with pytest.raises(SpecError, match=r"a folder, not a spec\. There: quickstart.yaml"):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr", "--set train.lr: must be KEY=VALUE"),
        ("lr=1", "--set lr: unknown field. Did you mean train.lr?"),
        ("train.epoch=1", "--set train.epoch: unknown field. Did you mean train.epochs?"),
        ("train=3", "--set train: unknown field. Write section.field=value"),
        ("train.lr=fast", '--set train.lr: must be a number above 0 and at most 100; got "fast"'),
        ("train.lr=[", "--set train.lr: the file ends inside brackets or quotes"),
        ("train.lr={choice: [0.1, no]}", "--set train.lr (choice[1]): must be a number"),
        ("train.lr=", "got null"),
        ("=1", "must be KEY=VALUE"),
        ("a.b.c=1", "unknown field"),
        ("data.resize=32", "must not be larger than resize (32)"),
    ],
)
def test_mistakes_on_the_command_line(problems: Problems, override: str, expected: str) -> None:
    found = problems(BASE, override)
    assert len(found) == 1
    assert expected in found[0]


# -- whatever is done to a spec, the answer is a spec or a SpecError

TEXTS = [path.read_text() for path in sorted(SWEEPS.glob("*.yaml"))]


def survives(path: Path, text: str) -> SweepSpec | None:
    path.write_text(text)
    try:
        spec = load_spec(path)
    except SpecError as error:
        problems = error.problems
        assert problems
        for problem in problems:
            assert problem.rule
            assert problem.place.startswith(str(path))
            line = re.match(r":(\d+)", problem.place.removeprefix(str(path)))
            assert line is None or 1 <= int(line[1]) <= text.count("\n") + 1
        return None
    assert SweepSpec.from_json(spec.to_json()) == spec
    return spec


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_characters(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        cut = data.draw(st.integers(0, 8))
        text = text[:at] + data.draw(st.text("[]{}:,-#&*!|>'\"%@ \n\t0.e~abc", max_size=4)) + text[at + cut :]
    survives(tmp_path / "m.yaml", text)


anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from(["sgd", "train.lr"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["choice", "grid", "uniform", "int", "when", "switch", "cases", "else", "value", "train.optimizer"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from([*sampled_rules(), "search.trials", "scheduler.grace", "data"]), anything, min_size=1
    )
)
def test_any_value_in_any_field(tmp_path: Path, values: dict[str, Any]) -> None:
    form: dict[str, Any] = {
        "data": {"root": "d", "resize": 64, "crop": 56},
        "model": {"backbone": "tiny", "weights": "none"},
    }
    for dotted, value in values.items():
        section, _, name = dotted.partition(".")
        if not name:
            form[section] = value
        elif isinstance(form.setdefault(section, {}), dict):
            form[section][name] = value
    survives(tmp_path / "a.yaml", json.dumps(form).replace("Infinity", ".inf").replace("NaN", ".nan"))


@pytest.mark.parametrize("name", [name for name in sampled_rules() if len(name.split(".")[1]) > 4])
def test_a_misspelt_field_is_named(problems: Problems, name: str) -> None:
    section, field = name.split(".")
    wrong = field[:2] + field[3] + field[2] + field[4:]  # two letters swapped
    if wrong == field:
        wrong = field[:-1]
    form: dict[str, Any] = {"data": {"root": "d"}, "model": {"backbone": "tiny", "weights": "none"}, "train": {}}
    form[section][wrong] = 1
    text = json.dumps(form, indent=1)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if f'"{wrong}"' in row)
    (found,) = problems(text)
    assert found == f"s.yaml:{line} {section}.{wrong}: unknown field. Did you mean {field}?"


# -- the command


def test_check_reports_all_files_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(BASE + "  lr: {loguniform: [0.001, 0.1]}\n")
    (tmp_path / "bad.yaml").write_text(BASE + "  lr: fast\n  epochs: 0\n")
    paths = [str(tmp_path / "bad.yaml"), str(tmp_path / "good.yaml"), str(tmp_path / "none.yaml")]
    result = CliRunner().invoke(check, paths)
    assert result.exit_code == 2
    assert "good.yaml: ok, 10 trials" in result.stdout
    assert "train.lr" in result.stdout
    assert "bad.yaml: 2 problems" in result.stderr
    assert "no such file" in result.stderr
    assert "Traceback" not in result.output

    result = CliRunner().invoke(check, [*paths, "--json", "--set", "train.ema=0.5"])
    answers = json.loads(result.stdout)
    assert [answer["ok"] for answer in answers] == [False, True, False]
    assert result.exit_code == 2
    assert {"place", "rule", "value", "fix"} == set(answers[0]["problems"][0])
    assert answers[1]["space"] == {"train.lr": {"loguniform": [0.001, 0.1]}}
    assert answers[1]["trials"] == 10

    assert CliRunner().invoke(check, [paths[1]]).exit_code == 0
