"""A record that lacks a field means what a trial did before the field existed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fashion.config.base import OF_ITS_TIME
from fashion.config.data import Form
from fashion.config.trial import TrialConfig, of_its_time, read_config, same_anywhere
from fashion.data.remote.pushed import Pushed
from fashion.record.trial_files import LAST
from fashion.spec.sweep_spec import load_spec
from fashion.sweep.reuse import key
from fashion.training.checkpoint import load_last, standing
from fashion.training.loop import TrialInputs, fit
from tests.support.trained import NONE, config, packs, training


@pytest.fixture
def erased(monkeypatch: pytest.MonkeyPatch) -> str:
    """As if `data.erase` were a new field, and versions before it had erased in every fourth image."""
    monkeypatch.setitem(OF_ITS_TIME, "data.erase", 0.25)
    return "erase"


def without(recorded: dict[str, Any], field: str) -> dict[str, Any]:
    """The record of a version that had no such field in `data`."""
    return {**recorded, "data": {name: value for name, value in recorded["data"].items() if name != field}}


def before(root: Path, **data: Any) -> tuple[TrialConfig, dict[str, Any]]:
    whole = config(root).model_dump(mode="json")
    found = TrialConfig.model_validate({**whole, "data": {**whole["data"], **data}})
    return found, found.model_dump(mode="json")


def test_a_field_of_the_table_has_the_value_of_its_time_where_a_record_lacks_it(erased: str) -> None:
    meant, recorded = before(Path("data"), erase=0.25)
    assert read_config(without(recorded, erased)) == meant
    assert read_config({**recorded, "data": {**recorded["data"], "erase": 0.5}}).data.erase == 0.5
    assert same_anywhere(without(recorded, erased), recorded)
    assert key(without(recorded, erased)) == key(recorded)
    assert of_its_time({"data": "no mapping", "name": "run"}) == {"data": "no mapping", "name": "run"}


def test_any_other_field_has_its_default() -> None:
    meant, recorded = before(Path("data"), erase=0.0)
    assert read_config(without(recorded, "erase")) == meant
    assert same_anywhere(without(recorded, "erase"), {**recorded, "data": {**recorded["data"], "root": "elsewhere"}})
    assert not same_anywhere(without(recorded, "erase"), {**recorded, "seed": 1})
    assert not same_anywhere({"data": {}}, {"data": {}})


def test_a_recorded_spec_has_the_values_of_its_time(tmp_path: Path, erased: str) -> None:
    (tmp_path / "a.yaml").write_text(
        "data: {root: data, erase: 0.25}\nmodel: {backbone: tiny, weights: none}\ntrain: {epochs: 2}\n"
    )
    spec = load_spec(tmp_path / "a.yaml")
    recorded = type(spec).from_json(without(spec.to_json(), erased))
    assert recorded == spec
    assert recorded.differences(spec) == []


def test_a_checkpoint_without_the_field_is_gone_on_from(demo_root: Path, tmp_path: Path, erased: str) -> None:
    meant, recorded = before(demo_root, erase=0.25)
    data = packs(demo_root, meant)
    first = training(TrialInputs(meant, data, NONE, tmp_path))
    next(first)
    first.close()
    plain = load_last(tmp_path / LAST)
    plain["config"] = read_config(recorded).model_dump_json(exclude={"data": {erased}})
    assert '"erase"' not in plain["config"]
    torch.save(plain, tmp_path / LAST)
    epochs = len(plain["history"])
    assert standing(tmp_path / LAST, meant, data.fingerprint) == (epochs, 0)
    other = meant.model_copy(update={"data": meant.data.model_copy(update={"erase": 0.0})})
    assert standing(tmp_path / LAST, other, data.fingerprint) == (0, 0)
    reports = list(fit(TrialInputs(meant, data, NONE, tmp_path)))
    assert [(report.epoch, report.attempt) for report in reports][epochs - 1 : epochs + 1] == [
        (epochs, 1),
        (epochs + 1, 2),
    ]


def test_a_pushed_pack_without_a_setting_was_made_as_all_were(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = {"split": "val", "resize": 32, "fit": "pad", "path": f"packs/{'0' * 16}/a.arrow", "size": 1,
            "sha256": "0" * 64, "seal": {}}  # fmt: skip
    content = json.dumps({"format": 1, "fingerprint": "0" * 16, "contents": "0" * 64, "packs": [pack]}).encode()
    assert Pushed.from_json(content).forms == [Form(32, "pad", "bicubic", "ignore", "maximum")]
    monkeypatch.setitem(OF_ITS_TIME, "data.interpolation", "bilinear")
    assert Pushed.from_json(content).forms == [Form(32, "pad", "bilinear", "ignore", "maximum")]


def test_records_of_versions_without_orientation_and_depth_mean_what_they_did() -> None:
    _, recorded = before(Path("data"), orientation="ignore", depth="maximum")
    older = without(without(without(without(recorded, "orientation"), "depth"), "on_error"), "follow_links")
    found = read_config(older).data
    assert (found.orientation, found.depth) == ("ignore", "maximum")
    assert (found.on_error, found.follow_links) == ("refuse", False)
    assert str(found.form) == f"{found.resize}-stretch-bicubic"


def test_a_sweep_that_an_older_version_began_goes_on_as_it_was(tmp_path: Path) -> None:
    """A spec that does not speak of a later field keeps what its run means; one that does is another spec."""
    text = "data: {root: data%s}\nmodel: {backbone: tiny, weights: none}\ntrain: {epochs: 2}\n"
    specs = {}
    for name, more in (("silent", ""), ("apply", ", orientation: apply"), ("ignore", ", orientation: ignore")):
        (tmp_path / "a.yaml").write_text(text % more)
        specs[name] = load_spec(tmp_path / "a.yaml")
    form = specs["silent"].to_json()
    for field in ("orientation", "depth", "on_error", "follow_links"):
        del form["data"][field]
    began = type(specs["silent"]).from_json(form)
    assert specs["silent"].fixed["data.orientation"] == "apply"
    assert began.fixed["data.orientation"] == "ignore"
    assert began.differences(specs["silent"].begun_as(began)) == []
    assert began.differences(specs["ignore"].begun_as(began)) == []
    assert began.differences(specs["apply"].begun_as(began)) == ["data.orientation: ignore -> apply"]
    now = type(specs["silent"]).from_json(specs["silent"].to_json())
    assert now.differences(specs["silent"].begun_as(now)) == []
