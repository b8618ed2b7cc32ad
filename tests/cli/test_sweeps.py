"""The shipped sweeps are listed and copied, also without a checkout, and a built package carries them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.spec import shipped
from fashion.spec.shipped import CHECKOUT, shipped_sweeps
from fashion.spec.sweep_spec import load_spec
from tests.support.typed import told, tree, typed

ROOT = Path(__file__).parents[2]
Shell = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_shipped_sweep_says_what_it_answers_and_what_it_costs() -> None:
    assert [sweep.name for sweep in shipped_sweeps()] == sorted(path.stem for path in CHECKOUT.glob("*.yaml"))
    for sweep in shipped_sweeps():
        assert sweep.question.endswith("?"), sweep
        assert "\n" not in sweep.question
        assert len(sweep.cost) > 10, sweep


def test_the_list_names_each_with_its_question(capsys: Shell) -> None:
    text = typed(capsys, "sweeps")
    for sweep in shipped_sweeps():
        assert f"{sweep.name} " in text
        assert sweep.question.split()[0] in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_list_as_json(capsys: Shell) -> None:
    found = json.loads(typed(capsys, "sweeps", "--json"))
    assert {each["name"]: each["question"] for each in found}["quickstart"] == "Does everything work here?"
    assert all(Path(each["path"]).is_file() and each["cost"] for each in found)
    assert "--json goes with the list alone" in told(capsys, "sweeps", "--json", "copy", "lr")


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml"])
def test_a_copy_is_the_shipped_file_where_its_own_comment_names_it(name: str, tmp_path: Path, capsys: Shell) -> None:
    assert "sweeps/quickstart.yaml: copied" in typed(capsys, "sweeps", "copy", name)
    assert tree(tmp_path) == {"sweeps/quickstart.yaml": (CHECKOUT / "quickstart.yaml").read_bytes()}
    assert load_spec("sweeps/quickstart.yaml").name == "quickstart"


def test_a_copy_goes_to_another_file(tmp_path: Path, capsys: Shell) -> None:
    typed(capsys, "sweeps", "copy", "lr", "--to", "mine/my-lr.yaml")
    assert tree(tmp_path) == {"mine/my-lr.yaml": (CHECKOUT / "lr.yaml").read_bytes()}


def test_nothing_is_overwritten(tmp_path: Path, capsys: Shell) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "lr.yaml").write_text("mine")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    for arguments in (["lr"], ["lr", "--to", "link.yaml"], ["lr", "--to", "sweeps"], ["lr", "--to", "file/lr.yaml"]):
        text = told(capsys, "sweeps", "copy", *arguments)
        assert "is there already. Nothing is overwritten" in text
    assert tree(tmp_path) == before
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path, capsys: Shell) -> None:
    assert "got 'quickstrat'. Did you mean quickstart?" in told(capsys, "sweeps", "copy", "quickstrat")
    assert "There are: augment, " in told(capsys, "sweeps", "copy", "../secret")
    assert tree(tmp_path) == {}


def test_ls_names_a_first_command_that_works_here(tmp_path: Path, capsys: Shell) -> None:
    """Without a checkout the suggestion first copies the spec; beside one it runs what is there."""
    text = typed(capsys, "ls")
    assert text.strip() == (
        "No runs in runs. Start one: fashion-sweep sweeps copy quickstart && fashion-sweep run sweeps/quickstart.yaml"
    )
    typed(capsys, "sweeps", "copy", "quickstart")
    text = typed(capsys, "ls")
    assert text.strip() == "No runs in runs. Start one: fashion-sweep run sweeps/quickstart.yaml"


def test_an_installed_package_has_its_own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "only.yaml").write_text("# Is this it?\n# Cost: nothing.\nname: only\n")
    monkeypatch.setattr(shipped, "INSTALLED", tmp_path / "installed")
    (sweep,) = shipped_sweeps()
    assert (sweep.name, sweep.question, sweep.cost) == ("only", "Is this it?", "nothing.")


def test_a_build_carries_the_sweeps_beside_the_module_that_reads_them(tmp_path: Path) -> None:
    """The build step alone: a copy of the package built in a folder of its own, then read from there."""
    built = tmp_path / "lib"
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    names = {path.name for path in (built / "fashion" / "spec" / "sweeps").iterdir()}
    assert names == {path.name for path in CHECKOUT.glob("*.yaml")}
    code = "from fashion.spec.shipped import shipped_sweeps as s; print(*(each.path for each in s()), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(built)}, check=True, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert {Path(line).parent for line in done.stdout.split()} == {built / "fashion" / "spec" / "sweeps"}
    assert len(done.stdout.split()) == len(names)
