"""docs/extending.md does not rot: its steps are carried out in a copy of the package, and what they add is used."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
STEP = re.compile(
    r"^In (?:the new file )?`(fashion/[\w/]+\.py)`(.*?)(?:\.\n|:\n\n```(?:python|text)\n(.*?)```\n)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """One step of a change: the file, what to do there in the page's words, and the code."""

    file: str
    action: str
    code: str

    def carry_out(self, copy: Path) -> None:
        """Raises AssertionError where the page and the package disagree."""
        path, action = copy / self.file, self.action
        if not action:
            assert not path.exists(), self.file
            path.write_text(self.code)
            return
        text = path.read_text()
        if found := re.fullmatch(r", `(.+)` becomes\s`(.+)`", action, re.DOTALL):
            assert text.count(found[1]) == 1, action
            path.write_text(text.replace(found[1], found[2]))
            return
        lines = text.splitlines(keepends=True)
        body = ast.parse(text).body
        if found := re.fullmatch(r", add the word `(\w+)` to `(\w+\.\w+)`", action):
            annotation = _field(body, found[2]).annotation
            assert isinstance(annotation, ast.Subscript)
            assert annotation.end_lineno is not None
            assert annotation.end_col_offset is not None
            row, column = annotation.end_lineno - 1, annotation.end_col_offset - 1
            lines[row] = f'{lines[row][:column]}, "{found[1]}"{lines[row][column:]}'
        elif found := re.fullmatch(r", add to `(\w+)`", action):
            end = _assignment(body, found[1]).end_lineno
            assert end is not None
            assert lines[end - 1].strip() in ("}", ")"), f"{found[1]} has one row a line"
            lines.insert(end - 1, self.code)
        elif found := re.fullmatch(r", before `(\w+)`", action):
            start = _assignment(body, found[1]).lineno - 1
            while lines[start - 1].startswith("#"):  # what explains the table stays with it
                start -= 1
            lines.insert(start, f"{self.code}\n\n")
        elif found := re.fullmatch(r", after `(\w+\.\w+)`", action):
            end = _field(body, found[1]).end_lineno
            assert end is not None
            lines.insert(end, self.code)
        elif action == ", among the imports":
            last = max(each.lineno for each in body if isinstance(each, ast.ImportFrom))
            lines.insert(last - 1, self.code)
        else:
            assert action == ", at the end", action
            lines.append(f"\n\n{self.code}")
        path.write_text("".join(lines))


def _assignment(body: list[ast.stmt], name: str) -> ast.Assign | ast.AnnAssign:
    for each in body:
        targets = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(each, ast.Assign | ast.AnnAssign)
            return each
    raise AssertionError(f"there is no {name}")


def _field(body: list[ast.stmt], dotted: str) -> ast.AnnAssign:
    owner, name = dotted.split(".")
    fields = next(each.body for each in body if isinstance(each, ast.ClassDef) and each.name == owner)
    found = _assignment(fields, name)
    assert isinstance(found, ast.AnnAssign)
    return found


SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
STEPS = {name: [Step(*found.groups(default="")) for found in STEP.finditer(part)] for name, part in SECTIONS.items()}

# What each change makes possible, as a program in the copy. It may use `draw(yaml)`: trial 0 of such a spec.
USE = {
    "A backbone": """
        import torch
        from fashion.model.backbones import row
        from fashion.model.network import make_backbone
        assert draw("model: {backbone: efficientnet_b4}").model.backbone == "efficientnet_b4"
        with torch.device("meta"):
            network, features = make_backbone(row("efficientnet_b4"))
        assert sum(each.numel() for each in network.parameters()) == row("efficientnet_b4").parameters
    """,
    "An objective": """
        import torch
        from fashion.model.loss import build_loss
        losses = [build_loss(draw(f"train: {{loss: {word}}}").train, (2,)) for word in ("poly1", "cross_entropy")]
        poly1, plain = (loss([torch.zeros(3, 2)], torch.zeros(3, 1, dtype=torch.int64)) for loss in losses)
        torch.testing.assert_close(poly1, plain + 0.5)
    """,
    "An optimiser": """
        import torch
        from fashion.model.optim import build_optimizer
        train = draw("train: {optimizer: rmsprop}").train
        made = build_optimizer(train, [], [torch.nn.Parameter(torch.zeros(2, 2))])
        assert type(made) is torch.optim.RMSprop
    """,
    "A scheduler": """
        from fashion.record.validate import SCHEDULER, check
        from fashion.schedulers.registry import make_scheduler
        settings = spec("scheduler: {name: patience, grace: 0.2}").scheduler
        check(settings.model_dump(mode="json"), SCHEDULER, SCHEDULER)
        made = make_scheduler(settings)
        told = [made.report(0, progress / 10, {"val_loss": loss}) for progress, loss in enumerate([3, 2, 2.5, 2.1], 1)]
        assert told == ["continue", "continue", "continue", "stop"], told
    """,
    "A search method": """
        import tempfile
        from fashion.record.run import Run
        from fashion.sweep.search import make_source
        made = spec("search: {method: multivariate}\\ntrain: {lr: {uniform: [0.1, 0.2]}}")
        manifest = {"spec": {}, "data_fingerprint": "f", "attributes": [], "label_counts": {}}
        source = make_source(made, Run.create(tempfile.mkdtemp(), "run", manifest))
        assert type(source).__name__ == "MultivariateSource"
        assert 0.1 <= source.config(0).train.lr <= 0.2
    """,
    "A metric that `show` has as a column": """
        import io
        import torch
        from rich.console import Console
        from fashion.display.rows import row
        from fashion.display.tables import View, picture
        from fashion.model.metrics import Meter
        from fashion.record.trial import EpochReport, Trial
        meter = Meter((2, 2))
        meter.update([torch.tensor([[1.0, 0.0]] * 4)] * 2, torch.tensor([[0, 0], [0, 1], [0, 1], [0, 1]]))
        metrics = {f"val_{name}": value for name, value in meter.compute(["a", "b"]).items()}
        assert spec("scheduler: {metric: val_worst_accuracy}").scheduler.mode == "max"
        trial = Trial(0, {}, [EpochReport(0, 1, 1, 1, metrics, 1.0, "")], {1: "continue"})
        out = Console(width=100, file=io.StringIO())
        out.print(picture(View("t", "p", 1, [row(trial)], []), 100, None))
        shown = out.file.getvalue()
        assert "worst" in shown and "25.00" in shown, shown
    """,
    "A field of a spec": """
        import torch
        from fashion.model.optim import build_optimizer
        assert draw("train: {}").train.nesterov is False
        made = build_optimizer(draw("train: {nesterov: true}").train, [], [torch.nn.Parameter(torch.zeros(2, 2))])
        assert made.defaults["nesterov"] is True
        from fashion.spec.docs import markdown
        assert "| `nesterov` | `false` | true or false | Nesterov" in markdown()
    """,
    "A data layout": """
        import tempfile
        from pathlib import Path
        from PIL import Image
        from fashion.data.layout import read_dataset
        root = Path(tempfile.mkdtemp())
        for number, name in enumerate(["train-coat-1.png", "train-dress-2.png", "val-dress-3.png"]):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (number, 0, 0)).save(root / name)
        dataset = read_dataset(root)
        assert dataset.attributes[0].classes == ("coat", "dress")
        assert dataset.labels("train").tolist() == [[0], [1]] and dataset.labels("val").tolist() == [[1]]
        assert len(dataset.fingerprint()) == 16
    """,
    "An object store": """
        from fashion.bucket.address import is_address, parse_address
        from fashion.bucket.obstore_client import CLIENTS
        assert parse_address("az://container/runs").scheme == "az" and is_address("az:/container")
        assert spec("storage: az://container/runs").storage == "az://container/runs"
        import os
        os.environ["AZURE_STORAGE_ACCOUNT_NAME"] = "account"
        made = CLIENTS["az"](parse_address("az://container/runs"), {}, {})
        assert type(made).__name__ == "AzureStore"
    """,
    "A command": """
        import json
        from click.testing import CliRunner
        from fashion.cli.main import cli
        assert "draw" in CliRunner().invoke(cli, ["--help"]).output
        write("train: {epochs: 7}")
        done = CliRunner().invoke(cli, ["draw", "spec.yaml", "3"], catch_exceptions=False)
        assert json.loads(done.output)["train"]["epochs"] == 7
    """,
}
COMMON = """
from pathlib import Path
from fashion.spec.sweep_spec import load_spec

def write(text):
    lines = ["data: {root: d}"] + ([] if "model:" in text else ["model: {backbone: tiny, weights: none}"])
    Path("spec.yaml").write_text("\\n".join([*lines, text]))

def spec(text):
    write(text)
    return load_spec("spec.yaml")

def draw(text):
    return spec(text).drawn(0)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with all changes of the page."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "fashion", folder / "fashion", ignore=shutil.ignore_patterns("__pycache__"))
    for steps in STEPS.values():
        for step in steps:
            step.carry_out(folder)
    return folder


def test_the_page_has_ten_changes_of_one_to_three_files_each() -> None:
    assert STEPS.keys() == USE.keys()
    assert all(1 <= len({step.file for step in steps}) <= 3 for steps in STEPS.values())
    # No code of the page is passed over.
    assert sum(bool(step.code) for steps in STEPS.values() for step in steps) == PAGE.count("```") / 2


# One process carries out all of them, since each would import torch for itself.
ALL = """
import json, os, sys, tempfile, traceback
said = {}
for name, program in json.load(sys.stdin).items():
    os.chdir(tempfile.mkdtemp(dir=sys.argv[1]))
    try:
        exec(compile(program, name, "exec"), {"__name__": name})
        said[name] = ""
    except Exception:
        said[name] = traceback.format_exc()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each change's program; empty where nothing did."""
    folder = tmp_path_factory.mktemp("use")
    where = f"import fashion; assert fashion.__file__.startswith({json.dumps(str(copy))})\n"
    programs = {name: f"{where}{COMMON}{dedent(program)}" for name, program in USE.items()}
    done = subprocess.run(
        [sys.executable, "-c", ALL, str(folder)], input=json.dumps(programs), capture_output=True, text=True,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(copy)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.xdist_group("extending")
@pytest.mark.parametrize("change", USE)
def test_a_change_does_what_its_section_says(said: dict[str, str], change: str) -> None:
    assert not said[change], said[change]
