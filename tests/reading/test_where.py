"""Conditions on trials: what they mean, in which order they bind, and how mistakes in them are told."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fashion.errors import UserError
from fashion.reading.trial_columns import Kind, TrialColumns
from fashion.reading.where import ColumnTest, Joined, parse_condition

KINDS = {
    "trial": Kind.NUMBER, "status": Kind.TEXT, "val_loss": Kind.NUMBER, "val_accuracy": Kind.NUMBER,
    "val_accuracy/collar shape": Kind.NUMBER, "node": Kind.EMPTY, "model.backbone": Kind.TEXT, "train.lr": Kind.NUMBER,
    "train.loss": Kind.TEXT, "data.flip": Kind.NUMBER, "train.freeze_backbone": Kind.BOOLEAN, "model.flip": Kind.NUMBER,
}  # fmt: skip
ROWS: dict[int, dict[str, Any]] = {
    0: {
        "trial": 0, "status": "completed", "val_loss": 0.5, "val_accuracy": 0.8, "val_accuracy/collar shape": 0.7,
        "node": None, "model.backbone": "resnet50", "train.lr": 0.01, "train.loss": "focal", "data.flip": 0.5,
        "train.freeze_backbone": True, "model.flip": 1,
    },
    1: {
        "trial": 1, "status": "stopped", "val_loss": 1.5, "val_accuracy": 0.4, "val_accuracy/collar shape": 0.3,
        "node": None, "model.backbone": "timm:vit, small", "train.lr": 0.1, "train.loss": "cross_entropy",
        "data.flip": None, "train.freeze_backbone": False, "model.flip": 1,
    },
    2: dict.fromkeys(KINDS) | {"trial": 2, "status": "failed", "model.backbone": "resnet50"},
}  # fmt: skip
COLUMNS = TrialColumns(ROWS, KINDS, ("train.lr",))


def chosen(text: str) -> list[int]:
    condition = parse_condition(text, COLUMNS)
    return [number for number, row in ROWS.items() if condition.holds(row)]


@pytest.mark.parametrize(
    ("text", "trials"),
    [
        ("backbone=resnet50", [0, 2]),
        ("backbone=resnet50 and val_loss<1", [0]),
        ("model.backbone == resnet50 AND val_loss <= 0.5", [0]),
        ("backbone != resnet50", [1]),
        ("val_loss>0.5", [1]),
        ("val_loss >= 5e-1", [0, 1]),
        ("val_loss = null", [2]),
        ("val_loss != null", [0, 1]),
        ("not val_loss < 1", [1, 2]),
        ("val_loss < 1 or val_accuracy < 0.5", [0, 1]),
        ("trial=2 or trial=1 and val_loss<1", [2]),
        ("(trial=2 or trial=1) and val_loss>1", [1]),
        ("not (trial=0 or trial=1)", [2]),
        ("not trial=0 and not trial=1", [2]),
        ("trial in (0, 2)", [0, 2]),
        ("trial not in (0, 2)", [1]),
        ("flip = 1", None),
        ("data.flip in (0.5, null)", [0, 1, 2]),
        ("backbone = 'timm:vit, small'", [1]),
        ('"val_accuracy/collar shape" > 0.5', [0]),
        ("freeze_backbone = true", [0]),
        ("freeze_backbone=no", [1]),
        ("node = null", [0, 1, 2]),
        ("node = host-1", []),
        ("status = 'null'", []),
        ("lr<0.05", [0]),
    ],
)
def test_what_conditions_mean(text: str, trials: list[int] | None) -> None:
    if trials is None:
        with pytest.raises(UserError, match=r"several columns have this last name.*data\.flip or model\.flip"):
            chosen(text)
    else:
        assert chosen(text) == trials


def test_a_condition_is_one_frozen_value() -> None:
    one, same = (parse_condition(text, COLUMNS) for text in ("lr=1 and loss=focal", "( train.lr = 1.0 )and loss=focal"))
    assert one == same == Joined((ColumnTest("train.lr", "=", 1.0), ColumnTest("train.loss", "=", "focal")), every=True)
    assert list(one.columns()) == ["train.lr", "train.loss"]
    assert hash(one) == hash(same)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "character 1: must name a column; got the end"),
        ("backbon=resnet50", "there is no such column; got 'backbon'. Did you mean model.backbone"),
        ("learning_rate<1", "got 'learning_rate'. Did you mean train.lr?"),
        ("xyzzy=1", "got 'xyzzy'. `show --csv` prints the columns"),
        ("lr", "character 3: must compare train.lr: = != < <= > >= in; got the end"),
        ("lr 0.1", "character 4: must compare train.lr"),
        ("lr <", "character 5: must give a value for train.lr; got the end"),
        ("lr < fast", "train.lr holds numbers; got 'fast'"),
        ("loss < focal", "train.loss holds text, which has no order; got <. Use = != or in"),
        ("freeze_backbone = 1", "train.freeze_backbone is true or false; got '1'"),
        ("lr=1 trial=2", "character 6: must go on with `and` or `or`; got 'trial'"),
        ("lr=1 && trial=2", "got '&&'. Write `and`"),
        ("(lr=1", "character 6: must go on with ); got the end"),
        ("lr in 1", "character 7: must go on with (; got '1'"),
        ("lr in (1 2)", "character 10: must go on with ); got '2'"),
        ("loss='focal", "character 6: has a quote that is not closed"),
        ("lr ! 1", "character 4: has a sign that means nothing here"),
        ("lr not = 1", "must compare train.lr"),
        ("and", "character 1: must name a column"),
        ("(" * 20_000, "must have at most 50 parentheses"),
        ("not " * 20_000 + "lr=1", "must have at most 50 parentheses"),
    ],
)
def test_mistakes_are_told(text: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_condition(text, COLUMNS)
    assert str(refused.value).startswith("--where")
    assert told in str(refused.value)


def test_against_python_on_random_conditions() -> None:
    """The same condition, written for Python, chooses the same trials of a thousand."""
    dice = random.Random(1)
    rows: list[dict[str, Any]] = [
        {"a": dice.choice([0, 1, 2, 3]), "b": dice.choice([0.5, 1.5]), "c": dice.choice("xyz")} for _ in range(50)
    ]
    columns = TrialColumns(
        dict(enumerate(rows)), {"a": Kind.NUMBER, "b": Kind.NUMBER, "c": Kind.TEXT}, ()
    )  # fmt: skip

    def condition(depth: int) -> tuple[str, str]:
        kind = dice.randrange(5 if depth else 2)
        if kind == 0:
            sign, value = dice.choice(["=", "!=", "<", "<=", ">", ">="]), dice.choice(["0", "1", "2"])
            return f"a{sign}{value}", f"row['a'] {'==' if sign == '=' else sign} {value}"
        if kind == 1:
            word = dice.choice(["in", "not in"])
            return f"c {word} (x, 'y')", f"row['c'] {word} ('x', 'y')"
        one, other = condition(depth - 1), condition(depth - 1)
        if kind == 2:
            return f"not ({one[0]})", f"not ({one[1]})"
        word = "and" if kind == 3 else "or"
        return f"{one[0]} {word} {other[0]}", f"{one[1]} {word} {other[1]}"

    for _ in range(200):
        mine, python = condition(3)
        parsed = parse_condition(mine, columns)
        code = compile(python, "condition", "eval")
        assert [parsed.holds(row) for row in rows] == [bool(eval(code, {"row": row})) for row in rows], mine
