"""Names of classes, attributes, fields and runs are printed as they are, whatever rich would read in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fashion.cli.main import main
from fashion.display.live import Display
from fashion.display.progress import Bars
from fashion.record.run import Run
from fashion.spec.sweep_spec import load_spec
from tests.support.recorded import COUNTS, SPEC, record

ODD = [
    {"name": "[red]sleeve[/]", "classes": ["$x_1$", "[bold]b[/bold]", ":heart:"]},
    {"name": "<fit>", "classes": ["=SUM(A1)", "a/b"]},
]
WEIGHTS = "w/[bold]:heart:[/x].pth"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    model = {"backbone": "tiny", "weights": {"choice": ["none", WEIGHTS]}}
    manifest: dict[str, Any] = {"data_fingerprint": "f", "attributes": ODD, "label_counts": COUNTS}
    run = Run.create(tmp_path / "[i]runs", "lr", {"spec": {**SPEC, "model": model}, **manifest})
    record(run, 0, [0.9, 0.4])
    config = {**run.trials[0].config, "model": {"backbone": "tiny", "weights": WEIGHTS}}
    run.record_trial(1, config)
    run.record_attempt(1)
    run.close()
    return run


def test_show_prints_values_as_they_are(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", str(run.path)])
    text = capsys.readouterr().out
    assert WEIGHTS[-19:] in text  # a long value loses its beginning
    assert "[i]runs" in text
    main(["show", str(run.path), "--trial", "1"])
    assert WEIGHTS in capsys.readouterr().out


def test_best_prints_classes_as_they_are(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    main(["best", str(run.path)])
    text = capsys.readouterr().out
    for attribute in ODD:
        assert str(attribute["name"]) in text


def test_the_live_picture_prints_values_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        f"data: {{root: d}}\nmodel: {{backbone: tiny, weights: {{choice: [none, '{WEIGHTS}']}}}}"
    )
    out = io.StringIO()
    with Display(run, load_spec(tmp_path / "s.yaml"), stream=out, mode="live") as display:
        display.trial_started(1)
        assert display._live is not None
        display._live.refresh()
        console = Console(file=io.StringIO(), width=240, markup=False, emoji=False)
        console.print(display._live.renderable)
    assert ":heart:" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_bars_label_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fashion.display.progress.FIRST_SECONDS", 0.0)
    with Bars() as bars:
        bars("[red]features of :heart:[/]", 0, 2)
        bars("[red]features of :heart:[/]", 1, 2)
    assert "[red]features of :heart:[/]: " in capsys.readouterr().err
