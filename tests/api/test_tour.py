"""The notebook runs from its first cell to its last, and docs/python.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

import fashion
from fashion.api.model import PredictionModel
from tests.support.machines.shared_ray import SharedRay

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.ray
@pytest.mark.further
@pytest.mark.xdist_group("shared-ray-2")
def test_the_notebook_runs(tmp_path: Path, shared_ray: SharedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    for name, value in shared_ray.joining.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = {cell["id"]: cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"}
    assert "completed" in outputs["run"][-1]["data"]["text/plain"]
    shown = "".join(output["text"] for output in outputs["run"] if output["output_type"] == "stream")
    assert re.search(r"report +trial=\d+ epoch=3/3 val_loss=", shown), shown
    assert "\x1b" not in shown
    assert "train.epoch: unknown field. Did you mean train.epochs?" in outputs["mistakes"][0]["text"]
    assert not [each for cell in outputs.values() for each in cell if each["output_type"] == "error"]


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    for cell in code:
        compile(cell["source"], cell["id"], "exec")


def test_the_page_names_what_there_is() -> None:
    text = (DOCS / "python.md").read_text()
    functions = {name for name in fashion.__all__ if name.islower()}
    assert functions <= set(re.findall(r"\bfashion\.(\w+)\(", text))
    assert set(re.findall(r"\bfashion\.(\w+)\b", text)) - {"UserError"} <= functions
    methods = set(re.findall(r"\brun\.(\w+)\(", text))
    assert {"trials", "reports", "best", "at", "certainty", "predictions", "promote", "promote_ensemble"} == methods
    assert all(hasattr(fashion.RecordedRun, name) for name in methods)
    assert all(hasattr(PredictionModel, name) for name in re.findall(r"\bmodel\.(\w+)\b", text))
