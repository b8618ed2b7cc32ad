"""The shipped cluster.yaml: its text, its content, and what Ray makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fashion.cluster.cluster_file import PLACEHOLDER
from fashion.spec.sweep_spec import load_spec

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "sweeps").glob("*.yaml"))
WANTED = [(path.name, load_spec(path).resources) for path in SPECS]
SHIPPED = (ROOT / "cluster.yaml").read_text()
FILLED = SHIPPED  # with ids in place of the placeholders
for prefix in ("ami", "sg", "fs"):
    FILLED = FILLED.replace(f"{prefix}-{PLACEHOLDER}", f"{prefix}-0123456789abcdef0")
CONFIG: dict[str, Any] = yaml.safe_load(FILLED)  # as Ray reads it


def prepared(text: str) -> dict[str, Any]:
    """The file as `ray up` prepares and validates it before it asks the cloud. Raises what Ray raises."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return config
