"""`ls`, `show` and `best` on recorded runs, as typed; none of them may load torch, ray or pydantic."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fashion.cli.main import main
from fashion.record.run import Run
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record
from tests.support.typed import typed


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A run of four trials: completed, stopped, failed, not begun; the best epoch is not the last one."""
    folder = tmp_path / "runs"
    run = Run.create(
        folder, "lr", {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    )
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    record(run, 1, [1.5], "s")
    run.record_end(1, "stopped", "val_loss at epoch 1 of 4")
    record(run, 2, [0.5, math.nan])
    run.record_end(2, "failed", "epoch 2: val_loss is nan")
    run.close()
    return folder


def test_ls(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "ls", "--storage", str(storage))
    assert text.splitlines()[1].split()[:5] == ["lr", "unfinished", "3/4", "0.4000", "75.00"]
    entry = json.loads(typed(capsys, "ls", "--storage", str(storage), "--json"))[0]
    assert entry["counts"] == {"waiting": 1, "completed": 1, "stopped": 1, "failed": 1}
    assert entry["best"] == {"trial": 0, "epoch": 2, "val_loss": 0.4, "val_accuracy": 0.75}


def test_ls_says_how_to_begin_and_survives_a_damaged_run(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No runs in nowhere. Start one:" in typed(capsys, "ls", "--storage", "nowhere")
    assert json.loads(typed(capsys, "ls", "--storage", "nowhere", "--json")) == []
    broken = storage / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    (broken / "journal.jsonl").write_text("")
    main(["ls", "--storage", str(storage)])
    captured = capsys.readouterr()
    assert "broken  damaged" in captured.out
    assert "unfinished" in captured.out
    assert "not valid JSON" in captured.err


def test_show(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "show", "--storage", str(storage))
    assert "3/4 trials: 1 waiting, 1 completed, 1 stopped, 1 failed" in text
    assert "trial 0, epoch 2 of 4: val_loss 0.4000, val_accuracy 75.00 %" in text
    assert "trial 2 failed: epoch 2: val_loss is nan" in text
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("*0"))
    assert row == ["*0", "completed", "4/4", "0.6000", "0.4000", "2", "75.00", "0.01"]
    found = json.loads(typed(capsys, "show", "lr", "--storage", str(storage), "--json"))
    assert [trial["status"] for trial in found["recorded"]] == ["completed", "stopped", "failed"]
    assert found["rungs"][0]["entries"] == 3
    assert found["recorded"][0]["best"]["epoch"] == 2


def test_show_one_trial(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "show", str(storage / "lr"), "--trial", "2")
    assert "trial 2 of" in text
    assert "* train.lr                 0.03" in text
    assert [line.split()[1] for line in text.splitlines() if line.strip()[:2] in ("1/", "2/")] == ["0.5", "nan"]
    found = json.loads(typed(capsys, "show", "--storage", str(storage), "--trial", "2", "--json"))
    assert found["reports"][1]["metrics"]["val_loss"] == "nan"


def test_best_promotes_the_best_epoch_of_all(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "best", "--storage", str(storage))
    assert "trial 0, epoch 2 of 4 of" in text
    # Majority classes of train: long (4 of 10 in val) and tight (6 of 10): 50 %.
    assert "val_loss 0.4000, val_accuracy 75.00 % (majority baseline 50.00 %, +25.00 points)" in text
    assert "runner-up trial 2, epoch 1: val_loss 0.5000 (+0.1000), accuracy 75.00 % (+0.00)" in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if "/10" in line}
    assert rows["sleeve"] == ["sleeve", "8/10", "80.00", "40.00", "+40.00"]
    assert rows["fit"] == ["fit", "7/10", "70.00", "60.00", "+10.00"]
    assert max(len(line.rstrip()) for line in text.splitlines() if str(storage) not in line) <= 80
    assert "  train.lr                 0.01" in text
    assert "train.epochs" not in text, "it was not sampled"
    assert f"promoted to {storage / 'lr' / 'best'}" in text
    description = json.loads((storage / "lr" / "best" / "model.json").read_text())
    assert (description["trial"], description["epoch"]) == (0, 2)
    found = json.loads(typed(capsys, "best", "lr", "--storage", str(storage), "--json"))
    assert found["metrics"]["val_loss"] == 0.4
    assert found["attributes"][0]["gain"] == pytest.approx(0.4)
    assert found["runner_up"]["ahead_by"]["val_loss"] == pytest.approx(0.1)
    assert Path(found["promoted"]) == storage / "lr" / "best"
    # These recorded runs have no predictions.
    assert "how sure this is can't be told: trials 0, 1, 2 have no validation predictions" in text
    assert (found["interval"], found["tied"], found["corrected"]) == ({}, [], {})
    assert "no validation predictions" in found["untold"]


def test_best_says_everything_when_asked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "best", "--storage", str(storage), "--all")
    assert "  sleeve: long 4, short 3, none 3" in text
    assert "* train.lr                 0.01" in text
    assert "  train.epochs             4" in text


def test_another_trial_is_promoted_when_asked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "best", "--storage", str(storage), "--trial", "1")
    assert "trial 1, epoch 1 of 4 of" in text
    assert "the best is trial 0, epoch 2: val_loss 0.4000 (-1.1000), accuracy 75.00 % (+0.00)" in text
    model = storage / "lr" / "best" / "model.json"
    assert (json.loads(model.read_text())["trial"], json.loads(model.read_text())["epoch"]) == (1, 1)
    # These recorded runs keep the weights of every epoch.
    found = json.loads(typed(capsys, "best", "--storage", str(storage), "--trial", "0", "--epoch", "3", "--json"))
    assert (found["trial"], found["epoch"], found["runner_up"]) == (0, 3, None)
    assert found["best"] == {"trial": 0, "epoch": 2, "val_loss": 0.4}
    assert json.loads(model.read_text())["epoch"] == 3
    typed(capsys, "best", "--storage", str(storage))
    assert json.loads(model.read_text())["epoch"] == 2, "without --trial the best is promoted again"


def test_an_epoch_whose_weights_are_gone_is_refused(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in (1, 4):
        (storage / "lr" / "trials" / "0000" / f"best-{epoch:04d}.safetensors").unlink()
    with pytest.raises(SystemExit) as caught:
        main(["best", "--storage", str(storage), "--trial", "0", "--epoch", "4"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "trial 0: keeps no weights of epoch 4" in message
    assert "It keeps those of epochs 2, 3; its lowest val_loss is at epoch 2" in message
    assert not (storage / "lr" / "best").exists()


def test_a_reused_trial_is_marked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(storage / "lr")
    record(run, 3, [0.8, 0.7, 0.6, 0.55])
    run.record_taken(3, "older", 7)
    run.record_end(3, "completed", "taken from trial 7 of runs/older")
    run.close()
    text = typed(capsys, "show", "--storage", str(storage))
    assert "2 completed, 1 stopped, 1 failed (1 reused)" in text
    assert next(line.split() for line in text.splitlines() if line.strip().startswith("3 "))[1] == "reused"
    assert "reused: trained as trial 7 of older" in typed(capsys, "show", "--storage", str(storage), "--trial", "3")
    found = json.loads(typed(capsys, "show", "--storage", str(storage), "--json"))
    assert [trial["origin"] for trial in found["recorded"]] == [None, None, None, {"run": "older", "trial": 7}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "lrr"], "Did you mean lr?"),
        (["show", "lr", "--trial", "9"], "holds no such trial; got 9. Recorded: 0 to 2"),
        (["best", "--storage", "nowhere"], "holds no runs"),
        (["best", "lr", "--trial", "9"], "holds no such trial; got 9. Recorded: 0 to 2"),
        (["best", "lr", "--trial", "2", "--epoch", "2"], "must have reported a finite val_loss at epoch 2"),
        (["best", "lr", "--epoch", "2"], "--epoch goes with --trial."),
    ],
)
def test_mistakes_exit_with_2_and_say_what_to_do(
    storage: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([arguments[0], "--storage", str(storage), *arguments[1:]])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_nothing_to_promote_and_a_missing_checkpoint(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (storage / "lr" / "trials" / "0000" / "best-0002.safetensors").unlink()
    with pytest.raises(SystemExit) as caught:
        main(["best", "--storage", str(storage)])
    assert caught.value.code == 2
    assert "the checkpoint is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ls"], ["show"], ["show", "--trial", "0"], ["best"]])
def test_reading_loads_neither_torch_nor_ray_nor_pydantic(storage: Path, command: list[str]) -> None:
    code = (
        "import sys; from fashion.cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'ray', 'pydantic', 'tensorboardX'} & set(sys.modules)), file=sys.stderr)"
    )
    arguments: list[Any] = [sys.executable, "-c", code, *command, "--storage", str(storage)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "\x1b" not in done.stdout
