"""A spec as YAML text: a line for each field of the sections that are sampled."""

from __future__ import annotations

import json
import re
from typing import Any

ON_ONE_LINE = ("search", "scheduler")


def yaml_lines(sections: dict[str, Any]) -> list[str]:
    lines = []
    for section, value in sections.items():
        if not isinstance(value, dict) or section in ON_ONE_LINE:
            lines.append(f"{section}: {_flow(value)}")
        else:
            lines += [f"{section}:", *(f"  {name}: {_flow(each)}" for name, each in value.items())]
    return lines


def _flow(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and not _a_word(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _a_word(text: str) -> bool:
    """Whether YAML, of this version or an older one, takes the text for something else."""
    return text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf")
