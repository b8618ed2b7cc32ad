"""What `import fashion` hands out: lazily, and without a name of its own folders."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import fashion

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fashion"


def loaded_by(code: str) -> set[str]:
    """Which of the slow packages a fresh interpreter has loaded after the code."""
    watched = "{'torch', 'torchvision', 'ray', 'pyarrow', 'pydantic', 'numpy', 'rich'}"
    script = f"import sys\n{code}\nprint(*({watched} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_slow() -> None:
    assert loaded_by("import fashion; dir(fashion); fashion.UserError") == set()


def test_opening_a_run_needs_neither_torch_nor_ray() -> None:
    assert not loaded_by("import fashion; fashion.open_run; fashion.RecordedRun") & {"torch", "ray", "pydantic"}
    assert not loaded_by("import fashion; fashion.load_spec; fashion.run; fashion.SweepSpec") & {"torch", "ray"}
    assert not loaded_by("import fashion; fashion.ValidationPredictions; import fashion.api.tables") & {"torch", "ray"}


@pytest.mark.parametrize("name", fashion.__all__)
def test_every_public_name_is_there(name: str) -> None:
    module = fashion._MODULES[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there")
    assert getattr(fashion, name) is not None
    assert name in dir(fashion)


def test_the_three_lists_of_public_names_agree() -> None:
    assert set(fashion.__all__) == set(fashion._MODULES)
    lines = (PACKAGE / "__init__.py").read_text().splitlines()
    typed = {line.split()[-1]: line.split()[1] for line in lines if line.startswith("    from fashion.")}
    assert typed == fashion._MODULES


def test_no_public_name_is_a_submodule() -> None:
    submodules = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not set(fashion.__all__) & submodules


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fashion' has no attribute 'opne_run'"):
        _ = fashion.opne_run
