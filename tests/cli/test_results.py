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
    assert "val_loss 0.4000, val_accuracy 75.00 %: +25.00 points on the majority baseline (50.00 %)" in text
    assert "runner-up: trial 2, epoch 1: val_loss 0.5000 (+0.1000), val_accuracy 75.00 % (+0.00 points)" in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if "/10" in line}
    assert rows["sleeve"] == ["sleeve", "8/10", "80.00", "40.00", "+40.00", "long", "4,", "short", "3,", "none", "3"]
    assert rows["fit"][1:5] == ["7/10", "70.00", "60.00", "+10.00"]
    assert "* train.lr                 0.01" in text
    assert f"promoted to {storage / 'lr' / 'best'}" in text
    description = json.loads((storage / "lr" / "best" / "model.json").read_text())
    assert (description["trial"], description["epoch"]) == (0, 2)
    found = json.loads(typed(capsys, "best", "lr", "--storage", str(storage), "--json"))
    assert found["metrics"]["val_loss"] == 0.4
    assert found["attributes"][0]["gain"] == pytest.approx(0.4)
    assert found["runner_up"]["ahead_by"]["val_loss"] == pytest.approx(0.1)
    assert Path(found["promoted"]) == storage / "lr" / "best"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "lrr"], "Did you mean lr?"),
        (["show", "lr", "--trial", "9"], "holds no such trial; got 9. Recorded: 0 to 2"),
        (["best", "--storage", "nowhere"], "holds no runs"),
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
