"""`model` shows a backbone with or without a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fashion.cli.main import main
from tests.support.typed import typed


def test_a_backbone_without_a_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    main(["model", "tiny"])
    shown = capsys.readouterr()
    assert "stage3" in shown.out
    assert "head " not in shown.out
    assert "--data ROOT adds a head" in shown.err
    alone = json.loads(typed(capsys, "model", "tiny", "--json"))
    assert alone["head_parameters"] == 0
    assert alone["parameters"] == alone["backbone_parameters"] == 157_232


def test_a_backbone_with_a_data_set(demo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(typed(capsys, "model", "tiny", "--data", str(demo_root), "--json"))
    assert whole["head_parameters"] > 0
