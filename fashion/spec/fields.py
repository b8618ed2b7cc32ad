"""What each field of a spec accepts, as a check and as a rule in words; both derive from the pydantic models."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fashion.bucket.address import is_address, parse_address
from fashion.config.data import DataConfig
from fashion.config.model import ModelConfig
from fashion.config.names import TIMM_PREFIX, names_in
from fashion.config.train import TrainConfig
from fashion.errors import nearest
from fashion.model.backbones import BACKBONES
from fashion.spec.settings import ResourcesConfig, SchedulerConfig, SearchConfig

SAMPLED: dict[str, type[BaseModel]] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
SETTINGS: dict[str, type[BaseModel]] = {
    "search": SearchConfig,
    "scheduler": SchedulerConfig,
    "resources": ResourcesConfig,
}
TOP_LEVEL = ("name", *SAMPLED, *SETTINGS, "storage")
# One sweep is over one data set, whose pictures are read one way, and over one kind of features.
NEVER_SAMPLED = (
    "data.root", "data.attributes", "data.missing", "data.split", "data.folds", "data.orientation", "data.depth",
    "data.on_error", "data.follow_links", "model.feature_stages", "model.feature_stats",
)  # fmt: skip
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # a sweep's name, which also names its folder

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class NotAllowedError(Exception):
    """A field does not accept a value; `rule` and `fix` say so in words."""

    def __init__(self, rule: str, fix: str = "") -> None:
        self.rule, self.fix = rule, fix
        super().__init__(rule)


@dataclass(frozen=True)
class FieldRule:
    """One field of a section, e.g. `train.lr`."""

    name: str
    info: FieldInfo

    @property
    def required(self) -> bool:
        return self.info.is_required()

    @property
    def default(self) -> Any:
        return self.info.default

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        kind: Any = self.info.annotation
        for constraint in self.info.metadata:
            kind = Annotated[kind, constraint]
        model = isinstance(kind, type) and issubclass(kind, BaseModel)
        return TypeAdapter(kind) if model else TypeAdapter(kind, config=_STRICT)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one value, whole in itself: a model's own schema stands where it is used."""
        schema = self._adapter.json_schema()
        models = schema.pop("$defs", {})
        if "anyOf" in schema:
            schema["anyOf"] = [models.get(part.get("$ref", "").rpartition("/")[2], part) for part in schema["anyOf"]]
        return schema

    @property
    def mapping(self) -> bool:
        """Whether a value is itself a mapping, so that one in a spec is no distribution."""
        return "object" in self._kinds

    @property
    def _kinds(self) -> set[str | None]:
        return {part.get("type") for part in self.schema.get("anyOf", [self.schema])}

    @property
    def numeric(self) -> bool:
        return bool(self._kinds & {"integer", "number"})

    @property
    def whole_numbers(self) -> bool:
        """Whether the field takes integers only, so that no continuous distribution fits it."""
        return "integer" in self._kinds and "number" not in self._kinds

    @property
    def words(self) -> list[str]:
        parts = self.schema.get("anyOf", [self.schema])
        return [str(word) for part in parts for word in part.get("enum", [part.get("const")]) if word]

    def check(self, value: Any) -> Any:
        """The value as the field holds it (1 becomes 1.0 in a field of real numbers). Raises NotAllowedError."""
        try:
            checked = self._adapter.validate_python(value)
        except ValidationError as error:
            raise NotAllowedError(f"must be {describe(self.schema)}", _hint(value, self) or _inside(error)) from None
        _check_meaning(self.name, checked)
        return checked

    def check_key(self, key: str) -> Any:
        """As `check`, for a value that is written as a key: the cases of a switch."""
        if key in ("null", "~"):
            return self.check(None)
        try:
            return self.check(key)
        except NotAllowedError:
            try:
                return self.check(self._adapter.validate_strings(key))
            except ValidationError:
                pass
            raise


@cache
def section_rules(section: str) -> dict[str, FieldRule]:
    """Field name -> rule, in the model's order."""
    model = {**SAMPLED, **SETTINGS}[section]
    return {name: FieldRule(f"{section}.{name}", info) for name, info in model.model_fields.items()}


@cache
def sampled_rules() -> dict[str, FieldRule]:
    """Dotted name -> rule of every data, model and train field."""
    return {rule.name: rule for section in SAMPLED for rule in section_rules(section).values()}


def show(value: Any) -> str:
    """A received value, short enough for a message."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(schema: dict[str, Any]) -> str:
    """A JSON Schema of one value in words: 'a whole number from 1 to 10000'."""
    if "anyOf" in schema:
        return " or ".join(describe(part) for part in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(word) for word in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        text = "a whole number" if kind == "integer" else "a number"
        low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
        high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
        form = ",d" if kind == "integer" else "g"
        if low is not None and high is not None:
            return f"{text} from {low:{form}} to {high:{form}}"
        bounds = [(above, "above"), (low, "at least"), (below, "below"), (high, "at most")]
        limits = " and ".join(f"{word} {bound:{form}}" for bound, word in bounds if bound is not None)
        return f"{text} of {limits}" if limits.startswith("at ") else f"{text} {limits}"
    if kind == "object":
        return f"a mapping of {', '.join(schema['properties'])}"
    if kind == "array":
        return f"a list of {describe(schema['items']).replace('a whole number', 'whole numbers')}"
    return {"boolean": "true or false", "string": "text", "null": "null"}[str(kind)]


def _hint(value: Any, rule: FieldRule) -> str:
    if isinstance(value, str):
        if rule.words:
            return nearest(value, rule.words)
        if value.lower() in ("yes", "no", "on", "off") and rule.schema.get("type") == "boolean":
            return "Write true or false"
        if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value, re.IGNORECASE):
            return "Write it without quotes"
    if value is None:
        return "Give a value, or remove the line to use the default" if not rule.required else "Give a value"
    if isinstance(value, float) and rule.whole_numbers and value.is_integer():
        return f"Write {int(value)}"
    if isinstance(value, list):
        sampled = rule.name.split(".")[0] in SAMPLED and rule.name not in NEVER_SAMPLED
        return f"To try several values write {{choice: {show(value)}}}" if sampled else ""
    return ""


def _inside(error: ValidationError) -> str:
    """What is wrong within a mapping; empty for any other value."""
    within = [each for each in error.errors() if len(each["loc"]) > 1 or each["type"] == "value_error"]
    said = [": ".join([*map(str, each["loc"][1:]), each["msg"].removeprefix("Value error, ")]) for each in within]
    return "; ".join(said)


def _check_meaning(name: str, value: Any) -> None:
    """Check what a type can't express. Raises NotAllowedError."""
    if name == "model.backbone":
        _check_backbones(names_in(value))
    words = ("none", "imagenet")
    if name == "model.weights" and value not in words and not value.endswith((".safetensors", ".pth", ".pt")):
        raise NotAllowedError(
            "must be none, imagenet, or the path of a .safetensors or .pth file", nearest(value, words)
        )
    if name == "data.root" and not value.strip():
        raise NotAllowedError("must be a folder, or begin with s3:// or gs://")
    if name == "data.root" and is_address(value):
        try:
            parse_address(value)
        except ValueError as error:
            raise NotAllowedError(f"must {error}", "For example s3://bucket/FashionDataset") from None
    if name in ("data.root", "model.weights"):
        check_home(value)


def _check_backbones(names: list[str]) -> None:
    for name in names:
        if name == TIMM_PREFIX:
            raise NotAllowedError("must name a timm model after timm:", "For example timm:resnet26d")
        if not name.startswith(TIMM_PREFIX) and name not in BACKBONES:
            everywhere = "`fashion-sweep model --list` shows them; timm:NAME takes any timm model"
            rule = "must be a known backbone" if len(names) == 1 else f"must be known backbones ({name!r} is none)"
            raise NotAllowedError(rule, nearest(name, list(BACKBONES), everywhere))
    if len(set(names)) < len(names):
        raise NotAllowedError("must name each backbone once")


def check_home(path: str) -> None:
    """Raise NotAllowedError for a path in the home of a user that this machine does not have."""
    if path.startswith("~") and os.path.expanduser(path).startswith("~"):
        raise NotAllowedError("begins with ~USER, but this machine has no such user")
