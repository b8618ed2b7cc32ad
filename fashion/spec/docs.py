"""Makes docs/spec.md from the fields: `python -m fashion.spec.docs > docs/spec.md`."""

from __future__ import annotations

from fashion.spec.fields import SAMPLED, SETTINGS, describe, section_rules

INTRODUCTION = """\
# The sweep spec

Generated from the fields' definitions by `python -m fashion.spec.docs`. Besides the sections below, a spec has `name`,
the name of the sweep and of its run directory (default: the file's name), and `storage`, the folder of run directories
or an address in a bucket such as `s3://BUCKET/PREFIX` ([storage.md](storage.md); default: `runs`).

Every field of `data`, `model` and `train` takes one of these forms; `data.root` and how its labels and
pictures are read (`attributes`, `missing`, `split`, `folds`, `orientation`, `depth`, `on_error`, `follow_links`) are
the same in all trials, and so are `feature_stages` and `feature_stats`:

| form | meaning |
|---|---|
| `0.1` | a fixed value |
| `{choice: [a, b]}` | one of the values, all equally likely |
| `{grid: [a, b]}` | every value in turn, crossed with the other grids |
| `{uniform: [lo, hi]}` | a real number |
| `{loguniform: [lo, hi]}` | a real number whose logarithm is uniform |
| `{int: [lo, hi]}` | a whole number, both ends included; `step: 2` or `log: true` may be added |
| `{when: {train.optimizer: sgd}, uniform: [0.8, 0.99], else: 0.9}` | \
only where a condition holds; elsewhere the value of `else`, or the field's default |
| `{switch: train.optimizer, cases: {sgd: 0.1, adamw: {loguniform: [0.0001, 0.01]}}}` | \
depends on the value of another field; `else` covers the rest |
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
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    print(markdown(), end="")
