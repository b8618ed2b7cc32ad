"""Some six hundred broken specs, made from the shipped ones: each is refused by the command with place, rule and value.

Every mutation is broken for certain, and what is expected of the message is written here by hand, not asked of the
program: the bounds of a field, the word that was meant, the line on which the mistake stands.
"""

from __future__ import annotations

import copy
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fashion.cli.main import main
from fashion.spec.yaml_lines import parse_yaml

SWEEPS = Path(__file__).parents[2] / "sweeps"
TEXTS = {path.stem: path.read_text() for path in sorted(SWEEPS.glob("*.yaml"))}
FORMS: dict[str, dict[str, Any]] = {name: parse_yaml(text, name, []).value for name, text in TEXTS.items()}
Key = tuple[str, ...]
Form = dict[str, Any]


def written(form: Form) -> tuple[str, dict[Key, int]]:
    """Block YAML with one key a line, and the line of each key."""
    lines: list[str] = []
    at: dict[Key, int] = {}

    def put(value: Form, path: Key) -> None:
        for key, inner in value.items():
            at[*path, key] = len(lines) + 1
            head = f"{'  ' * len(path)}{key}:"
            if isinstance(inner, dict) and inner:
                lines.append(head)
                put(inner, (*path, key))
            else:
                lines.append(f"{head} {json.dumps(inner)}")

    put(form, ())
    return "\n".join(lines) + "\n", at


@dataclass(frozen=True)
class Mistake:
    """A change of a form that breaks it, and what must be said: at which key, which rule, the value, how to mend it."""

    change: Callable[[Form], None]
    at: Key
    rule: str
    value: str = ""
    fix: str = ""
    deeper: str = ""  # what follows the key in the place: `.choice[1]`


def setting(
    section: str, field: str, value: Any, rule: str, fix: str = "", deeper: str = "", shown: Any = ...
) -> Mistake:
    def change(form: Form) -> None:
        form.setdefault(section, {})[field] = value

    received = json.dumps(value if shown is ... else shown)
    return Mistake(change, (section, field), rule, received, fix, deeper)


# -- what each field takes, from the documentation of the spec, and values beyond it

BOUNDS: dict[str, tuple[str, list[Any]]] = {
    "data.resize": ("a whole number from 8 to 2,048", [7, 2049, 0, -8]),
    "data.crop": ("a whole number from 8 to 2,048", [7, 4096]),
    "data.crop_scale": ("a number above 0 and at most 1", [0, 1.5, -0.1]),
    "data.flip": ("a number from 0 to 1", [-0.1, 1.01, 50]),
    "data.jitter": ("a number from 0 to 1", [-1, 1.5]),
    "data.erase": ("a number from 0 to 1", [-0.25, 2]),
    "data.crop_cells": ("a whole number from 0 to 64", [-1, 65]),
    "model.dropout": ("a number of at least 0 and below 1", [1, 1.5, -0.2]),
    "model.drop_path": ("a number of at least 0 and below 1", [1, -0.1]),
    "train.epochs": ("a whole number from 1 to 10,000", [0, -3, 10001]),
    "train.batch_size": ("a whole number from 1 to 65,536", [0, 65537]),
    "train.lr": ("a number above 0 and at most 100", [0, -0.1, 101]),
    "train.backbone_lr_scale": ("a number above 0 and at most 10", [0, 11]),
    "train.freeze_stages": ("a whole number of at least 0", [-1]),
    "train.momentum": ("a number of at least 0 and below 1", [1, -0.5]),
    "train.weight_decay": ("a number from 0 to 10", [-0.001, 10.5]),
    "train.warmup_epochs": ("a number of at least 0", [-1]),
    "train.label_smoothing": ("a number of at least 0 and below 1", [1, -0.1]),
    "train.mixup": ("a number from 0 to 10", [-0.2, 11]),
    "train.cutmix": ("a number from 0 to 10", [-0.2, 11]),
    "train.logit_adjustment": ("a number from 0 to 4", [-0.2, 5]),
    "train.layer_decay": ("a number above 0 and at most 1", [0, 1.5]),
    "train.focal_gamma": ("a number from 0 to 10", [-1, 10.1]),
    "train.ema": ("a number of at least 0 and below 1", [1, 1.2, -0.9]),
    "train.clip_grad": ("a number of at least 0", [-1]),
    "search.trials": ("a whole number from 1 to 1,000,000", [0, -8, 1000001]),
    "search.seed": ("a whole number of at least 0 and below 2,147,483,648", [-1, 2147483648]),
    "scheduler.grace": ("a number above 0", [0, -0.1]),
    "scheduler.reduction": ("a number from 1.1 to 100", [1, 0.5, 1.0000000000000002, 101]),
    "scheduler.brackets": ("a whole number from 1 to 20", [0, 21]),
    "resources.workers": ("a whole number from 1 to 1,024", [0, 1025]),
    "resources.cpus_per_worker": ("a whole number from 1 to 1,024", [0, 2000]),
    "resources.max_failures": ("a whole number from 0 to 100", [-1, 101]),
    "resources.gpus_per_worker": ("auto or a number from 0 to 64", [-1, 65]),
    "resources.maps_gb": ("a number above 0 and at most 1e+06", [0, -1]),
    "resources.concurrent_trials": ("auto or a whole number from 1 to 10,000", [0, 10001]),
}
# field -> (a misspelt word, the word that was meant)
WORDS: dict[str, list[tuple[str, str]]] = {
    "data.fit": [("strech", "stretch"), ("Pad", "pad")],
    "data.interpolation": [("bicubc", "bicubic"), ("biliner", "bilinear")],
    "data.crop_mode": [("centre", "center"), ("rnadom", "random"), ("resize", "resized")],
    "data.normalize": [("wieghts", "weights"), ("imagnet", "imagenet")],
    "model.weights": [("imagnet", "imagenet"), ("nonee", "none")],
    "model.backbone": [("resnet5", "resnet50"), ("efficientnet-b3", "efficientnet_b3"), ("tinny", "tiny")],
    "data.auto_augment": [("trivail", "trivial")],
    "train.mode": [("prob", "probe"), ("ful", "full"), ("tale", "tail")],
    "train.init_heads": [("prbe", "probe"), ("randm", "random")],
    "train.optimizer": [("adamW", "adamw"), ("SGD", "sgd"), ("adm", "adam")],
    "train.schedule": [("cosin", "cosine"), ("one_cycle", "onecycle"), ("constat", "constant")],
    "train.loss": [("crossentropy", "cross_entropy"), ("focl", "focal"), ("reprot", "report")],
    "train.class_weighting": [("invers", "inverse"), ("sqrt-inverse", "sqrt_inverse")],
    "train.precision": [("bf61", "bf16"), ("fp23", "fp32")],
    "train.layout": [("channel_last", "channels_last"), ("nhcw", "nchw")],
    "train.compile": [("defualt", "default"), ("reduce_overhead", "reduce-overhead")],
    "search.method": [("randm", "random"), ("gird", "grid"), ("Optuna", "optuna")],
    "scheduler.name": [("ahsa", "asha"), ("hyper-band", "hyperband"), ("meidan", "median"), ("fifoo", "fifo")],
    "scheduler.metric": [("val_los", "val_loss"), ("val_acuracy", "val_accuracy"), ("exact_match", "val_exact_match")],
    "scheduler.compare": [("fractions", "fraction"), ("epochs", "epoch")],
}
SWITCHES = ["data.eval_flip", "data.follow_links", "train.freeze_backbone"]
SAMPLED_NUMBERS = [name for name in BOUNDS if name.split(".")[0] in ("data", "model", "train")]
WHOLE = [name for name, (rule, _) in BOUNDS.items() if "whole number" in rule and "auto" not in rule]


def split(name: str) -> tuple[str, str]:
    section, _, field = name.partition(".")
    return section, field


def wrong_values() -> Iterator[Mistake]:
    for name, (rule, values) in BOUNDS.items():
        section, field = split(name)
        for value in values:
            yield setting(section, field, value, f"must be {rule}")
        yield setting(section, field, "fast", f"must be {rule}")
        yield setting(section, field, True, f"must be {rule}")
        yield setting(section, field, None, f"must be {rule}")
        if section in ("data", "model", "train"):
            yield setting(section, field, [1, 2], f"must be {rule}", "To try several values write {choice: [1, 2]}")
        else:
            yield setting(section, field, [1, 2], f"must be {rule}", "got [1, 2]\n")  # it can't be sampled
    for name in WHOLE:
        section, field = split(name)
        yield setting(section, field, 9.5, f"must be {BOUNDS[name][0]}")
        yield setting(section, field, 12.0, f"must be {BOUNDS[name][0]}", "Write 12")
        yield setting(section, field, "12", f"must be {BOUNDS[name][0]}", "Write it without quotes")
    for name, pairs in WORDS.items():
        section, field = split(name)
        for wrong, meant in pairs:
            yield setting(section, field, wrong, "must be", f"Did you mean {meant}?")
        yield setting(section, field, 3, "must be")
        yield setting(section, field, False, "must be")
    for name in SWITCHES:
        section, field = split(name)
        yield setting(section, field, "yes", "must be true or false", "Write true or false")
        yield setting(section, field, 1, "must be true or false")
        yield setting(section, field, 0.0, "must be true or false")
    yield setting("data", "root", 7, "must be text")
    yield setting("data", "root", "  ", "must be a folder")
    yield setting("data", "root", "~nobody-of-this-name/data", "begins with ~")
    yield setting("data", "root", {"choice": ["a", "b"]}, "can't be sampled")
    for field, values in (
        ("orientation", ["apply", "ignore"]), ("depth", ["declared", "maximum"]), ("on_error", ["refuse", "skip"]),
        ("follow_links", [True, False]),
    ):  # fmt: skip
        yield setting("data", field, {"choice": values}, "can't be sampled")
        yield setting("data", field, "aply", "must be")
    yield setting("model", "weights", "weights.onnx", "path of a .safetensors or .pth file")
    yield setting("model", "weights", "~nobody-of-this-name/w.pth", "begins with ~")
    yield setting("model", "backbone", "timm:", "must name a timm model after timm:", "timm:resnet26d")


def wrong_distributions() -> Iterator[Mistake]:
    for name in SAMPLED_NUMBERS:
        section, field = split(name)
        rule, (beyond, *_) = BOUNDS[name]
        low, high = (8, 16) if "whole" in rule else (0.1, 0.5)
        span = "int" if "whole" in rule else "uniform"

        def made(value: Any, *expected: Any, where: tuple[str, str] = (section, field), **more: Any) -> Mistake:
            return setting(*where, value, *expected, **more)

        yield made({span: [high, low]}, "the first number must be below the second", f"Write [{low}, {high}]",
                   f".{span}", shown=[high, low])  # fmt: skip
        yield made({span: [low]}, "needs two numbers, lowest and highest", deeper=f".{span}", shown=[low])
        yield made({span: [low, "much"]}, "needs two numbers", deeper=f".{span}", shown=[low, "much"])
        yield made({"choice": []}, "needs a list", "{choice: [first, second]}", ".choice", shown=[])
        yield made({"choice": [high, beyond]}, f"must be {rule}", deeper=".choice[1]", shown=beyond)
        yield made({"choice": [high, low, high]}, "this value is listed twice", "Remove one", ".choice[2]", shown=high)
        yield made({"choise": [low, high]}, "must be a value or one distribution", "Did you mean choice?")
        yield made({"choice": [low], "grid": [high]}, "must be a value or one distribution", "Keep one of choice, grid")
        if "whole" in rule:
            yield made({"uniform": [low, high]}, "takes whole numbers only", "Write {int: [8, 16]}", ".uniform",
                       shown=[low, high])  # fmt: skip
            yield made({"int": [low, high], "step": 0}, "must be a whole number of at least 1", deeper=".step", shown=0)
            yield made({"int": [low, high], "step": 99}, "the step is larger than the range", deeper=".step", shown=99)
        else:
            zero, lists = {"loguniform": [0, high]}, "loguniform needs numbers above 0"
            if "above 0" in rule:
                yield made(zero, f"must be {rule}", deeper=".loguniform[0]", shown=0)
            else:
                yield made(zero, lists, deeper=".loguniform", shown=[0, high])
    for name, pairs in WORDS.items():
        section, field = split(name)
        if section in ("data", "model", "train"):
            wrong, meant = pairs[0]
            yield setting(section, field, {"choice": [pairs[0][1], wrong]}, "must be", f"Did you mean {meant}?",
                          ".choice[1]", shown=wrong)  # fmt: skip
            yield setting(
                section, field, {"uniform": [0, 1]}, "which has no ranges", "List values", ".uniform", shown=[0, 1]
            )


def wrong_conditions() -> Iterator[Mistake]:
    def conditional(value: Any, rule: str, deeper: str = "", fix: str = "", shown: Any = ...) -> Mistake:
        found = setting("train", "momentum", value, rule, fix, deeper, shown)
        return found if shown is not None else Mistake(found.change, found.at, rule, "", fix, deeper)

    yield conditional({"when": {"train.optimiser": "sgd"}, "value": 0.5}, "unknown field", ".when.train.optimiser",
                      "Did you mean train.optimizer?", "train.optimiser")  # fmt: skip
    yield conditional({"when": {"optimizer": "sgd"}, "value": 0.5}, "unknown field", ".when.optimizer",
                      "Did you mean train.optimizer?", "optimizer")  # fmt: skip
    yield conditional({"when": {"train.optimizer": "sdg"}, "value": 0.5}, "must be one of", ".when.train.optimizer",
                      "Did you mean sgd?", "sdg")  # fmt: skip
    yield conditional({"when": {"train.momentum": 0.9}, "value": 0.5}, "can't ask about the field itself",
                      ".when.train.momentum", "", "train.momentum")  # fmt: skip
    yield conditional({"when": [], "value": 0.5}, "needs a mapping of fields to values", ".when", "For example", [])
    yield conditional({"when": {"train.optimizer": "sgd"}}, "gives a condition without a value")
    yield conditional({"when": {"train.optimizer": []}, "value": 0.1}, "needs at least one value",
                      ".when.train.optimizer", "", [])  # fmt: skip
    yield replace(conditional({"switch": "train.optimizer"}, "needs cases", "", "For example"), value="null")
    yield conditional({"switch": ["train.optimizer"], "cases": {"sgd": 0.1}}, "unknown field", ".switch", "",
                      ["train.optimizer"])  # fmt: skip
    yield conditional({"switch": "train.optimizer", "cases": {"sgdd": 0.1}}, "must be one of", ".cases.sgdd",
                      "Did you mean sgd?", "sgdd")  # fmt: skip
    yield conditional({"switch": "train.optimizer", "cases": {"sgd": 3}}, "must be a number of at least 0 and below 1",
                      ".cases.sgd", "", 3)  # fmt: skip
    yield conditional(
        {"switch": "train.optimizer", "case": {"sgd": 0.5}}, "unknown key", ".case", "Did you mean cases?", None
    )

    def circle(*names: str) -> Callable[[Form], None]:
        def change(form: Form) -> None:
            for name, following in zip(names, (*names[1:], names[0]), strict=True):
                section, field = split(name)
                form.setdefault(section, {})[field] = {"when": {following: 0.5}, "value": 0.5, "else": 0.25}

        return change

    for names in (
        ("train.momentum", "train.ema"),
        ("train.label_smoothing", "train.ema"),
        ("data.flip", "model.dropout", "train.momentum"),
        ("data.jitter", "data.erase", "model.dropout", "train.ema"),
    ):
        yield Mistake(circle(*names), split(names[0]), "fields depend on each other in a circle", "", " -> ")


def missing_and_unknown() -> Iterator[Mistake]:
    for section, field in (("data", "root"), ("model", "backbone")):

        def without(form: Form, section: str = section, field: str = field) -> None:
            del form[section][field]

        yield Mistake(without, (section,), f"{section}.{field} is missing", "", f"Add {field}: to {section}")
    for section, other in (("data", "model"), ("train", "data"), ("model", "train")):

        def misplaced(form: Form, section: str = section, other: str = other) -> None:
            name = {"model": "dropout", "data": "resize", "train": "epochs"}[other]
            form[section][name] = form[other].get(name, 0.1)

        name = {"model": "dropout", "data": "resize", "train": "epochs"}[other]
        yield Mistake(misplaced, (section, name), "unknown field", "", f"Did you mean {other}.{name}?")
    for word, meant in (("modle", "model"), ("trian", "train"), ("schedular", "scheduler"), ("resource", "resources")):

        def renamed(form: Form, word: str = word, meant: str = meant) -> None:
            form[word] = form.pop(meant, {})

        yield Mistake(renamed, (word,), "unknown section", "", f"Did you mean {meant}?")
    value: Any
    for section in ("data", "model", "train", "search", "scheduler", "resources"):
        for value in ([1], "x", 3):

            def replaced(form: Form, section: str = section, value: Any = value) -> None:
                form[section] = value

            yield Mistake(replaced, (section,), "must be a mapping of fields", json.dumps(value))
    for value in ("../up", "", ".hidden", "a/b", "x" * 65, 7, None, ["a"], "naïve"):

        def named(form: Form, value: Any = value) -> None:
            form["name"] = value

        shown = json.dumps(value, ensure_ascii=False)
        yield Mistake(named, ("name",), "it names a folder", shown if len(shown) <= 60 else shown[:50])
    for value in (3, "", "   ", ["runs"], {"a": 1}):

        def stored(form: Form, value: Any = value) -> None:
            form["storage"] = value

        yield Mistake(stored, ("storage",), "must be a folder", json.dumps(value))


MISTAKES = [*wrong_values(), *wrong_distributions(), *wrong_conditions(), *missing_and_unknown()]


def spoilt(mistakes: list[Mistake], name: str) -> tuple[str, dict[Key, int]]:
    form = copy.deepcopy(FORMS[name])
    for mistake in mistakes:
        mistake.change(form)
    return written(form)


def refused(path: Path, text: str | bytes, capsys: pytest.CaptureFixture[str], command: str = "check") -> str:
    """What `fashion-sweep check` (or run) says of the text, which it must refuse and leave nothing behind."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SystemExit) as ended:
        main([command, str(path)])
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert not said.out
    assert "Traceback" not in said.err
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return said.err


def expect(said: str, path: Path, at: dict[Key, int], mistake: Mistake) -> None:
    """One line of the message has place, rule, value and remedy."""
    dotted = ".".join(mistake.at) + mistake.deeper
    place = f"{path}:{at[mistake.at]} {dotted}: "
    if mistake.deeper:  # what is deeper may stand on a line of its own
        place = next(
            (f"{path}:{line} {dotted}: " for key, line in at.items() if ".".join(key) == dotted), None
        ) or next(
            (
                f"{path}:{line} {dotted}: "
                for key, line in at.items()
                if ".".join(key) == re.sub(r"\[\d+\]$", "", dotted)
            ),
            place,
        )
    found = [line for line in said.splitlines() if line.strip().startswith(place)]
    text = "\n".join(found)
    assert found, (place, said)
    assert mistake.rule in text, said
    if mistake.value:
        assert f"; got {mistake.value[:57]}" in text, said
    assert mistake.fix in f"{text}\n", said


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 300
    for name, form in FORMS.items():  # what is spoilt below was sound
        text, _ = written(form)
        assert parse_yaml(text, name, []).value == form


@pytest.mark.parametrize("part", range(8))
def test_each_mistake_is_told_with_place_rule_and_value(
    part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(FORMS)
    for number in range(part, len(MISTAKES), 8):
        mistake = MISTAKES[number]
        text, at = spoilt([mistake], names[number % len(names)])
        expect(refused(tmp_path / "s.yaml", text, capsys), tmp_path / "s.yaml", at, mistake)


@pytest.mark.parametrize("seed", range(40))
def test_several_mistakes_are_told_at_once(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(seed)
    fields = [mistake for mistake in wrong_values() if mistake.at[0] != "name"]
    chosen: dict[Key, Mistake] = {}
    while len(chosen) < 4:
        mistake = chance.choice(fields)
        chosen[mistake.at] = mistake
    text, at = spoilt(list(chosen.values()), chance.choice(sorted(FORMS)))
    said = refused(tmp_path / "s.yaml", text, capsys)
    for mistake in chosen.values():
        expect(said, tmp_path / "s.yaml", at, mistake)


# -- the shipped files as they are, comments and brackets included

FIELD = re.compile(r"(?<![\w.])([a-z_]{5,})(?=: )")


def fields_of(text: str) -> list[tuple[int, int, str]]:
    """(line, column, name) of the keys in a shipped file whose name a typo can spoil."""
    known = {field for name in (*BOUNDS, *WORDS, *SWITCHES) for field in name.split(".")[1:]} | {
        "model",
        "train",
        "search",
    }
    return [
        (number, found.start(), found[1])
        for number, line in enumerate(text.splitlines(), start=1)
        for found in FIELD.finditer(line.split("#")[0])
        if found[1] in known
    ]


# The shipped files in which nearly every field and every form of a value occurs; the others are tried as well, slowly.
FULL = ("backbones", "loss", "report", "tail_cpu")
NAMES = [pytest.param(name, marks=() if name in FULL else pytest.mark.slow) for name in sorted(TEXTS)]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_shipped_file_misspelt(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = fields_of(TEXTS[name])
    assert len(places) >= 8
    for line, column, field in places:
        wrong = field[:2] + field[3] + field[2] + field[4:]
        wrong = wrong if wrong != field else field[:-1]
        lines = TEXTS[name].splitlines()
        row = lines[line - 1]
        lines[line - 1] = row[:column] + wrong + row[column + len(field) :]
        said = refused(tmp_path / "s.yaml", "\n".join(lines) + "\n", capsys)
        assert re.search(rf"s\.yaml:{line} (\w+\.)?{wrong}: unknown (field|section)\. Did you mean {field}\?", said), (
            said
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_shipped_file_twice(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, at = written(FORMS[name])
    for path, line in at.items():
        lines = text.splitlines()
        below = [other for key, other in at.items() if key[: len(path)] == path]
        lines[max(below) : max(below)] = lines[line - 1 : max(below)]
        said = refused(tmp_path / "s.yaml", "\n".join(lines) + "\n", capsys)
        assert (
            f"s.yaml:{max(below) + 1} {'.'.join(path)}: this key occurs twice, first on line {line}. Remove one" in said
        )


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_shipped_files_that_are_no_yaml_any_more(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, text = tmp_path / "s.yaml", TEXTS[name]
    lines = text.splitlines()
    indented = next(number for number, line in enumerate(lines, start=1) if line.startswith("  ") and ":" in line)
    bracket = next(number for number, line in enumerate(lines, start=1) if line.endswith("}"))

    def changed(number: int, line: str) -> str:
        return "\n".join([*lines[: number - 1], line, *lines[number:]]) + "\n"

    said = refused(path, changed(indented, "\t" + lines[indented - 1].strip()), capsys)
    assert re.search(rf"s\.yaml:{indented}: a tab indents this line\. YAML indents with spaces only", said), said
    said = refused(path, changed(bracket, lines[bracket - 1][:-1]), capsys)
    assert re.search(r"s\.yaml:\d+: ", said), said
    said = refused(path, changed(len(lines), lines[-1] + '\nname: "open'), capsys)
    assert "the file ends inside brackets or quotes. Close them" in said
    said = refused(path, changed(indented, " " + lines[indented - 1].strip() + ": :"), capsys)
    assert re.search(r"s\.yaml:\d+: ", said), said
    said = refused(path, text.encode() + b"storage: run\x00s\n", capsys)
    assert "special characters are not allowed" in said
    said = refused(path, text.encode() + b"# caf\xe9\n", capsys)
    assert f"a spec is UTF-8 text; got byte 0xe9 at offset {len(text.encode()) + 5}. Is this a YAML file?" in said
    said = refused(path, text.encode("utf-16"), capsys)
    assert "a spec is UTF-8 text; got byte 0xff at offset 0" in said
    said = refused(path, text + "---\n" + text, capsys)
    assert "a spec is one YAML document. Remove the '---' line" in said
    said = refused(path, text.replace("name: ", "name: !!python/object/apply:os.system ", 1), capsys)
    assert re.search(r"s\.yaml:\d+ name: YAML tags are not used in a spec; got .*os\.system", said), said
    said = refused(path, text + "storage: *nowhere\n", capsys)
    assert re.search(rf"s\.yaml:{len(lines) + 1}: .*undefined alias", said), said


BASE = "data: {root: d, resize: 64, crop: 56}\nmodel: {backbone: tiny, weights: none}\ntrain:\n"
ALIASES = "".join(f", &a{number} [*a{number - 1}]" for number in range(1, 3000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # keys that are lists are left out, and with them the 3,000 aliases that a reader would walk through
        (f"? [&a0 [x]{ALIASES}]\n: 1\nb: *a2999\n", "nested too deeply"),
        ("a: " + "[" * 1500 + "]" * 1500 + "\n", "s.yaml: lists, mappings or aliases are nested too deeply"),
        ("- " * 5000 + "x\n", "s.yaml: lists, mappings or aliases are nested too deeply"),
        (
            BASE + f"  epochs: 0x{'f' * 6000}\n",
            "s.yaml:4 train.epochs: a whole number is at most 9,223,372,036,854,775,807",
        ),
        (
            BASE + f"  lr: {'9' * 400}\n",
            f"s.yaml:4 train.lr: a whole number is at most 9,223,372,036,854,775,807; got '{'9' * 20}",
        ),
        (BASE + f"  lr: {'9' * 5000}\n", f"s.yaml:4 train.lr: this can't be read as int; got '{'9' * 20}"),
        (
            BASE + '  lr: 0.1\nname: "\\ud800"\n',
            "s.yaml:5 name: text must not hold control characters or line ends; got '\\ud800'",
        ),
        (
            'data: {root: "a\\0b"}\nmodel: {backbone: tiny, weights: none}\n',
            "s.yaml:1 data.root: text must not hold control characters",
        ),
        (
            'data: {root: d}\nmodel: {backbone: tiny, weights: "a\\0.pth"}\n',
            "s.yaml:2 model.weights: text must not hold control characters",
        ),
        (
            BASE + "  lr: 0.1\nstorage: |\n  runs\n",
            "s.yaml:5 storage: text must not hold control characters or line ends; got 'runs\\n'",
        ),
        (BASE + '  "\\e[2J\\e]0;owned\\a": 1\n', "s.yaml:4 train.\\x1b[2J\\x1b]0;owned\\x07: unknown field"),
        (
            BASE + '  optimizer: "sgd\\u202e"\n',
            's.yaml:4 train.optimizer: must be one of sgd, adam, adamw, lbfgs; got "sgd\\u202e"',
        ),
        (
            BASE + "  lr: {when: {train.optimizer: sgd}, " + "value: {when: {train.optimizer: sgd}, " * 80 + "}" * 81,
            "s.yaml:4 train.lr",
        ),
        pytest.param(
            "x: {" + ", ".join(f"k{number}: 1" for number in range(20_001)) + "}\n", "at most 20,000 values",
            marks=pytest.mark.faults,
        ),
        ("k" * 200_000 + ": 1\n", "s.yaml:1"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)  # fmt: skip
def test_specs_that_are_meant_to_hurt(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(tmp_path / "s.yaml", text, capsys)
    assert message in said
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)


def test_a_file_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "/dev/zero"])
    assert ended.value.code == 2
    assert "/dev/zero: a spec has at most 250,000 bytes; got more than that" in capsys.readouterr().err


@pytest.mark.parametrize("number", range(0, len(MISTAKES), 29))
def test_run_says_the_same_and_makes_nothing(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistake, name = MISTAKES[number], sorted(FORMS)[number % len(FORMS)]
    text, at = spoilt([mistake], name)
    expect(refused(tmp_path / "s.yaml", text, capsys, "run"), tmp_path / "s.yaml", at, mistake)


@pytest.mark.parametrize("number", range(0, len(MISTAKES), len(MISTAKES) // 11))
def test_as_typed(number: int, tmp_path: Path) -> None:
    mistake, name = MISTAKES[number], sorted(FORMS)[number % len(FORMS)]
    text, at = spoilt([mistake], name)
    (tmp_path / "s.yaml").write_text(text)
    command = [sys.executable, "-m", "fashion", "run", "s.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done
    assert not done.stdout
    assert "Traceback" not in done.stderr
    expect(done.stderr, Path("s.yaml"), at, mistake)
    assert [each.name for each in tmp_path.iterdir()] == ["s.yaml"]
