"""Names and paths are what was typed, and a command that there is not names the one that was meant."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fashion.cli.main import cli
from fashion.cli.options import OTHERWISE, HomePath, SuggestingGroup, overrides_with
from fashion.errors import SpecError
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.submit.command import entrypoint
from fashion.sweep.extend import run_path

TEXT = "data: {root: data, resize: 32, crop: 32}\nmodel: {backbone: tiny, weights: none}\n"


def load(folder: Path, name: str | None = None, storage: str | None = None) -> SweepSpec:
    (folder / "s.yaml").write_text(TEXT)
    return load_spec(folder / "s.yaml", overrides_with((), name, storage))


@pytest.mark.parametrize("name", ["20250131", "3e5", "null", "true", "0x1F", "1.5", "12e", "no", "2025-01-31"])
def test_a_name_is_text_whatever_yaml_takes_it_for(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, name).name == name


def test_a_name_that_is_no_folders_is_refused_by_the_option_that_gave_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--name: must be up to 64 letters.*got \"-1\""):
        load(tmp_path, "-1")


@pytest.mark.parametrize("storage", ["my runs #2", "a: b", "[x]", "{y}", "'q\"", "*x", "&x", "wärme/🙂", "7", "C:\\r"])
def test_a_storage_folder_is_text_whatever_yaml_takes_it_for(tmp_path: Path, storage: str) -> None:
    assert load(tmp_path, storage=storage).storage == storage


@pytest.mark.parametrize("name", ["20250131", "null"])
def test_a_spec_whose_name_looks_like_a_number_is_submitted_by_it(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(TEXT)
    spec = load_spec(tmp_path / f"{name}.yaml")
    assert spec.name == name
    command = entrypoint(TEXT, spec, overrides_with((), name, "s3://bucket/runs #1"), folder="/mnt")
    words = next(line for line in command.splitlines() if line.startswith("exec "))
    assert f"--name {name} " in words
    assert """'storage="s3://bucket/runs #1"'""" in words


def test_a_storage_folder_in_ones_home_is_the_clusters_home(tmp_path: Path) -> None:
    command = entrypoint(TEXT, load(tmp_path, storage="~/runs"), folder="/mnt")
    assert "/mnt/~" not in command


def test_a_path_in_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run_path(load(tmp_path, storage="~/runs")) == tmp_path / "home/runs/s"

    @click.command()
    @click.argument("path", type=HomePath())
    def command(path: str) -> None:
        click.echo(path)

    for typed, meant in (("~/x", f"{tmp_path}/home/x"), ("s3://b/~", "s3://b/~"), ("a~b", "a~b")):
        assert CliRunner().invoke(command, [typed]).output == f"{meant}\n"
    assert CliRunner().invoke(cli, ["ls", "--storage=~/runs"]).output.startswith(f"No runs in {tmp_path}/home/runs.")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/s.yaml").write_text(TEXT)
    assert load_spec("~/s.yaml").name == "s"
    assert not os.path.exists("~")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek"], "No such command 'chek'. Did you mean check?"),
        (["train", "x.yaml"], "Did you mean run?"),
        (["list"], "Did you mean ls?"),
        (["predict"], "Did you mean best --predict?"),
        (["help"], "Did you mean --help?"),
        (["data", "chekc"], "Did you mean check?"),
        (["sweeps", "cp"], "Did you mean copy?"),
        (["zzz"], "No such command 'zzz'. There are: run, submit,"),
    ],
)
def test_an_unknown_command_names_the_nearest(words: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert said in result.output


def test_every_other_word_leads_to_a_command() -> None:
    known = (
        {*cli.list_commands(click.Context(cli)), "--help", "--version"} if isinstance(cli, SuggestingGroup) else set()
    )
    for group in ("data", "sweeps"):
        nested = cli.get_command(click.Context(cli), group)
        assert isinstance(nested, SuggestingGroup)
        known |= set(nested.list_commands(click.Context(nested)))
    assert {command.split()[0] for command in OTHERWISE.values()} <= known
