"""`train.teacher`: what it names is found and read, or refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fashion.data.layout import Dataset
from fashion.data.splits.folds import in_folds
from fashion.errors import DataError, RunError, UserError
from fashion.prediction.probabilities import read_probabilities, write_probabilities
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.extend import continue_with
from fashion.sweep.foresee import foreseen_here
from fashion.sweep.models.teachers import read_teachers, teacher_file
from fashion.sweep.reuse import key, trained_elsewhere
from tests.support.labelled import DIGIT, SIZE, configured, digits, labelled_run
from tests.support.neighbours import new_run, train

pytestmark = pytest.mark.usefixtures("cache_of_module")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits"), attributes=(DIGIT, SIZE))


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of an ordinary trial, which has not predicted the training images."""
    return labelled_run(tmp_path_factory.mktemp("runs"), dataset, configured(dataset.root, epochs=1))


def answer(dataset: Dataset, path: Path, images: int | None = None) -> Path:
    names = dataset.splits["train"].images[:images]
    rng = np.random.default_rng(0)
    heads = [rng.dirichlet(np.ones(len(each.classes)), len(names)).astype(np.float32) for each in dataset.attributes]
    return write_probabilities(path, names, [(each.name, each.classes) for each in dataset.attributes], heads)


def unheard(text: str) -> None:
    pytest.fail(f"was told: {text}")


def test_of_a_run_the_answer_for_train_is_taken_the_ensembles_first(run: Run, dataset: Dataset) -> None:
    with pytest.raises(DataError, match=f"best sweep --storage {run.path.parent} --predict --split train"):
        teacher_file(str(run.path))
    single = answer(dataset, run.predictions_dir / "train" / "probabilities.parquet")
    assert teacher_file(str(run.path)).path == single
    together = answer(dataset, run.predictions_dir / "ensemble-train" / "probabilities.parquet")
    assert teacher_file(str(run.path)).path == together
    found = read_teachers([str(run.path), str(single), str(run.path)], dataset, unheard)
    assert list(found) == [str(run.path), str(single)]
    names, _, heads = read_probabilities(single)
    assert found[str(single)].images == tuple(names)
    np.testing.assert_array_equal(found[str(single)].of(names), np.concatenate(heads, axis=1))


def test_with_folds_each_image_is_told_by_a_model_that_had_not_seen_it(dataset: Dataset, tmp_path: Path) -> None:
    folded = in_folds(dataset, 3, None)
    run = labelled_run(tmp_path / "runs", folded, configured(dataset.root, {"folds": 3}, epochs=1))
    told: list[str] = []
    (labels,) = read_teachers([str(run.path)], dataset, told.append).values()
    assert sorted(labels.images) == sorted(folded.splits["train"].images)
    assert len(labels.images) == 330
    assert len(told) == 1
    assert "were trained on validation images" in told[0]


def test_columns_are_put_in_the_data_sets_order(dataset: Dataset, tmp_path: Path) -> None:
    names, attributes, heads = read_probabilities(answer(dataset, tmp_path / "a.parquet"))
    turned = write_probabilities(tmp_path / "b.parquet", names, [*attributes.items()][::-1], heads[::-1])
    (labels,) = read_teachers([str(turned)], dataset, unheard).values()
    for mine, theirs in zip(labels.probabilities, heads, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_no_teacher_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    def refused(value: Path) -> str:
        with pytest.raises(UserError) as error:
            read_teachers([str(value)], dataset, unheard)
        return str(error.value)

    assert "train.teacher: must be a run's folder on this machine" in refused(tmp_path / "nowhere")
    (tmp_path / "text.parquet").write_text("no Parquet")
    assert "must be a Parquet file of class probabilities" in refused(tmp_path / "text.parquet")
    few = answer(dataset, tmp_path / "few.parquet", images=238)
    last = dataset.splits["train"].images[-2:]
    assert f"for all 240 training images; got {few}, without 2 of them ({last[0]}, {last[1]})" in refused(few)
    other = replace(dataset, attributes=(DIGIT,))
    assert "must have the data set's attributes and classes, digit (10), size (2); got" in refused(
        answer(other, tmp_path / "other.parquet")
    )


@pytest.fixture
def spec(tmp_path: Path, dataset: Dataset) -> SweepSpec:
    (tmp_path / "sweep.yaml").write_text(
        "name: student\ndata: {root: ROOT, resize: 32, crop: 32}\nmodel: {backbone: tiny, weights: none}\n"
        "train: {epochs: 4, lr: {loguniform: [0.001, 0.1]}, teacher: {choice: [TEACHER]}}\nsearch: {trials: 3}\n"
        .replace("ROOT", str(dataset.root)).replace("TEACHER", str(tmp_path / "teacher.parquet"))
    )  # fmt: skip
    return load_spec(tmp_path / "sweep.yaml", [f"storage={tmp_path / 'runs'}"])


def test_check_looks_for_it(spec: SweepSpec, dataset: Dataset, tmp_path: Path) -> None:
    def problems() -> list[str]:
        return [each.place for each in foreseen_here(spec, lambda label, done, total: None)]

    assert "train.teacher" in problems()
    answer(dataset, tmp_path / "teacher.parquet")
    assert "train.teacher" not in problems()


def test_a_sweep_goes_on_and_trials_are_taken_over_only_with_the_teacher_that_they_had(
    spec: SweepSpec, tmp_path: Path
) -> None:
    teacher = str(tmp_path / "teacher.parquet")
    first = new_run(spec, "first", teachers={teacher: "one"})
    train(first, spec, 0)
    same = new_run(spec, "same", teachers={teacher: "one"})
    assert list(trained_elsewhere(same)) == [key(first.trials[0].config)]
    assert not trained_elsewhere(new_run(spec, "changed", teachers={teacher: "two"}))
    with pytest.raises(RunError, match=f"the teacher {teacher} has changed since this sweep started"):
        continue_with(first, spec, Path("elsewhere"), "f", teachers={teacher: "two"})
    continue_with(first, spec, Path("elsewhere"), "f", teachers={teacher: "one"})
    assert Run.open(first.path).manifest["teachers"] == {teacher: "one"}
