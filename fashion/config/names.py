"""How backbones are named in a configuration. Without pydantic: commands that only read a record begin at once."""

from __future__ import annotations

TIMM_PREFIX = "timm:"  # before the name of any network of timm's
JOINT = "+"  # between the names of backbones that are one model's


def names_in(backbone: str) -> list[str]:
    """The names of the backbones that `model.backbone` names: one, or several with JOINT between them."""
    return backbone.split(JOINT)


def asks_timm(backbone: str) -> bool:
    """Whether one of the backbones is no row of the table, but any network of timm's."""
    return any(name.startswith(TIMM_PREFIX) for name in names_in(backbone))
