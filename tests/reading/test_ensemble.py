"""Who is chosen for an ensemble from recorded runs, what its score is of, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fashion
from fashion.errors import RunError
from fashion.reading.ensembles.as_json import ensemble_json, members_json
from fashion.reading.ensembles.found import find_ensemble
from fashion.record.ranking import ranking
from fashion.record.run import Run
from fashion.record.trial_files import predictions_path
from fashion.statistics.outcomes import HeadLabels, outcomes
from fashion.statistics.resampling import weighted
from tests.support.ensembles import with_weights
from tests.support.recorded import ATTRIBUTES
from tests.support.skilled_runs import NAMES, labels_of, predicted_run, probabilities_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Five trials of like skill whose errors have little to do with each other: averaging helps."""
    return with_weights(predicted_run(tmp_path, "lr", [1.2, 1.25, 1.3, 1.25, 0.2]))


def test_the_best_ones_are_averaged_and_beat_the_best(run: Run) -> None:
    found = find_ensemble([(run, None)], 5)
    assert 3 <= found.picks <= 5
    assert [member.count for member in found.members] == sorted((m.count for m in found.members), reverse=True)
    assert found.picks == sum(member.count for member in found.members)
    assert (found.candidates, found.images, found.left_out) == (5, len(NAMES), ())
    assert found.single[1] == fashion.open_run(run.path).best()
    loss = next(each for each in found.differences if each.metric == "val_loss")
    assert loss.first == pytest.approx(found.single[1].val_loss, abs=1e-6)
    assert loss.second == found.metrics["val_loss"]
    assert loss.difference.high < 0


def test_one_pick_is_the_best_trial_and_its_score_is_honest(run: Run) -> None:
    """What a fold would not have chosen is not credited to it; temperatures are the only other difference."""
    found = find_ensemble([(run, None)], 1)
    (member,) = found.members
    assert (member.chosen, member.count) == (found.single[1], 1)
    labels = labels_of()
    trial = found.single[1].trial
    skill = (1.2, 1.25, 1.3, 1.25, 0.2)[trial]
    heads = [HeadLabels(str(a["name"]), len(a["classes"]), labels[:, i]) for i, a in enumerate(ATTRIBUTES)]
    made = outcomes(heads, [probabilities_of(labels, skill, 100 + trial)])
    alone = float(weighted(made, np.ones((made.images, 1)))["val_loss"][0, 0])
    assert found.single[1].val_loss == pytest.approx(alone, abs=1e-6)
    assert set(found.temperatures) == {"sleeve", "fit"}


def test_what_lacks_weights_or_predictions_is_no_member(run: Run) -> None:
    first, second, third, *rest = (each.trial for each in ranking(run))
    run.checkpoint_path(first, 1).unlink()
    predictions_path(run.trial_dir(second), 1).unlink()
    predictions_path(run.trial_dir(third), 1).write_bytes(b"damaged")
    found = find_ensemble([(run, None)], 5)
    assert {member.chosen.trial for member in found.members} <= set(rest)
    assert found.single[1].trial == first  # what it is measured against need not be there
    assert set(found.left_out) == {
        f"trial {second} has no validation predictions",
        f"trial {third} has damaged validation predictions",
        f"trial {first} has no weights any more",
    }
    for number in rest:
        run.checkpoint_path(number, 1).unlink()
    with pytest.raises(RunError, match="no trial has both its validation predictions and its weights"):
        find_ensemble([(run, None)], 5)


def test_trials_of_several_runs_whose_lists_are_in_another_order(run: Run, tmp_path: Path) -> None:
    other = with_weights(predicted_run(tmp_path, "other", [1.3, 1.3], noise=500, fingerprint="g"))
    order = np.random.default_rng(3).permutation(len(NAMES))
    for path in (other.val_labels_path, *(predictions_path(other.trial_dir(number), 1) for number in (0, 1))):
        pq.write_table(pq.read_table(path).take(pa.array(order)), path)
    found = find_ensemble([(run, None), (other, None)], 6)
    assert {member.run.name for member in found.members} == {"lr", "other"}
    assert found.candidates == 7
    straight = with_weights(predicted_run(tmp_path / "straight", "other", [1.3, 1.3], noise=500))
    same = find_ensemble([(run, None), (straight, None)], 6)
    assert found.metrics == pytest.approx(same.metrics)
    assert [(each.run.name, each.chosen.trial, each.count) for each in found.members] == [
        (each.run.name, each.chosen.trial, each.count) for each in same.members
    ]


def test_runs_of_other_images_or_labels_are_refused(run: Run, tmp_path: Path) -> None:
    labelled = with_weights(predicted_run(tmp_path, "labels", [1.0], seed=1))
    with pytest.raises(RunError, match="the labels of sleeve are not those of lr"):
        find_ensemble([(run, None), (labelled, None)], 3)
    other = with_weights(predicted_run(tmp_path, "images", [1.0]))
    for path in (other.val_labels_path, predictions_path(other.trial_dir(0), 1)):
        pq.write_table(pq.read_table(path).slice(0, 100), path)
    with pytest.raises(RunError, match="was validated on other images; got 100 images, 100 of them among the 400"):
        find_ensemble([(run, None), (other, None)], 3)
    other.manifest["attributes"] = ATTRIBUTES[:1]
    with pytest.raises(RunError, match="must predict the attributes and classes of lr"):
        find_ensemble([(run, None), (other, None)], 3)


def test_what_it_costs_is_the_sum_over_its_members(run: Run) -> None:
    found = find_ensemble([(run, None)], 3)
    speeds = [member.images_per_second for member in found.members]
    assert found.images_per_second == pytest.approx(1 / sum(1 / speed for speed in speeds if speed))
    assert found.parameters is None
    trial = run.trials[found.members[0].chosen.trial]
    trial.config["train"]["mode"] = "probe"  # its epochs never ran the backbone
    found = find_ensemble([(run, None)], 3)
    assert found.images_per_second is None
    told = ensemble_json(found)
    assert told["images_per_second"] is None
    assert json.loads(json.dumps([told, members_json(found)], allow_nan=False))[0]["images"] == len(NAMES)


def test_a_promoted_ensemble_names_its_members(run: Run, tmp_path: Path) -> None:
    opened = fashion.open_run(run.path)
    folder = opened.promote_ensemble()
    assert folder == run.path / "ensemble"
    found = opened.ensemble()
    description = json.loads((folder / "model.json").read_text())
    assert description["format"] == 2
    named = [(each["trial"], each["count"]) for each in description["members"]]
    assert named == [(each.chosen.trial, each.count) for each in found.members]
    for place, each in enumerate(description["members"], start=1):
        own = json.loads((folder / f"member-{place}.json").read_text())
        assert (own["trial"], own["weights"]["file"]) == (each["trial"], f"member-{place}.safetensors")
        assert own["weights"]["sha256"] == each["sha256"]
    card = (folder / "README.md").read_text()
    assert all(f"| `member-{place}` | lr | {trial} |" in card for place, (trial, _) in enumerate(named, start=1))
    assert "cross-fitted" in card
    assert not run.best_dir.exists()
    run.checkpoint_path(named[0][0], 1).write_bytes(b"")  # what is there stays, and is whole
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(fashion.CheckpointError):
        opened.promote_ensemble(found)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert math.isfinite(description["metrics"]["val_loss"])
    with pytest.raises(RunError, match="picks: must be at least 1"):
        opened.ensemble(0)
