"""A trial's validation predictions, with the labels of the run's own file, of the data set, or none and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fashion
from fashion.data.layout import Dataset
from fashion.record.run import Run
from tests.support.promoted import promoted_run
from tests.support.servers.s3_server import Server


@pytest.fixture(scope="module")
def trained(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    return promoted_run(tmp_path_factory.mktemp("runs"), demo_root, {}, {})


@pytest.fixture
def folder(trained: tuple[Run, Dataset], tmp_path: Path) -> Path:
    """A copy of the run, as an older version left it: without the labels' file."""
    return Path(shutil.copytree(trained[0].path, tmp_path / "run"))


def write_labels(folder: Path, dataset: Dataset, images: list[str] | None = None, change: int = 0) -> None:
    labels = dataset.labels("val") + change
    columns = {name: pa.array(labels[:, head], pa.int64()) for head, name in enumerate(dataset.attribute_names)}
    table = pa.table({"image": images or list(dataset.splits["val"].images), **columns})
    pq.write_table(table, folder / "val-labels.parquet")


def change_manifest(folder: Path, **changes: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_predictions_reproduce_the_recorded_accuracy(folder: Path, trained: tuple[Run, Dataset]) -> None:
    dataset = trained[1]
    write_labels(folder, dataset)
    change_manifest(folder, data_root="/nowhere")
    run = fashion.open_run(folder)
    found = run.predictions()
    best = run.best()
    assert (found.trial, found.epoch, found.labels_missing) == (best.trial, best.epoch, "")
    assert found.images == dataset.splits["val"].images
    assert [(each.name, each.classes) for each in found.attributes] == [
        (each.name, each.classes) for each in dataset.attributes
    ]
    for head, each in enumerate(found.attributes):
        assert each.labels is not None
        np.testing.assert_array_equal(each.labels, dataset.labels("val")[:, head])
        assert each.probabilities.dtype == np.float32
        accuracy = float((each.predicted == each.labels).mean())
        assert accuracy == pytest.approx(best.metrics[f"val_accuracy/{each.name}"], abs=1e-12)


def test_the_table_names_classes(folder: Path, trained: tuple[Run, Dataset]) -> None:
    write_labels(folder, trained[1])
    found = fashion.open_run(folder).predictions(trial=0)
    table = found.to_table()
    first = found.attributes[0]
    assert first.labels is not None
    assert table.column_names[:4] == ["image", first.name, f"{first.name}/predicted", f"{first.name}/probabilities"]
    assert table.num_rows == len(found) == 32
    assert table.column(first.name).to_pylist() == [first.classes[label] for label in first.labels]
    probabilities = np.array(table.column(f"{first.name}/probabilities").to_pylist(), np.float32)
    np.testing.assert_array_equal(probabilities, first.probabilities)
    predicted = table.column(f"{first.name}/predicted").to_pylist()
    assert predicted == [first.classes[index] for index in probabilities.argmax(axis=1)]
    metadata = table.schema.field(f"{first.name}/probabilities").metadata
    assert json.loads(metadata[b"classes"]) == list(first.classes)


def test_an_older_run_takes_the_labels_from_its_data_set(folder: Path, trained: tuple[Run, Dataset]) -> None:
    found = fashion.open_run(folder).predictions()
    assert found.labels_missing == ""
    labels = found.attributes[0].labels
    assert labels is not None
    np.testing.assert_array_equal(labels, trained[1].labels("val")[:, 0])


def test_labels_that_are_not_to_be_had_are_null_and_the_reason_is_told(folder: Path) -> None:
    change_manifest(folder, data_fingerprint="0123456789abcdef")
    found = fashion.open_run(folder).predictions()
    assert "val-labels.parquet, and the data set at" in found.labels_missing
    assert "has changed since the run" in found.labels_missing
    assert found.attributes[0].labels is None
    assert found.to_table().column(found.attributes[0].name).null_count == len(found)
    journal = folder / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    events[0]["config"]["data"]["root"] = "/nowhere"
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    change_manifest(folder, data_root="s3://bucket/data")
    missing = fashion.open_run(folder).predictions().labels_missing
    assert missing.endswith("its data set is not on this machine (/nowhere, s3://bucket/data)")


def test_damaged_files_are_refused_in_words(folder: Path, trained: tuple[Run, Dataset]) -> None:
    run, dataset = fashion.open_run(folder), trained[1]
    write_labels(folder, dataset, images=["x"] * 32)
    with pytest.raises(fashion.RunError, match="must list the 32 images of the predictions in their order"):
        run.predictions()
    write_labels(folder, dataset, change=9)
    with pytest.raises(fashion.RunError, match="must hold the index of a class in every row"):
        run.predictions()
    (folder / "val-labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(fashion.RunError, match="must be a Parquet file of the validation labels"):
        run.predictions()
    path = next((folder / "trials" / "0000").glob("val-*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(fashion.RunError, match="must be a Parquet file of class probabilities"):
        run.predictions()
    path.unlink()
    with pytest.raises(fashion.RunError, match="the validation predictions are missing"):
        run.predictions()


def test_files_of_a_run_in_a_bucket_are_fetched(
    s3: Server, machine: Path, folder: Path, trained: tuple[Run, Dataset]
) -> None:
    write_labels(folder, trained[1])
    change_manifest(folder, name="lr")
    s3.write("sweeps", "lr/manifest.json", (folder / "manifest.json").read_bytes())
    s3.write("sweeps", "lr/journal/000000000000000.jsonl", (folder / "journal.jsonl").read_bytes())
    s3.write("sweeps", "lr/val-labels.parquet", (folder / "val-labels.parquet").read_bytes())
    for path in (folder / "trials" / "0000").glob("val-*"):
        s3.write("sweeps", f"lr/trials/0000/{path.name}", path.read_bytes())
    here = fashion.open_run(folder).predictions().to_table()
    assert fashion.open_run("s3://sweeps/lr").predictions().to_table().equals(here)
