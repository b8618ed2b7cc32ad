"""What `import fashion` hands out: lazily, and without a name of its own folders."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from configparser import ConfigParser
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
        _ = fashion.opne_run  # type: ignore[attr-defined]


CALLER = """
    from pathlib import Path
    from typing import assert_type

    import fashion
    import numpy as np
    from numpy.typing import NDArray

    spec = fashion.load_spec("sweeps/quickstart.yaml", {"train.epochs": 3, "train.lr": {"uniform": [0.1, 0.2]}})
    assert_type(spec, fashion.SweepSpec)
    run = fashion.run(spec, fresh=True)
    assert_type(run, fashion.SweptRun)
    assert_type(run.outcome, fashion.SweepOutcome)
    opened = fashion.open_run("runs/quickstart")
    assert_type(opened, fashion.RecordedRun)
    best = opened.best()
    assert_type(best.trial, int)
    assert_type(best.metrics, dict[str, float])
    assert_type(opened.promote(), Path)
    certainty = opened.certainty()
    assert_type(certainty, fashion.Certainty)
    assert_type(certainty.intervals(3)["val_loss"], fashion.Interval)
    assert_type(certainty.trials, tuple[fashion.TrialCertainty, ...])
    assert_type(certainty.disagreements, tuple[fashion.Disagreement, ...])
    assert_type(certainty.disagreements[0].gains, fashion.Difference)
    found = opened.predictions(trial=3)
    assert_type(found, fashion.ValidationPredictions)
    assert_type(found.attributes[0].probabilities, NDArray[np.float32])
    assert_type(found.attributes[0].labels, NDArray[np.int64] | None)
    model = fashion.load_model(Path("runs/quickstart/best"), device="cpu")
    assert_type(model.predict(["a.jpg", np.zeros((4, 4, 3), np.uint8)]), list[dict[str, dict[str, float]]])
    assert_type(model.attributes, tuple[fashion.Attribute, ...])
    assert_type(model.config, fashion.TrialConfig)
    try:
        fashion.open_run(storage=Path("runs"))
    except fashion.UserError as error:
        assert_type(error.problems[0], fashion.Problem)
    fashion.run(spec, mode="noisy")  # type: ignore[arg-type]
    model.predict([3])  # type: ignore[list-item]
    fashion.opne_run()
"""


# What a caller's types don't speak of is not read: reading torch takes mypy minutes where it has no cache.
CALLERS_MYPY = """
[mypy]
strict = True
follow_imports = silent
[mypy-torch.*,torchvision.*,timm.*,ray.*,pandas.*,scipy.*,sklearn.*,statsmodels.*,matplotlib.*,pyarrow.*,boto3.*,rich.*]
follow_imports = skip
"""


def test_a_caller_is_type_checked(tmp_path: Path) -> None:
    """mypy --strict on a caller."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["fashion"].split() == ["py.typed"]
    (tmp_path / "caller.py").write_text(textwrap.dedent(CALLER))
    (tmp_path / "mypy.ini").write_text(CALLERS_MYPY)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "caller.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    # The one mistake that is not marked is found, and nothing else: an unneeded mark would be an error, too.
    assert 'has no attribute "opne_run"' in done.stdout, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith("Found 1 error"), done.stdout
