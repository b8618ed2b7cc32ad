"""The JSON Schema of a spec, with which editors complete fields, describe them and underline mistakes."""

from __future__ import annotations

from typing import Any

from fashion.spec.fields import NAME, NEVER_SAMPLED, SAMPLED, SETTINGS, FieldRule, sampled_rules, section_rules


def json_schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12, derived from the models of config.py and settings.py. Rules between fields
    and the names of backbones are not in it: `load_spec` alone checks those."""
    sections = {section: _section(section, _sampled_field) for section in SAMPLED}
    sections |= {section: _section(section, _plain_field) for section in SETTINGS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fashion-sweep spec",
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": f"^{NAME}$", "description": "default: the file's name"},
            **sections,
            "storage": {
                "type": "string",
                "minLength": 1,
                "default": "runs",
                "description": "holds the run directories: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
            },
        },
        "required": ["data", "model"],
        "additionalProperties": False,
        "$defs": {name: _expression(rule) for name, rule in sampled_rules().items() if name not in NEVER_SAMPLED},
    }


def _section(section: str, form: Any) -> dict[str, Any]:
    rules = section_rules(section)
    required = [name for name, rule in rules.items() if rule.required]
    schema = _object({name: form(rule) for name, rule in rules.items()}, required)
    # `train:` with nothing below it is an empty section, which is allowed.
    return schema if required else {**schema, "type": ["object", "null"]}


def _plain_field(rule: FieldRule) -> dict[str, Any]:
    return {**rule.schema, **_about(rule)}


def _sampled_field(rule: FieldRule) -> dict[str, Any]:
    if rule.name in NEVER_SAMPLED:
        return _plain_field(rule)
    return {"$ref": f"#/$defs/{rule.name}", **_about(rule)}


def _about(rule: FieldRule) -> dict[str, Any]:
    default = list(rule.default) if isinstance(rule.default, tuple) else rule.default
    about: dict[str, Any] = {} if rule.required else {"default": default}
    return about | ({"description": rule.info.description} if rule.info.description else {})


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _expression(rule: FieldRule) -> dict[str, Any]:
    """A value, a distribution of values, or a condition over them."""
    again = {"$ref": f"#/$defs/{rule.name}"}
    forms: list[dict[str, Any]] = [{kind: _list(rule.schema, 1)} for kind in ("choice", "grid")]
    optional: dict[str, Any] = {}
    if rule.numeric and not rule.whole_numbers:
        forms += [{kind: _list({"type": "number"}, 2, 2)} for kind in ("uniform", "loguniform")]
    if rule.numeric:
        forms.append({"int": _list({"type": "integer"}, 2, 2)})
        optional = {"step": {"type": "integer", "minimum": 1}, "log": {"type": "boolean"}}
    branch = {"else": again}
    needs_else = ["else"] if rule.required else []
    others = {"enum": [name for name in sampled_rules() if name != rule.name]}
    asked = {"type": "object", "minProperties": 1, "propertyNames": others}
    objects = []
    for form in [*forms, {"value": again}]:
        (kind,) = form
        extra = optional if kind == "int" else {}
        if kind != "value":
            objects.append(_object({**form, **extra}, [kind]))
        objects.append(_object({"when": asked, **form, **extra, **branch}, ["when", kind, *needs_else]))
    cases = {"type": "object", "minProperties": 1, "additionalProperties": again}
    objects.append(_object({"switch": others, "cases": cases, **branch}, ["switch", "cases", *needs_else]))
    return {"anyOf": [rule.schema, *objects]}


def _list(items: dict[str, Any], least: int, most: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array", "items": items, "minItems": least}
    return schema if most is None else {**schema, "maxItems": most}
