"""Nobody is let in: no shell, no secrets in what is written, and a cluster that strangers cannot join."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "fashion").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
# Each hands a string to a shell, or evaluates one.
FORBIDDEN = {
    "os.system", "os.popen", "os.posix_spawn", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.loads",
    "shelve.open", "joblib.load",
}  # fmt: skip
STARTERS = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def offences(source: str) -> Iterator[str]:
    """The calls in `source` that hand a string to a shell or execute data, by line."""
    tree = ast.parse(source)
    # `from subprocess import run as go` -> {"go": "subprocess.run"}
    names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    } | {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        head, _, rest = dotted(node.func).partition(".")
        name = names.get(head, head) + (f".{rest}" if rest else "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        shell = keywords.get("shell")
        if name in FORBIDDEN:
            yield f"line {node.lineno}: {name}"
        elif shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            yield f"line {node.lineno}: shell={ast.unparse(shell)}"
        elif name in STARTERS and not isinstance(node.args[0] if node.args else keywords.get("args"), ast.List):
            yield f"line {node.lineno}: {name} without a list of words"
        elif name == "torch.load":
            safe = keywords.get("weights_only")
            if not (isinstance(safe, ast.Constant) and safe.value is True):
                yield f"line {node.lineno}: torch.load that unpickles"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_shell_and_nothing_executed(path: Path) -> None:
    assert list(offences(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.system('rm ' + name)",
        "import subprocess\nsubprocess.run(f'rm {name}', shell=True)",
        "import subprocess\nsubprocess.run(['rm', name], shell=shell)",
        "import subprocess\nsubprocess.Popen('rm ' + name)",
        "from subprocess import run as go\ngo('ls')",
        "import subprocess as s\ns.getoutput('ls')",
        "from os import popen\npopen('ls')",
        "import pickle\npickle.load(file)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "eval(text)",
    ],
)
def test_an_offence_is_found(source: str) -> None:
    assert len(list(offences(source))) == 1
