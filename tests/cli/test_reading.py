"""`show` with its options, `compare`, `logs` and what `run` says at its end, on recorded runs, as typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.page_run import draw_run
from fashion.api.recorded_run import RecordedRun
from fashion.cli.run import _tell_findings
from fashion.display.certainty import certainty_lines
from fashion.record.run import Run
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record
from tests.support.skilled_runs import CLASSES, labels_of, predicted_run, write_labels
from tests.support.typed import told, typed

Shell = pytest.CaptureFixture[str]
SKILLS = [0.5, 2.0, 1.9, 0.2]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs `base` and `other`: the same data; `other` has lower skills. Terminals have 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for name, skills, noise in (("base", SKILLS, 100), ("other", [0.4, 0.3], 200)):
        spec = {**SPEC, "train": {"epochs": 1, "lr": {"loguniform": [0.001, 1 if name == "base" else 10]}}}
        predicted_run(tmp_path, name, skills, noise=noise, spec=spec).close()
    return tmp_path


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    """A run of a completed, a stopped and a failed trial with its traceback."""
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(tmp_path / "runs", "asha", manifest)
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    record(run, 1, [1.5], "s")
    run.record_slot(1, 1, "node-b")
    run.record_end(1, "stopped", "val_loss at epoch 1 of 4")
    record(run, 2, [0.8])
    run.record_note(2, "its worker died, started again")
    (run.trial_dir(2) / "error.txt").write_text("Traceback:\n  \x1b[2Jvery\nValueError: bad\n")
    run.record_end(2, "failed", "ValueError: bad")
    run.close()
    return run


def test_where_and_sort(storage: Path, capsys: Shell) -> None:
    text = typed(capsys, "show", "base", "--storage", str(storage), "--where", "lr>0.01", "--sort", "val_exact_match")
    lines = text.splitlines()
    assert lines[1] == "3 of 4 recorded trials match lr>0.01"
    assert "val_exact_match" in lines[3]
    assert [line.split()[0] for line in lines[4:]] == ["*1", "2", "3"]
    found = json.loads(typed(capsys, "show", "base", "--storage", str(storage), "--sort", "-lr", "--json"))
    assert [each["trial"] for each in found["recorded"]] == [3, 2, 1, 0]
    chosen = typed(capsys, "show", "base", "--storage", str(storage), "--where", "trial in (3,0)", "--json")
    assert [each["trial"] for each in json.loads(chosen)["recorded"]] == [0, 3], "the better one first"


def test_where_that_nothing_matches_tells_what_there_is(storage: Path, capsys: Shell) -> None:
    text = typed(capsys, "show", "base", "--storage", str(storage), "--where", "backbone=resnet and status=complete")
    assert "0 of 4 recorded trials" in text
    assert "model.backbone: tiny" in text
    assert "status: completed" in text


def test_csv(storage: Path, capsys: Shell) -> None:
    text = typed(capsys, "show", "base", "--storage", str(storage), "--csv", "--sort", "trial")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert list(rows[0])[:5] == ["trial", "status", "epochs_done", "epochs", "best_epoch"]
    assert float(rows[1]["val_accuracy"]) == Run.open(storage / "base").trials[1].reports[0].metrics["val_accuracy"]
    assert rows[2]["train.lr"] == "0.03"
    assert rows[2]["reason"] == ""
    assert "data.root" not in rows[0], "it was not sampled"
    assert "node-a" in {row["node"] for row in rows}


def test_mistakes(storage: Path, capsys: Shell) -> None:
    def show(*options: str) -> str:
        return told(capsys, "show", "base", "--storage", str(storage), *options)

    assert "--where: there is no such column; got 'val_los'. Did you mean val_loss" in show("--where", "val_los<1")
    assert "--sort: there is no such column; got 'accuracy'" in show("--sort", "accuracy")
    assert "--where is for a run's trials" in show("--where", "lr<1", "--trial", "0")
    assert "--csv and --json exclude" in show("--csv", "--json")
    assert "--attribute: there is no such attribute; got 'sleeves'. Did you mean sleeve?" in show(
        "--attribute", "sleeves"
    )
    assert "There are: sleeve, fit" in show("--attribute", "xyz")


def test_one_trial_tells_its_stop_and_draws_its_curve(stopped: Run, capsys: Shell) -> None:
    text = typed(capsys, "show", str(stopped.path), "--trial", "1")
    assert "at 25 % its val_loss was 1.5000, and at most 0.9000 was needed to pass" in text
    assert "attempt 1 in slot 1 on node-b" in text
    assert "1.50 s an epoch (median)" in text
    assert "× needed to pass" in text
    lines = text.splitlines()
    assert lines.index("configuration (* sampled)") < lines.index("the rest of the configuration")
    whole = typed(capsys, "show", str(stopped.path), "--trial", "0")
    drawn = [line for line in whole.splitlines() if " |" in line]
    assert drawn[0].startswith("     0.9 |•")
    assert "◆" in drawn[-1], "the best epoch is the lowest point"


def test_everything_fits_80_columns(
    stopped: Run, storage: Path, capsys: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion.display.pages.PIPED_WIDTH", 80)
    texts = [
        typed(capsys, "show", str(stopped.path), "--trial", "0"),
        typed(capsys, "show", str(storage / "base"), "--attribute", "sleeve"),
        typed(capsys, "show", str(storage / "base"), "--where", "val_loss<9", "--sort", "val_balanced_accuracy"),
        typed(capsys, "compare", "base", "other", "--storage", str(storage)),
    ]
    for line in "\n".join(texts).splitlines():
        assert len(line) <= 80 or str(storage) in line, line


def test_an_attribute(storage: Path, capsys: Shell) -> None:
    text = typed(capsys, "show", "base", "--storage", str(storage), "--attribute", "sleeve", "--trial", "3")
    found = json.loads(
        typed(capsys, "show", "base", "--storage", str(storage), "--attribute", "sleeve", "--trial", "3", "--json")
    )
    labels = labels_of()[:, 0]
    assert [sum(row) for row in found["confusion"]] == np.bincount(labels).tolist()
    assert found["accuracy"] == pytest.approx(
        Run.open(storage / "base").trials[3].reports[0].metrics["val_accuracy/sleeve"]
    )
    assert found["majority"]["accuracy"] == np.bincount(labels).max() / len(labels)
    assert f"accuracy {100 * found['accuracy']:.2f} %" in text
    for row, name in zip(found["confusion"], CLASSES[0], strict=True):
        assert any(line.split() == [name, *map(str, row)] for line in text.splitlines()), name
    assert "at temperature" in text


def test_names_are_not_taken_for_markup(storage: Path, capsys: Shell) -> None:
    manifest = json.loads((storage / "base" / "manifest.json").read_text())
    names = ["[bold red]x[/]", "<b>y</b>", "a name that is much longer than any column of a table"]
    manifest["attributes"][0]["classes"] = names
    (storage / "base" / "manifest.json").write_text(json.dumps(manifest))
    text = typed(capsys, "show", "base", "--storage", str(storage), "--attribute", "sleeve")
    assert "[bold red]x[/]" in text
    assert "<b>y</b>" in text
    assert "\x1b" not in text
    assert "a name that is mu~" in text


def test_compare_pairs_the_winners(storage: Path, capsys: Shell) -> None:
    text = typed(capsys, "compare", "base", "other", "--storage", str(storage))
    assert "base is better than other: its val_loss is" in text
    assert "each is the best of its run's trials (4, 2)" in text
    row = next(line.split(maxsplit=1) for line in text.splitlines() if line.startswith("train.lr "))
    assert " ".join(row[1].split()) == "loguniform: [0.001, 1] loguniform: [0.001, 10]"
    found = json.loads(typed(capsys, "compare", "base", "other", "--storage", str(storage), "--json"))
    loss = found["paired"][0]["differences"][0]
    recorded = [each["metrics"]["val_loss"] for each in found["sides"]]
    assert (loss["first"], loss["second"]) == pytest.approx(recorded, abs=1e-6)
    assert 0 < loss["low"] < loss["difference"] < loss["high"]
    assert found["sides"][0]["cost"]["epochs"] == 4
    assert {each["field"] for each in found["spec"]} == {"train.lr", "search.trials"}


def test_a_field_that_the_specs_fix_is_told_once(storage: Path, capsys: Shell) -> None:
    before = json.loads(typed(capsys, "compare", "base", "other", "--storage", str(storage), "--json"))
    (rates,) = (each for each in before["config"] if each["field"] == "train.lr")
    for name, rate in zip(("base", "other"), rates["values"], strict=True):
        place = storage / name / "manifest.json"
        manifest = json.loads(place.read_text())
        manifest["spec"]["train"]["lr"] = rate
        place.write_text(json.dumps(manifest))
    text = typed(capsys, "compare", "base", "other", "--storage", str(storage))
    assert sum(line.startswith("train.lr ") for line in text.splitlines()) == 1
    assert "the compared trials' configurations do not differ otherwise" in text
    after = json.loads(typed(capsys, "compare", "base", "other", "--storage", str(storage), "--json"))
    assert rates in after["spec"]
    assert rates in after["config"]


def test_compare_trials_of_one_run(storage: Path, capsys: Shell) -> None:
    text = typed(capsys, "compare", "base", "--storage", str(storage), "--trials", "1,2")
    assert "trial 2 and trial 1 can't be told apart by val_loss" in text
    assert "the specs" not in text
    assert "better" not in text
    assert "must be the numbers of two or more trials" in told(
        capsys, "compare", "base", "--storage", str(storage), "--trials", "1"
    )
    assert "Name two runs or more" in told(capsys, "compare", "base", "--storage", str(storage))


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("labels", "the labels of the same validation images are not the same"),
        ("images", "they were validated on other images (400 and 400 validation images, 399 of them in both)"),
        ("classes", "they predict other attributes or classes"),
        ("predictions", "the predictions of other can't be read"),
        ("unknown", "the validation labels of other are not known"),
    ],
)
def test_compare_says_why_it_does_not_pair(storage: Path, capsys: Shell, case: str, why: str) -> None:
    other = Run.open(storage / "other")
    if case == "labels":
        write_labels(other, labels_of(seed=9))
    elif case == "images":
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in (*other.path.glob("trials/*/val-*.parquet"), other.val_labels_path):
            table = pq.read_table(path)
            names = pa.array(["img/else.jpg", *table.column("image").to_pylist()[1:]])
            pq.write_table(table.set_column(0, "image", names), path)
    elif case == "classes":
        manifest = {**other.manifest, "attributes": [{**ATTRIBUTES[0], "classes": ["a", "b", "c"]}, ATTRIBUTES[1]]}
        (other.path / "manifest.json").write_text(json.dumps(manifest))
    elif case == "predictions":
        for path in other.path.glob("trials/*/val-*.parquet"):
            path.unlink()
    else:
        other.val_labels_path.unlink()
    text = " ".join(typed(capsys, "compare", "base", "other", "--storage", str(storage)).split())
    assert f"other and base can't be compared image by image: {why}" in text
    assert "better" not in text
    assert "training time" in text


def test_logs(stopped: Run, capsys: Shell) -> None:
    text = typed(capsys, "logs", str(stopped.path))
    assert "trial 1: stopped: val_loss at epoch 1 of 4" in text
    assert "trial 2: its worker died, started again" in text
    assert f"    {stopped.path}/trials/0002/error.txt:\n    Traceback:\n      \\x1b[2Jvery\n" in text
    assert "epoch 1 of 4" not in text.replace("val_loss at epoch 1 of 4", "")
    one = typed(capsys, "logs", str(stopped.path), "1", "--follow")
    assert [line[21:].partition(",")[0] for line in one.splitlines()] == [
        "recorded",
        "attempt 1 begins",
        "epoch 1 of 4: val_loss 1.5000",
        "in slot 1 on node-b",
        "stopped: val_loss at epoch 1 of 4",
    ]
    events = [json.loads(line) for line in typed(capsys, "logs", str(stopped.path), "2", "--json").splitlines()]
    assert [each["event"] for each in events] == ["trial", "attempt", "report", "note", "end", "error"]
    assert events[-1]["text"].endswith("ValueError: bad\n")
    assert "holds no such trial" in told(capsys, "logs", str(stopped.path), "9")


def test_show_attribute_scores_each_class_of_a_multi_label_attribute(tmp_path: Path, capsys: Shell) -> None:
    classes = {"sleeve": ("long", "short"), "extras": ("belt", "hood", "scarf")}
    path = draw_run(tmp_path, "several", 2, 2, 80, predicted=2, classes=classes, several=("extras",), missing=0.1).path
    said = typed(capsys, "show", str(path), "--attribute", "extras")
    assert "average precision" in said
    found = json.loads(typed(capsys, "show", str(path), "--attribute", "extras", "--json"))["classes"]
    head = RecordedRun(Run.open(path)).predictions().attributes[1]
    assert [each["name"] for each in found] == list(classes["extras"])
    assert [each["average_precision"]["value"] for each in found] == pytest.approx(head.average_precision())
    assert [each["f1"]["value"] for each in found] == pytest.approx(head.f1())
    assert all(each["f1"]["low"] < each["f1"]["value"] < each["f1"]["high"] for each in found)
    assert all(f"{each['f1']['value']:.3f} ({each['f1']['low']:.3f} to " in said for each in found)


def test_what_run_says_at_its_end(storage: Path, capsys: Shell) -> None:
    run = Run.open(storage / "base")
    _tell_findings(RecordedRun(run))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Winner: trial 1, epoch 1 of 1: val_loss ")
    opened = RecordedRun(run)
    words = certainty_lines(run, opened.best(), opened.certainty())
    assert said[1:4] == [f"  {line}" for line in words], "as `best` has it"
    assert said[2].startswith("  can't be told from trial 2")
    assert said[4:] == [
        "What mattered most: 4 trials are too few to tell",
        "Cost: 4 trials, 4 epochs, 8 s of training, 200 images/s",
        f"Results: {run.location}",
        f"Next: fashion-sweep best {run.location} --predict",
        f"      fashion-sweep report {run.location}",
    ]
    for path in (storage / "base").glob("trials/*/val-*"):
        path.unlink()
    _tell_findings(RecordedRun(Run.open(storage / "base")))
    assert "how sure this is can't be told: trials 0, 1, 2, 3 have no validation predictions" in capsys.readouterr().out


def test_the_next_command_names_a_run_where_commands_look(
    storage: Path, capsys: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (storage / "runs").mkdir()
    (storage / "base").rename(storage / "runs" / "base")
    monkeypatch.chdir(storage)
    _tell_findings(RecordedRun(Run.open(Path("runs/base"))))
    assert capsys.readouterr().out.endswith("      fashion-sweep report base\n")
