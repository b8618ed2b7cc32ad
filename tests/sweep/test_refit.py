"""The spec of a refit, what is refused, and what is said of a model that has no validation score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fashion
from fashion.api.sweeps import load_spec
from fashion.config.trial import read_config
from fashion.display.pages import page
from fashion.display.winner import print_winner, winner_json
from fashion.errors import RunError, SpecError
from fashion.reading.certainty import certainty
from fashion.reading.compare import Side, pairings
from fashion.reading.cost import cost_of, images_per_second
from fashion.reading.ensembles.found import find_ensemble
from fashion.record.ranking import best
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec
from fashion.sweep.refit import note_origin, refit_spec
from tests.support.ensembles import with_weights
from tests.support.recorded import ATTRIBUTES, SPEC, record
from tests.support.skilled_runs import predicted_run

MANIFEST = {
    "data_fingerprint": "f",
    "attributes": ATTRIBUTES,
    "label_counts": {"train": [[5, 2, 3], [8, 2]], "val": [[4, 3, 3], [6, 4]]},
    "splits": {"train": 600, "val": 150},
}


def swept(folder: Path) -> tuple[Run, SweepSpec]:
    """A run whose winner was best at the second of its four epochs."""
    run = Run.create(folder, "lr", {"spec": SPEC, **MANIFEST})
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    run.close()
    asked = SweepSpec.from_json({**SPEC, "name": "lr", "storage": str(folder), "resources": {"max_failures": 7}})
    return run, asked


def refitted(folder: Path) -> Run:
    """The refit of such a run, recorded as if it had been trained: its first epoch has the lower val_loss."""
    run, asked = swept(folder)
    wanted = refit_spec(run, best(run), asked)
    refit = Run.create(wanted.storage, wanted.name, {"spec": wanted.to_json(), **MANIFEST})
    config = wanted.trial(0).model_dump(mode="json")
    refit.record_trial(0, config)
    refit.record_attempt(0)
    done = predicted_run(folder / "elsewhere", "made", [1.0])
    for epoch, loss in ((1, 0.1), (2, 0.2)):
        report = done.trials[0].reports[0]
        told = {**report.to_json(), "trial": 0, "epoch": epoch, "epochs": 2}
        told["metrics"] = {**told["metrics"], "val_loss": loss, "train_loss": 0.05}
        refit.record_report(type(report).from_json(told), "continue")
    refit.record_end(0, "completed")
    refit.close()
    note_origin(refit, run, best(run))
    (refit.trial_dir(0)).mkdir(parents=True)
    return with_weights(refit)


def test_it_is_the_winner_on_both_splits_for_the_epochs_that_were_best(tmp_path: Path) -> None:
    run, asked = swept(tmp_path)
    wanted = refit_spec(run, best(run), asked)
    assert (wanted.name, wanted.storage, wanted.total_trials) == ("refit", str(tmp_path / "lr"), 1)
    assert wanted.scheduler.name == "fifo"
    assert wanted.resources == asked.resources
    config, before = wanted.trial(0), read_config(run.trials[0].config)
    assert (config.train.epochs, config.train.fit_on) == (2, "train+val")
    restored = config.train.model_copy(update={"epochs": 4, "fit_on": "train"})
    assert (config.data, config.model, restored) == (before.data, before.model, before.train)


def test_a_warm_up_that_would_not_fit_is_shortened(tmp_path: Path) -> None:
    run, asked = swept(tmp_path)
    run.trials[0].config["train"]["warmup_epochs"] = 3
    assert refit_spec(run, best(run), asked).trial(0).train.warmup_epochs == 1.5
    run.trials[0].config["train"]["warmup_epochs"] = 1
    assert refit_spec(run, best(run), asked).trial(0).train.warmup_epochs == 1


def test_another_winners_refit_is_not_overwritten(tmp_path: Path) -> None:
    refitted(tmp_path)
    run, asked = Run.open(tmp_path / "lr"), SweepSpec.from_json({**SPEC, "name": "lr", "storage": str(tmp_path)})
    assert refit_spec(run, best(run), asked).trial(0).train.epochs == 2
    record(run, 1, [0.9, 0.5, 0.3])
    with pytest.raises(RunError, match="must be the refit of trial 1, epoch 3; got that of trial 0, epoch 2"):
        refit_spec(run, best(run), asked)


def test_a_refit_has_no_refit(tmp_path: Path) -> None:
    refit = refitted(tmp_path)
    with pytest.raises(RunError, match="was trained on the validation images already"):
        refit_spec(refit, best(refit), SweepSpec.from_json(refit.manifest["spec"]))


def test_its_last_epoch_counts_and_no_score_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refit = refitted(tmp_path)
    opened = fashion.open_run(refit.path)
    winner = opened.best()
    assert winner.epoch == 2
    sure = certainty(refit)
    assert (sure.trials, sure.tied) == ((), ())
    assert "trained on the validation images" in sure.untold
    with pytest.raises(RunError, match="trial 0 has no validation score"):
        opened.predictions()
    folder = opened.promote()
    description = json.loads((folder / "model.json").read_text())
    assert set(description["metrics"]) == {"train_loss"}
    card = (folder / "README.md").read_text()
    told = winner_json(refit, winner, str(folder), sure)
    assert not [name for name in told["metrics"] if name.startswith("val_")]
    assert told["attributes"][0]["accuracy"] == "nan"
    print_winner(refit, winner, str(folder), page(), sure)
    shown = " ".join(capsys.readouterr().out.split())
    for text in (card, shown, " ".join(told["refit"])):
        assert "no validation score of it is available" in text
        assert "trial 0 of lr, and as many epochs as were best there, 2, on 750 images instead of 600" in text
        assert "75.00 % of the validation labels right" in text
        assert "That is no measurement" in text
    assert "0.2000" not in shown
    # 25 % more images: the error is lower by 1.25 ** -0.07 to 1.25 ** -0.35.
    assert "75.39 to 76.88 %" in shown


def test_it_is_neither_compared_nor_a_member(tmp_path: Path) -> None:
    refit = refitted(tmp_path)
    other = with_weights(predicted_run(tmp_path, "other", [1.2, 1.3]))

    def side(run: Run) -> Side:
        return Side(run.name, run, best(run), cost_of(run, best(run), run.trials.values()), None, "nothing")

    (pair,) = pairings([side(other), side(refit)])
    assert "refit has no validation score" in pair.unpaired
    found = find_ensemble([(other, None), (refit, None)], 3)
    assert {member.run.name for member in found.members} == {"other"}
    assert found.left_out == ("trial 0 of refit has no validation score, as it was trained on those images",)
    with pytest.raises(RunError, match="no trial has both"):
        find_ensemble([(refit, None)], 3)
    trial = refit.trials[0]
    seconds = sum(report.seconds for report in trial.reports)
    assert images_per_second(refit, [trial]) == pytest.approx(2 * (10 + 10) / seconds)


@pytest.mark.parametrize(
    ("train", "search", "rule"),
    [
        ({"fit_on": "train+val"}, {"trials": 2}, "goes with search.trials: 1"),
        ({"fit_on": {"choice": ["train", "train+val"]}}, {"trials": 1}, "must be the same in all trials"),
        ({"fit_on": "val"}, {"trials": 1}, "must be one of train, train"),
    ],
)
def test_specs_that_could_not_be_ranked(
    tmp_path: Path, train: dict[str, Any], search: dict[str, Any], rule: str
) -> None:
    spec = tmp_path / "spec.yaml"
    sections = {
        "data": {"root": "d"},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": train,
        "search": search,
    }
    spec.write_text(json.dumps(sections))
    with pytest.raises(SpecError, match=rule):
        load_spec(spec)
    sections["train"], sections["search"] = {"fit_on": "train+val"}, {"trials": 1}
    spec.write_text(json.dumps(sections))
    assert load_spec(spec).trial(0).train.fit_on == "train+val"
