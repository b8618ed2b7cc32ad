"""The page says of a run's winner what `best`, `show` and `compare` say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix, f1_score

from benchmarks.page_run import CLASSES, draw_run
from fashion.api.recorded_run import RecordedRun
from fashion.page.attributes import attribute_results, wrong_answers
from fashion.page.gather import PageRun, gather
from fashion.page.panels import answer_sentences, pairs_of
from fashion.record.run import Run


def drawn(folder: Path, name: str, images: int, predicted: int = 4, **more: Any) -> PageRun:
    return gather(RecordedRun(Run.open(draw_run(folder, name, 6, 3, images, predicted=predicted, **more).path)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    return drawn(tmp_path_factory.mktemp("runs"), "one", 300)


def test_an_attributes_figures_are_those_of_the_run(run: PageRun) -> None:
    assert run.certainty is not None
    assert run.predictions is not None
    results, left = attribute_results(run.manifest, run.predictions)
    assert left == ""
    for each, head in zip(results, run.predictions.attributes, strict=True):
        assert head.labels is not None
        kept = run.certainty.intervals()[f"val_accuracy/{each.name}"]
        found = (each.accuracy.value, each.accuracy.low, each.accuracy.high)
        assert found == pytest.approx((kept.value, kept.low, kept.high))
        assert each.balanced.value == pytest.approx(balanced_accuracy_score(head.labels, head.predicted))
        assert each.confusion is not None
        np.testing.assert_array_equal(each.confusion, confusion_matrix(head.labels, head.predicted))
        right, always = head.predicted == head.labels, head.labels == head.classes.index(each.majority)
        assert each.majority_accuracy == pytest.approx(always.mean())
        ends = stats.bootstrap(
            (right.astype(float) - always,), np.mean, n_resamples=2000, method="percentile", rng=1
        ).confidence_interval
        near = 0.15 * (ends.high - ends.low)
        assert (each.gain.low, each.gain.high) == pytest.approx((ends.low, ends.high), abs=near)


def test_classes_of_a_multi_label_attribute_are_scored_one_by_one_where_their_label_is_known(tmp_path: Path) -> None:
    classes = {**CLASSES, "extras": ("belt", "hood", "scarf")}
    found = drawn(tmp_path, "several", 200, classes=classes, several=("extras",), missing=0.2).predictions
    assert found is not None
    manifest = Run.open(tmp_path / "several").manifest
    results, left = attribute_results(manifest, found)
    assert left == ""
    assert all(each.missing > 0 for each in results)
    extras, head = results[-1], found.attributes[-1]
    assert head.labels is not None
    known = head.labels >= 0
    assert (extras.labels, extras.missing) == (known.sum(), (~known).sum())
    assert extras.confusion is None
    assert extras.majority == "|".join(
        name for name, count, images in zip(head.classes, manifest["label_counts"]["train"][-1],
                                            manifest["known_labels"]["train"]["columns"][-1], strict=True)
        if 2 * count > images
    )  # fmt: skip
    for k, score in enumerate(extras.scores):
        holds, sure = head.labels[known[:, k], k], head.probabilities[known[:, k], k]
        assert score.average_precision.value == pytest.approx(average_precision_score(holds, sure))
        assert score.f1.value == pytest.approx(f1_score(holds, sure > 0.5))
        assert score.average_precision.low < score.average_precision.value < score.average_precision.high
    surest = wrong_answers(found, most=200)
    assert [each.confidence for each in surest] == sorted((each.confidence for each in surest), reverse=True)
    row = next(each for each in surest if each.attribute == "extras")
    image = found.images.index(row.image)
    name = row.label.removeprefix("not ")
    assert {row.label, row.predicted} == {name, f"not {name}"}
    assert head.labels[image, head.classes.index(name)] == (row.label == name)


def test_what_is_missing_is_told(run: PageRun, tmp_path: Path) -> None:
    assert run.tied == frozenset(run.opened.certainty().tied)
    assert {each.trial for each in run.opened.certainty().trials} == {
        row.number for row in run.rows if run.interval(row.number, "val_loss")
    }
    bare = drawn(tmp_path, "bare", 60, predicted=0)
    said = " ".join(answer_sentences(bare))
    assert "How sure that is can't be told: trials" in said
    assert bare.tied == frozenset()


def test_runs_side_by_side_are_paired_as_compare_pairs_them(run: PageRun, tmp_path: Path) -> None:
    same, other = drawn(tmp_path, "same", 300), drawn(tmp_path, "other", 60)
    twin, unlike = pairs_of([run, same, other], ["one", "same", "other"])
    assert {(each.difference.value, each.difference.within_noise) for each in twin.differences} == {(0.0, True)}
    assert twin.differences[0].level == pytest.approx(0.975), "two comparisons hold together"
    assert "they were validated on other images (300 and 60" in unlike.unpaired
