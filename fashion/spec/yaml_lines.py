"""Reads a YAML 1.2 file into plain values and remembers the line of each, so that a problem can name it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from fashion.errors import CONTROLS, Problem, SpecError

Path = tuple[str | int, ...]  # ("train", "lr", "choice", 0)

LARGEST_FILE = 250_000  # bytes; a spec has a few thousand, and a megabyte of YAML takes seconds to read
TOO_DEEP = "lists, mappings or aliases are nested too deeply"
LARGEST_INTEGER = 2**63 - 1  # nothing that reads a number holds more, and more digits may fill pages
MOST_VALUES = 20_000  # after aliases are expanded: a few lines of nested aliases can stand for billions


@dataclass
class Document:
    """The values read and where each is: in `lines` for those of the file, in `overrides` for those of --set."""

    source: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """`file:line dotted.key`, or `--set dotted.key` for a value from the command line."""
        dotted = dots(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                extra = dots(path[length:])
                return self.overrides[path[:length]] + (f" ({extra})" if extra else "")
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return f"{self.source}:{self.lines[path[:length]]}" + (f" {dotted}" if dotted else "")
        return f"{self.source} {dotted}" if dotted else self.source


def dots(path: Path) -> str:
    """("train", "lr", "choice", 0) -> train.lr.choice[0]"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_yaml(path: str | FilePath, problems: list[Problem]) -> Document:
    """Read a file, or standard input for "-". Raises SpecError if it can't be read as one YAML document; duplicate keys
    and tags are appended to `problems`."""
    return parse_yaml(read_text(path), _source(path), problems)


def read_text(path: str | FilePath) -> str:
    """The text of a spec's file. Raises SpecError if it can't be read."""
    source = _source(path)
    try:
        raw = _read(path)
    except FileNotFoundError:
        raise _unreadable(source, "there is no such file", _neighbours(FilePath(path))) from None
    except IsADirectoryError:
        raise _unreadable(source, "this is a folder, not a spec", _neighbours(FilePath(path))) from None
    except OSError as error:
        raise _unreadable(source, f"the file can't be read: {error.strerror}") from None
    if len(raw) > LARGEST_FILE:
        raise _unreadable(source, f"a spec has at most {LARGEST_FILE:,} bytes", value="more than that")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        value = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise _unreadable(source, "a spec is UTF-8 text", "Is this a YAML file?", value) from None


def _source(path: str | FilePath) -> str:
    return "standard input" if path == "-" else str(path)


def _read(path: str | FilePath) -> bytes:
    """The file's bytes, but at most one more than a spec may have: /dev/zero has no end."""
    if path == "-":
        return _standard_input()
    with open(os.path.expanduser(path), "rb") as file:
        return file.read(LARGEST_FILE + 1)


@cache
def _standard_input() -> bytes:
    """All of standard input, kept because a command may read its spec more than once."""
    return sys.stdin.buffer.read(LARGEST_FILE + 1)


def parse_yaml(text: str, source: str, problems: list[Problem]) -> Document:
    """As `read_yaml`, from a text that is named `source` in problems."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        rule, fix = _plain(error.problem or str(error.context), text, mark.line if mark else None)
        raise SpecError("The spec is not valid YAML:", [Problem(place, rule, fix=fix)]) from None
    except (YAMLError, ValueError) as error:  # e.g. a control character
        raise SpecError("The spec is not valid YAML:", [Problem(source, str(error).split("\n")[0])]) from None
    except RecursionError:
        raise SpecError("The spec is not valid YAML:", [Problem(source, TOO_DEEP)]) from None

    document = Document(source, None)
    count = 0
    open_nodes: list[Any] = []

    def convert(node: Any, path: Path) -> Any:
        nonlocal count
        count += 1
        if count > MOST_VALUES:
            raise _unreadable(source, f"a spec has at most {MOST_VALUES:,} values, aliases expanded")
        document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, ScalarNode):
            return _scalar(yaml, node, document.place(path), problems)
        if any(node is outer for outer in open_nodes):
            raise _unreadable(document.place(path), "an alias must not contain itself")
        open_nodes.append(node)
        result: Any
        if isinstance(node, SequenceNode):
            result = [convert(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            assert isinstance(node, MappingNode)
            result = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, ScalarNode):
                    problems.append(Problem(f"{source}:{line}", "a key must be a word, not a list or mapping"))
                    continue
                name = str(key_node.value)
                if name in result:
                    first = document.lines[(*path, name)]
                    place = f"{source}:{line} {dots((*path, name))}"
                    problems.append(Problem(place, f"this key occurs twice, first on line {first}", fix="Remove one"))
                    continue
                document.lines[(*path, name)] = line
                result[name] = convert(value_node, (*path, name))
        open_nodes.pop()
        return result

    if root is not None:
        try:
            document.value = convert(root, ())
        except RecursionError:  # a chain of aliases, which is not deep before its aliases are expanded
            raise SpecError("The spec is not valid YAML:", [Problem(source, TOO_DEEP)]) from None
    return document


def _scalar(yaml: Any, node: Any, place: str, problems: list[Problem]) -> Any:
    kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
    if kind in ("null", "bool", "int", "float"):
        try:
            value = yaml.constructor.construct_object(node, deep=True)
        except (ValueError, OverflowError):
            problems.append(Problem(place, f"this can't be read as {kind}", _short(node.value)))
            return None
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            problems.append(Problem(place, f"a whole number is at most {LARGEST_INTEGER:,}", _short(node.value)))
            return None
        return value
    if kind not in ("str", "timestamp", "merge", "value"):
        problems.append(Problem(place, "YAML tags are not used in a spec", str(node.tag)))
    elif CONTROLS.search(node.value):
        problems.append(Problem(place, "text must not hold control characters or line ends", _short(node.value)))
    return node.value


def _short(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _unreadable(place: str, rule: str, fix: str = "", value: str = "") -> SpecError:
    return SpecError("The spec can't be read:", [Problem(place, rule, value, fix)])


def _neighbours(path: FilePath) -> str:
    import difflib

    path = FilePath(os.path.expanduser(path))
    folder = path if path.is_dir() else path.parent
    names = sorted(entry.name for entry in folder.glob("*.y*ml")) if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, 1, 0.6) if folder != path else []
    if close:
        return f"Did you mean {path.parent / close[0]}?"
    return f"There: {', '.join(names[:12])}" if names else ""


def _plain(problem: str, text: str, line: int | None) -> tuple[str, str]:
    """(rule, fix): the scanner's message in words that need no knowledge of tokens."""
    lines = text.splitlines()
    if "'\\t'" in problem or (line is not None and line < len(lines) and lines[line].lstrip(" ").startswith("\t")):
        return "a tab indents this line", "YAML indents with spaces only"
    if "mapping values are not allowed" in problem:
        return (
            "a second ': ' on this line, or wrong indentation",
            "Quote text that holds ': ', align the key, or end the line above with ':'",
        )
    if "'<stream end>'" in problem or "unexpected end of stream" in problem:
        return "the file ends inside brackets or quotes", "Close them"
    if "expected <block end>" in problem or "unindent" in problem:
        return "this line's indentation fits no line above it", "Give the keys of one section the same indentation"
    if "expected ',' or" in problem:
        return problem, "A bracket or quote may be open on a line above"
    if "another document" in problem:
        return "a spec is one YAML document", "Remove the '---' line"
    return problem, ""
