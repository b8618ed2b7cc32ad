"""Every command explains itself, and a user's mistake is one message and exit code 2."""

from __future__ import annotations

import errno
import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fashion.cli import main
from fashion.cli.main import COMMANDS, cli
from fashion.errors import UserError


def walk(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    context = click.Context(command)
    found = []
    for child in command.list_commands(context):
        each = command.get_command(context, child)
        assert each is not None
        found += walk(each, f"{name} {child}")
    return found


@pytest.mark.parametrize(("name", "command"), walk(cli, "fashion-sweep"))
def test_every_command_has_help_and_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert f"{name} " in command.help + " " or f"{name}\n" in command.help + "\n"
    assert "Example:" in command.help


@pytest.mark.parametrize(("name", "command"), walk(cli, "fashion-sweep"))
def test_every_option_is_explained_in_whole_sentences(name: str, command: click.Command) -> None:
    options = [each for each in command.params if isinstance(each, click.Option)]
    told = {each.name: (each.help or "").partition("  [")[0] for each in options}
    assert not {option for option, text in told.items() if not (text[:1].isupper() or text[:2] == "--")}
    assert not {option for option, text in told.items() if not text.endswith(".")}


def fashion(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fashion", *arguments], capture_output=True, text=True, cwd=folder, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "No such command"),
        (["run", "absent.yaml"], "absent.yaml"),
        (["run", "spec.yaml", "--set", "train.lrr=1"], "Did you mean"),
        (["run", "spec.yaml"], "no-data"),
        (["run", "spec.yaml", "--plain", "--json"], "exclude"),
        (["best"], "runs"),
        (["best", "--images", "."], "--predict"),
        (["show", "absent"], "runs"),
        (["data", "check", "absent"], "absent"),
        (["data", "stats", "absent"], "absent"),
        (["model", "resnet81", "--data", "."], "resnet18"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "spec.yaml").write_text("data: {root: no-data}\nmodel: {backbone: tiny, weights: none}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main.main(arguments)
    assert end.value.code == 2
    assert message in "".join(capsys.readouterr())
    assert {path.name for path in tmp_path.iterdir()} == {"spec.yaml"}


def test_a_process_ends_with_that_code_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("data: {root: no-data}\nmodel: {backbone: tiny, weights: none}\n")
    done = fashion("run", "spec.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-data" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_commands_are_listed(tmp_path: Path) -> None:
    done = fashion("--help", folder=tmp_path)
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def raising(error: BaseException) -> object:
    def cli(**_: object) -> None:
        raise error

    return cli


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("a sentence"), 2, "Error: a sentence"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (OSError(errno.ENOSPC, "", "runs/a"), 2, "Error: runs/a: No space left"),
        (BrokenPipeError(), 0, ""),
        (SystemExit(1), 1, ""),
        (click.Abort(), 130, "Interrupted."),
    ],
)
def test_every_end_has_its_exit_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "cli", raising(error))
    if code:
        with pytest.raises(SystemExit) as end:
            main.main(["ls"])
        assert end.value.code == code
    else:
        main.main(["ls"])
    assert capsys.readouterr().err.startswith(message)


def test_an_interrupt_that_a_library_replaced_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ImportError("an extension did not load")
    error.__context__ = KeyboardInterrupt()
    monkeypatch.setattr(main, "cli", raising(error))
    with pytest.raises(SystemExit) as end:
        main.main(["ls"])
    assert end.value.code == 130


def test_a_bug_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyError("a bug"), FileNotFoundError("another")):
        monkeypatch.setattr(main, "cli", raising(error))
        with pytest.raises(type(error)):
            main.main(["ls"])


def test_a_deleted_working_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as end:
        main.main(["ls"])
    assert end.value.code == 2
    assert "the working folder" in capsys.readouterr().err
    main.main(["ls", "--help"])


def test_a_user_id_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    main.name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"


def test_openmps_threads_sleep_soon_unless_the_user_has_set_how_long_they_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    from fashion.cluster.session import ENVIRONMENT  # here: it takes Ray

    monkeypatch.setenv("GOMP_SPINCOUNT", "infinity")
    main.share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "infinity"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    main.share_cores()
    # The processes of a sweep have the same, also those of a cluster that was joined.
    assert os.environ["GOMP_SPINCOUNT"] == ENVIRONMENT["GOMP_SPINCOUNT"] == "3000"


def test_a_variables_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in main.PATH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASHION_CACHE", "~/cache")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/run/secrets/~token")
    main.expand_home()
    assert os.environ["FASHION_CACHE"] == f"{tmp_path}/cache"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/~token"
    assert not {"TORCH_HOME", "TMPDIR"} & os.environ.keys()
