"""The conditions of `show --where`, as in `backbone=resnet50 and val_loss<1`: parsed once into frozen objects.

    condition  = each, or several joined by `or`; `and` binds more tightly
    each       = `not` each, or a condition in parentheses, or a comparison
    comparison = COLUMN followed by = != < <= > >= and a value, or by `in` or `not in` and values in parentheses

A column is named in full (`train.lr`, `val_accuracy/fit`) or by its last name (`lr`). A value is a number, a word, a
text in quotes, `true`, `false` or `null`. Names and texts with spaces or signs stand in quotes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fashion.errors import Problem, UserError
from fashion.reading.trial_columns import Kind, Row, TrialColumns, Value

PLACE = "--where"
DEEPEST = 50  # parentheses and `not` within each other
ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SIGNS = ("=", "!=", *ORDERS)
BOOLEANS: Mapping[str, bool] = {"true": True, "yes": True, "false": False, "no": False}
# What other languages write instead.
OTHERWISE: Mapping[str, str] = {"&": "and", "&&": "and", "|": "or", "||": "or"}
_TOKEN = re.compile(r"\s*(?:(?P<sign><=|>=|!=|==|[=<>(),])|(?P<quoted>\"[^\"]*\"|'[^']*')|(?P<word>[^\s=<>!(),'\"]+))")


class Condition(Protocol):
    """Something that is true of a trial or not."""

    def holds(self, row: Row) -> bool: ...

    def columns(self) -> Iterator[str]:
        """The columns that are looked at, in the order in which they stand."""
        ...


@dataclass(frozen=True)
class ColumnTest:
    """A column compared with a value: `sign` is one of SIGNS. Nothing is in order with null, and null equals null
    alone."""

    column: str
    sign: str
    value: Value

    def holds(self, row: Row) -> bool:
        found = row[self.column]
        if self.sign == "=":
            return found == self.value
        if self.sign == "!=":
            return found != self.value
        return found is not None and self.value is not None and ORDERS[self.sign](found, self.value)

    def columns(self) -> Iterator[str]:
        yield self.column


@dataclass(frozen=True)
class OneOf:
    """A column that has one of several values."""

    column: str
    values: tuple[Value, ...]

    def holds(self, row: Row) -> bool:
        return row[self.column] in self.values

    def columns(self) -> Iterator[str]:
        yield self.column


@dataclass(frozen=True)
class Negation:
    """What is true where the condition is not."""

    condition: Condition

    def holds(self, row: Row) -> bool:
        return not self.condition.holds(row)

    def columns(self) -> Iterator[str]:
        yield from self.condition.columns()


@dataclass(frozen=True)
class Joined:
    """Conditions of which all are true, or at least one."""

    conditions: tuple[Condition, ...]
    every: bool

    def holds(self, row: Row) -> bool:
        return (all if self.every else any)(each.holds(row) for each in self.conditions)

    def columns(self) -> Iterator[str]:
        for each in self.conditions:
            yield from each.columns()


@dataclass(frozen=True)
class _Token:
    """text: without quotes. kind: sign, quoted or word; `end` behind the last. start: its first character, from 1."""

    kind: str
    text: str
    start: int

    def says(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def parse_condition(text: str, columns: TrialColumns) -> Condition:
    """The condition that the text states of these columns.

    Raises UserError where it is no condition, or names a column that there is not or a value that its column can't
    have.
    """
    parser = _ConditionParser(_tokens(text), columns)
    condition = parser.condition()
    if parser.next.kind != "end":
        raise parser.refused("must go on with `and` or `or`")
    return condition


def _tokens(text: str) -> list[_Token]:
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            quote = text[start] in "'\""
            rule = "has a quote that is not closed" if quote else "has a sign that means nothing here"
            raise UserError(Problem(f"{PLACE}, character {start + 1}", rule, repr(text[start:])[:60]))
        kind = str(match.lastgroup)
        word = match[kind]
        found.append(_Token(kind, word[1:-1] if kind == "quoted" else word, match.start(kind) + 1))
        position = match.end()
    return [*found, _Token("end", "", len(text) + 1)]


class _ConditionParser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token], columns: TrialColumns) -> None:
        self._tokens = tokens
        self._columns = columns
        self._at = 0
        self._depth = 0

    @property
    def next(self) -> _Token:
        return self._tokens[self._at]

    def condition(self) -> Condition:
        """Conditions joined by `or`."""
        found = [self._conjunction()]
        while self._take("or"):
            found.append(self._conjunction())
        return found[0] if len(found) == 1 else Joined(tuple(found), every=False)

    def refused(self, rule: str, fix: str = "") -> UserError:
        token = self.next
        if token.text in OTHERWISE:
            fix = f"Write `{OTHERWISE[token.text]}`"
        return UserError(Problem(f"{PLACE}, character {token.start}", rule, str(token), fix))

    def _conjunction(self) -> Condition:
        found = [self._each()]
        while self._take("and"):
            found.append(self._each())
        return found[0] if len(found) == 1 else Joined(tuple(found), every=True)

    def _each(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.refused(f"must have at most {DEEPEST} parentheses and `not` within each other")
        try:
            if self._take("not"):
                return Negation(self._each())
            if self._take("("):
                found = self.condition()
                self._require(")")
                return found
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Condition:
        example = "As in: backbone = resnet50 and val_loss < 1"
        if self.next.kind not in ("word", "quoted") or any(map(self.next.says, ("and", "or", "in"))):
            raise self.refused("must name a column", example)
        column = self._columns.resolve(self._taken().text, PLACE)
        negated = self._take("not")
        if self._take("in"):
            self._require("(")
            values = [self._value(column)]
            while self._take(","):
                values.append(self._value(column))
            self._require(")")
            test = OneOf(column, tuple(values))
            return Negation(test) if negated else test
        sign = "=" if self.next.text == "==" else self.next.text
        if negated or self.next.kind != "sign" or sign not in SIGNS:
            raise self.refused(f"must compare {column}: {' '.join(SIGNS)} in", example)
        self._taken()
        kind = self._columns.kinds[column]
        if sign in ORDERS and kind in (Kind.TEXT, Kind.BOOLEAN):
            raise UserError(Problem(PLACE, f"{column} holds {kind.value}, which has no order", sign, "Use = != or in"))
        return ColumnTest(column, sign, self._value(column))

    def _value(self, column: str) -> Value:
        if self.next.kind not in ("word", "quoted"):
            raise self.refused(f"must give a value for {column}", "A text with spaces or signs stands in quotes")
        token, kind = self._taken(), self._columns.kinds[column]
        if token.says("null"):
            return None
        if kind is Kind.TEXT:
            return token.text
        if kind is Kind.BOOLEAN:
            if token.text.lower() not in BOOLEANS:
                raise UserError(Problem(PLACE, f"{column} is true or false", str(token)))
            return BOOLEANS[token.text.lower()]
        try:
            return float(token.text)
        except ValueError:
            if kind is Kind.EMPTY:
                return token.text
            raise UserError(Problem(PLACE, f"{column} holds numbers", str(token))) from None

    def _taken(self) -> _Token:
        token = self.next
        self._at += 1
        return token

    def _take(self, text: str) -> bool:
        """Whether the next token is this word or sign, which is then taken."""
        found = self.next.says(text) or (self.next.kind == "sign" and self.next.text == text)
        self._at += found
        return found

    def _require(self, sign: str) -> None:
        if not self._take(sign):
            raise self.refused(f"must go on with {sign}")
