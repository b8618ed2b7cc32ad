"""`check` finds what `run` would be refused for, as quickly as before where no backbone need be built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.cli.main import main

TEXT = "data: {root: %s, resize: 32, crop: 32}\nmodel: {backbone: tiny, weights: none}\n"


def check(path: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = 0
    try:
        main(["check", str(path), *arguments])
    except SystemExit as error:
        code = int(str(error.code))
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_what_is_lacking_here_is_told_where_the_data_set_is(
    demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "s.yaml").write_text(TEXT % demo_root)
    much = ("--set", "resources.cpus_per_worker=1024", "--set", "model.weights=gone.pth")
    assert check(tmp_path / "s.yaml", capsys=capsys)[0] == 0
    code, text = check(tmp_path / "s.yaml", *much, capsys=capsys)
    assert code == 2
    assert "2 problems" in text
    assert "1024 CPU; this machine has" in text
    code, text = check(tmp_path / "s.yaml", *much, "--json", capsys=capsys)
    assert code == 2
    assert [each["place"] for each in json.loads(text)[0]["problems"]] == ["model.weights", "resources"]
    assert check(tmp_path / "s.yaml", *much, "--set", "data.root=elsewhere", capsys=capsys)[0] == 0


def test_a_check_loads_neither_torch_nor_rich_nor_numpy(demo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TEXT % demo_root)
    code = (
        "import sys; from fashion.cli.main import main; main(['check', 's.yaml']); "
        "sys.exit(' '.join({'torch', 'rich', 'numpy', 'ray'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
