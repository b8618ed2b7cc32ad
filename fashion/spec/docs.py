"""docs/spec.md, made from the fields themselves: `python -m fashion.spec.docs > docs/spec.md`."""

from __future__ import annotations

from fashion.spec.fields import SAMPLED, SETTINGS, describe, section_rules

INTRODUCTION = """\
# The sweep spec

Made from the fields' own definitions by `python -m fashion.spec.docs`. Besides these sections a spec has `name` (of the
sweep and its run directory; default: the file's name) and `storage` (the folder of run directories, or
`s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` ([storage.md](storage.md)); default: `runs`).

Every field of `data` (but `root`), `model` and `train` is one of

| form | meaning |
|---|---|
| `0.1` | a fixed value |
| `{choice: [a, b]}` | one of the values, each as likely |
| `{grid: [a, b]}` | every value in turn, crossed with the other grids |
| `{uniform: [lo, hi]}` | a real number |
| `{loguniform: [lo, hi]}` | a real number whose logarithm is uniform |
| `{int: [lo, hi]}` | a whole number, both ends included; `step: 2` and `log: true` may stand beside it |
| `{when: {train.optimizer: sgd}, uniform: [0.8, 0.99], else: 0.9}` | only under a condition; without `else` the field's default otherwise |
| `{switch: train.optimizer, cases: {sgd: 0.1, adamw: {loguniform: [0.0001, 0.01]}}}` | by the value of another field; `else` for the rest |
"""


def markdown() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for section, model in {**SAMPLED, **SETTINGS}.items():
        rules = section_rules(section)
        lines += [f"## {section}", "", "| field | default | value | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else f"`{_word(field.default)}`"
            lines.append(f"| `{name}` | {default} | {describe(rules[name].schema)} | {field.description or ''} |")
        lines.append("")
    return "\n".join(lines)


def _word(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(markdown(), end="")
