"""`fashion-sweep cache`: list, rm, trim."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from fashion.cli.main import main
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack


@pytest.fixture
def folder(demo_root: Path, machine: Path) -> Path:
    for split in ("train", "val"):
        Pack.open_or_build(read_dataset(demo_root), split, 20)
    gc.collect()
    return machine


def test_a_list_for_people_and_for_scripts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["cache"])
    shown = capsys.readouterr()
    head, *rows = shown.out.splitlines()
    assert head.split("  ")[0] == "name"
    assert [row.split("  ")[0][:7] for row in rows] == ["images-"] * 2
    assert all("at 20 px (stretch, bicubic, apply, declared)" in row for row in rows)
    assert shown.err == f"{folder}: 0.00 GB\n"
    monkeypatch.setenv("FASHION_CACHE_GB", "7")
    main(["cache", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["folder"], told["limit_gb"]) == (str(folder), 7.0)
    assert [entry["name"] for entry in told["entries"]] == [row.split("  ")[0] for row in rows]
    assert not any(entry["in_use"] for entry in told["entries"])


def test_rm_takes_a_name_or_a_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["cache", "--json"])
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    main(["cache", "rm", names[0]])
    assert capsys.readouterr().out.startswith(f"{names[0]}: removed (train at 20 px")
    assert len(list(folder.glob("*.arrow"))) == 1
    with pytest.raises(SystemExit) as end:
        main(["cache", "rm", names[0]])
    assert end.value.code == 2
    assert f"got {names[0]}" in capsys.readouterr().err
    main(["cache", "rm", "images"])
    main(["cache"])
    assert capsys.readouterr().out.startswith(f"{names[1]}: removed")
    assert not list(folder.glob("*.arrow*"))


def test_what_is_in_use_stays(folder: Path, demo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = Pack.open_or_build(read_dataset(demo_root), "val", 20)
    with pytest.raises(SystemExit) as end:
        main(["cache", "rm", "images"])
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert "removed (train at 20 px" in shown.out
    assert "what is in use stays; got images-" in shown.err
    with pytest.raises(SystemExit) as end:
        main(["cache", "trim", "0"])
    assert end.value.code == 2
    assert "in use, and stay" in capsys.readouterr().err
    assert len(held.images) == 32
    del held
    gc.collect()
    main(["cache", "trim", "0"])
    main(["cache", "trim", "0"])
    assert capsys.readouterr().out.splitlines()[1] == "Nothing was removed."
