"""`best --ensemble` as typed: its page, its JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.ensembles import with_weights
from tests.support.skilled_runs import predicted_run
from tests.support.typed import told, typed


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    with_weights(predicted_run(tmp_path, "lr", [1.2, 1.25, 1.5, 0.3]))
    with_weights(predicted_run(tmp_path, "other", [1.3, 1.2], noise=300))
    return tmp_path


def test_the_page_says_who_what_for_and_at_what_cost(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (storage / "lr" / "trials" / "0003" / "best-0001.safetensors").unlink()
    text = typed(capsys, "best", "lr", "--storage", str(storage), "--ensemble", "5")
    flat = " ".join(text.split())
    assert re.search(r"an ensemble of [23] trials, [2-5] picks of 3 trials", flat)
    assert "trial 3 has no weights any more, and can't be a member" in flat
    assert "beside the best single model, trial 2, epoch 1" in flat
    assert "Its val_loss is lower by more than chance explains." in flat
    assert "temperatures: sleeve " in flat
    assert re.search(r"cost: [23] passes for each image; [\d.]+ images/s if each member takes as long", flat)
    assert f"promoted to {storage}/lr/ensemble" in text.replace("\n", "")
    assert not (storage / "lr" / "best").exists()


def test_json_has_all_of_it(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("best", "lr", "--storage", str(storage), "--ensemble", "4", "--with", "other", "--json")
    found = json.loads(typed(capsys, *arguments))
    assert found["picks"]["asked"] == 4
    assert sum(member["count"] for member in found["members"]) == found["picks"]["count"]
    assert {Path(member["run"]).name for member in found["members"]} == {"lr", "other"}
    loss = next(each for each in found["differences"] if each["metric"] == "val_loss")
    assert loss["second"] == found["metrics"]["val_loss"] < loss["first"]
    assert loss["low"] <= loss["difference"] <= loss["high"]
    assert found["promoted"] == f"{storage}/lr/ensemble"
    assert "predictions" not in found
    shown = " ".join(typed(capsys, *arguments[:-1]).split())
    assert "run" in shown
    assert " of lr" in shown or " of other" in shown


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--with", "other"], "--with goes with --ensemble"),
        (["--ensemble", "3", "--trial", "1"], "--ensemble excludes --trial"),
        (["--ensemble", "3", "--all"], "--ensemble excludes --trial, --epoch and --all"),
        (["--ensemble", "0"], "0 is not in the range"),
        (["--ensemble", "3", "--with", "lr"], "must be another run each"),
        (["--ensemble", "3", "--split", "val"], "go with --predict"),
    ],
)
def test_what_does_not_go_together(
    storage: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], rule: str
) -> None:
    assert rule in told(capsys, "best", "lr", "--storage", str(storage), *arguments)
