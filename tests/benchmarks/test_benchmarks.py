"""The benchmarks measure what they say: the report's pipeline and loss are the report's, every contender gets its
turns, and what was measured is written whatever happens."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import gpu, original, rows, sweep, training
from benchmarks import input as input_
from benchmarks.__main__ import BENCHMARKS, main, shown
from benchmarks.case import Case, first_images
from benchmarks.plain import MEAN, STD, Photos
from benchmarks.rows import Row, in_turn, median_ratio
from fashion.data.batches import Normalization, eval_batches
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.model.loss import report_loss

ROOT = Path(__file__).parents[2]
TINY = Case("tiny", 40, 32, 8)
CPU = torch.device("cpu")


@pytest.mark.parametrize("given", ["x", "1.5", "-3", "20", " "])
def test_a_wrong_number_of_images_for_the_sweep_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_IMAGES", given)
    with pytest.raises(click.UsageError, match="SWEEP_IMAGES must be a number of images, at least 160"):
        sweep.images_asked(500)


def test_the_number_of_images_for_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_IMAGES", raising=False)
    assert (sweep.images_asked(500), sweep.images_asked(0)) == (500, 0)
    monkeypatch.setenv("SWEEP_IMAGES", "1500")
    assert sweep.images_asked(500) == 1500


def test_contenders_take_turns_in_alternating_order() -> None:
    order: list[str] = []

    def contender(name: str, figure: float) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return figure

        return run

    figures = in_turn({"a": contender("a", 2.0), "b": contender("b", 8.0)}, 2)
    assert order == ["a", "b", "b", "a"]
    assert figures == {"a": [2.0, 2.0], "b": [8.0, 8.0]}
    assert median_ratio(figures, "b", "a") == 4.0


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_each_benchmark_has_its_function(name: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
    (run,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    assert [argument.arg for argument in run.args.args] == ["full", "data"]


def test_the_report_s_model_and_criterion_are_the_report_s_loss() -> None:
    torch.manual_seed(0)
    counts = (3, 7, 2)
    model = original.ReportModel(torch.nn.Flatten(), 12, counts, dropout=0.0)
    images = torch.randn(5, 3, 2, 2)
    targets = torch.stack([torch.randint(count, (5,)) for count in counts], dim=1)
    outputs = model(images)
    assert outputs.shape == (5, 7, 3)
    logits = [head(images.flatten(1)) for head in model.heads]
    expected = report_loss(logits, targets, 7).mean()
    assert torch.nn.CrossEntropyLoss()(outputs, targets).item() == pytest.approx(expected.item(), abs=1e-6)
    assert original.predicted(model, [(images, targets)]) == outputs.argmax(1).tolist()


def test_the_report_s_step_trains() -> None:
    torch.manual_seed(0)
    model = original.ReportModel(torch.nn.Flatten(), 12, (3, 2), dropout=0.0)
    before = [parameter.detach().clone() for parameter in model.heads.parameters()]
    original.training_step(model, CPU)(torch.randn(4, 3, 2, 2), torch.zeros(4, 2, dtype=torch.int64))
    assert not any(torch.equal(old, new) for old, new in zip(before, model.heads.parameters(), strict=True))


def test_both_pipelines_deliver_the_same_pixels(demo_root: Path, tmp_path: Path) -> None:
    dataset = read_dataset(demo_root)
    photos = Photos(dataset.root, dataset.splits["val"], TINY.resize, train=False, crop=TINY.side)
    pack = Pack.open_or_build(dataset, "val", TINY.resize, cache_dir=tmp_path)
    (batch,) = eval_batches(pack, TINY.config().data, Normalization(MEAN, STD), len(pack))
    theirs = torch.stack([photos[index][0] for index in range(len(photos))])
    np.testing.assert_array_equal(batch.images.contiguous().numpy(), theirs.numpy())


@pytest.mark.parametrize(("images", "block"), [(32, 1), (24, 2)], ids=["one epoch", "an epoch a round"])
def test_every_contender_gets_every_round(demo_root: Path, tmp_path: Path, images: int, block: int) -> None:
    data = first_images(read_dataset(demo_root), TINY, images, 8, tmp_path / "cache")
    found = training.measure(TINY, data, tmp_path / "trial", CPU, 3, block)
    assert {name: len(values) for name, values in found.figures.items()} == dict.fromkeys(found.figures, 3)
    assert all(value > 0 for values in found.figures.values() for value in values)
    rows = training.rows_of("step", TINY, found, over_report=0.0, of_limit=1e9)
    assert [row.met for row in rows] == [None, True, False]
    assert [row.ratio is None for row in rows] == [True, False, False]
    assert found.ours in rows[1].contender
    assert found.limit in rows[2].contender


def test_waiting_and_augmentation_make_up_delivery(demo_root: Path, tmp_path: Path) -> None:
    rows = input_.waiting(TINY, read_dataset(demo_root), tmp_path, 8)
    delivery, waited, augmented = (row.value for row in rows)
    assert delivery == pytest.approx(waited + augmented)
    assert 0 < waited < delivery < 100


def run_main(monkeypatch: pytest.MonkeyPatch, place: Path, error: BaseException | None) -> Result:
    """The command with two benchmarks that measure nothing, of which the second may raise."""

    def fake(failing: BaseException | None) -> types.ModuleType:
        def run(full: bool, data: Path) -> list[Row]:
            if failing is not None:
                raise failing
            return [Row("trial", "ours", 1234.5, "s", 0.5, "ratio <= 1", True)]

        module = types.ModuleType("fake")
        module.run = run  # type: ignore[attr-defined]
        return module

    monkeypatch.setitem(sys.modules, "benchmarks.trial", fake(None))
    monkeypatch.setitem(sys.modules, "benchmarks.start", fake(error))
    return CliRunner().invoke(main, ["--only", "start", "--only", "trial", "--json", str(place)])


def test_a_figure_that_took_long_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "SILENT_SECONDS", 0.05)

    def slow() -> float:
        time.sleep(0.1)
        return 12.3456

    in_turn({"quick": lambda: 1.0, "slow": slow}, 2)
    told = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in told] == ["round 1 of 2, slow: 12.35", "round 2 of 2, slow: 12.35"]


def test_rows_are_written_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "new" / "bench.json"
    result = run_main(monkeypatch, place, None)
    assert result.exit_code == 0, result.output
    row = {"id": "trial", "contender": "ours", "value": 1234.5, "unit": "s", "ratio": 0.5, "target": "ratio <= 1"}
    assert json.loads(place.read_text()) == [{**row, "met": True}] * 2
    assert "1,234" in result.output
    assert "[2/2] start\n" in result.output
    assert "start took 0 s" in result.output


def test_what_was_measured_is_written_when_a_benchmark_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run_main(monkeypatch, tmp_path / "bench.json", ValueError("a bug"))
    assert isinstance(result.exception, ValueError)
    assert len(json.loads((tmp_path / "bench.json").read_text())) == 1


def test_what_was_measured_is_written_when_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run_main(monkeypatch, tmp_path / "bench.json", KeyboardInterrupt())
    assert result.exit_code == 130
    assert len(json.loads((tmp_path / "bench.json").read_text())) == 1


def test_missing_data_is_said_before_anything_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--only", "input", "--data", str(tmp_path), "--json", str(tmp_path / "b.json")])
    assert result.exit_code == 2
    assert "input" in result.output
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (6200.4, "6,200")])
def test_figures_are_shown_with_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_gpu_benchmark_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_gpu_benchmark_needs_neither_ray_nor_timm() -> None:
    code = "import sys, benchmarks.gpu; print(sorted({'ray', 'timm', 'rich', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_timed_trials_take_what_the_driver_hands_to_a_trial(tmp_path: Path) -> None:
    """The driver passes `shared` by name: a benchmark that calls it otherwise would fail in each trial's process."""
    from benchmarks.fleet_driver import reporting_trial
    from benchmarks.noted import noting_trial
    from fashion.engine.tune_trial import run_trial

    named = list(inspect.signature(run_trial).parameters)
    assert list(inspect.signature(noting_trial(tmp_path)).parameters) == named
    assert list(inspect.signature(reporting_trial(tmp_path, 0.0)).parameters) == named
