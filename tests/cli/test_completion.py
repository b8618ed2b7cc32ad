"""Completion in the shell: what click is told, what a real bash makes of it, and that nothing is ever printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from fashion.cli.completion.shells import VARIABLE
from fashion.cli.main import COMMANDS, cli
from fashion.record.run import Run
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three runs in `runs`, one of them in the making, and one in `other`."""
    monkeypatch.chdir(tmp_path)
    for number, run in enumerate(("runs/lr", "runs/lr-short", "runs/backbones", "other/loss")):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "manifest.json").write_text("{}")
        (tmp_path / run / "journal.jsonl").write_text("")
        os.utime(tmp_path / run / "journal.jsonl", (number, number))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path


def completed(*words: str) -> list[str]:
    """What may stand in the last word's place."""
    shell = ShellComplete(cli, {}, "fashion-sweep", VARIABLE)
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def kinds(*words: str) -> list[str]:
    shell = ShellComplete(cli, {}, "fashion-sweep", VARIABLE)
    return [item.type for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_commands() -> None:
    assert completed("") == list(COMMANDS)
    assert completed("sh") == ["show"]
    assert completed("sweeps", "") == ["copy"]


@pytest.mark.parametrize("command", ["show", "best", "watch", "stop", "compare", "logs"])
def test_runs_the_latest_first(command: str) -> None:
    assert completed(command, "") == ["backbones", "lr-short", "lr"]
    assert completed(command, "lr") == ["lr-short", "lr"]


def test_runs_of_another_storage() -> None:
    assert completed("show", "--storage", "other", "") == ["loss"]
    assert completed("show", "--storage", "nowhere", "") == []
    assert completed("show", "--storage", "s3://bucket/runs", "") == []
    assert kinds("show", "other/") == ["dir"]


def test_backbones_and_splits() -> None:
    assert completed("model", "resnet") == ["resnet18", "resnet34", "resnet50"]
    assert completed("best", "--predict", "--split", "") == ["train", "val", "test"]
    assert completed("best", "--predict", "--split", "v") == ["val"]


def test_shipped_sweeps() -> None:
    assert completed("sweeps", "copy", "fine") == ["finetune", "finetune_cpu"]


@pytest.mark.parametrize("command", ["run", "check", "submit"])
def test_specs_are_files_and_storage_is_a_folder(command: str) -> None:
    assert kinds(command, "") == ["file"]
    assert kinds("show", "--storage", "") == ["dir"]


@pytest.mark.parametrize("command", ["run", "check", "submit"])
def test_keys_of_a_spec(command: str) -> None:
    assert completed(command, "lr.yaml", "--set", "train.l") == [
        "train.lr=", "train.layer_decay=", "train.loss=", "train.label_smoothing=", "train.logit_adjustment=",
        "train.layout=",
    ]  # fmt: skip
    keys = completed(command, "lr.yaml", "--set", "")
    assert {"data.root=", "model.backbone=", "search.trials=", "resources.workers=", "storage=", "name="} <= set(keys)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("train.optimizer=", ["sgd", "adam", "adamw", "lbfgs"]),
        ("train.optimizer=ada", ["adam", "adamw"]),
        ("scheduler.name=", ["asha", "fifo", "median", "hyperband"]),
        ("data.eval_flip=", ["true", "false"]),
        ("model.backbone=resnet1", ["resnet18"]),
        ("train.lr=", []),
        ("train.nothing=", []),
    ],
)
def test_words_behind_a_key(typed: str, words: list[str]) -> None:
    key = typed.partition("=")[0]
    assert completed("run", "lr.yaml", "--set", typed) == [f"{key}={word}" for word in words]


def test_every_parameter_that_names_one_of_these_is_completed() -> None:
    """A new command's run, spec, storage or --set must not be forgotten."""
    wanted = {"run", "storage", "overrides", "split", "backbone", "spec", "specs"}
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if parameter.name in wanted and (name, parameter.name) != ("submit", "storage"):  # one of the cluster's
                assert parameter._custom_shell_complete is not None, (name, parameter.name)


def test_what_fails_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(storage: str) -> list[Path]:
        raise PermissionError(storage)

    monkeypatch.setattr("fashion.record.find.run_paths", broken)
    assert completed("show", "") == []


def shell(line: str, folder: Path, script: str = "") -> subprocess.CompletedProcess[str]:
    """A bash that completes `line`: it calls what the user's bash would call, and prints the answers."""
    code = f"""
    eval "$(_FASHION_SWEEP_COMPLETE=bash_source fashion-sweep)"
    {script}
    complete -p fashion-sweep > /dev/null || exit 9
    compopt() {{ echo "compopt $1 $2"; }}  # bash has it in a completion alone
    COMP_LINE={line!r} COMP_POINT={len(line)}
    _fashion_sweep_completion fashion-sweep
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    (commands / "fashion-sweep").write_text(
        "#!/usr/bin/env bash\n"
        f"exec {sys.executable} -c \"import sys; sys.argv[0] = 'fashion-sweep'; "
        'from fashion.cli.main import main; main()" "$@"\n'
    )
    (commands / "fashion-sweep").chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "--norc", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("fashion-sweep show lr", ["lr-short", "lr"]),
        pytest.param("fashion-sweep best --storage other ", ["loss"], marks=pytest.mark.slow),
        # bash replaces only what follows the `=`
        ("fashion-sweep run lr.yaml --set train.optimizer=ada", ["adam", "adamw"]),
        pytest.param(
            "fashion-sweep run lr.yaml --set train.optimizer=",
            ["sgd", "adam", "adamw", "lbfgs"],
            marks=pytest.mark.slow,
        ),
        # no space behind a key, whose value comes next
        ("fashion-sweep run lr.yaml --set train.mom", ["compopt -o nospace", "train.momentum="]),
        ("fashion-sweep run ", ["compopt -o default", ""]),
        pytest.param("fashion-sweep run 'unfinished", ["compopt -o default", ""], marks=pytest.mark.slow),
        pytest.param("fashion-sweep show nothing", [""], marks=pytest.mark.slow),
    ],
)
def test_a_real_bash(line: str, answers: list[str], tmp_path: Path) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == answers


def test_a_command_that_is_broken_is_silent(tmp_path: Path) -> None:
    done = shell("fashion-sweep show ", tmp_path, script="echo 'echo told >&2; exit 1' > commands/fashion-sweep")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "\n")


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell_name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'fashion-sweep'; from fashion.cli.main import main; main()"],
        env={**os.environ, VARIABLE: f"{shell_name}_source"}, cwd=ROOT, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{VARIABLE}={shell_name}_complete" in done.stdout
    if shell_name == "zsh":
        assert 'compadd -U -S "" -- "$key"' in done.stdout


def test_completion_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from fashion.cli.main import cli\n"
        "shell = ShellComplete(cli, {}, 'fashion-sweep', '_X')\n"
        "for words in ([], ['run', 'a', '--set'], ['show'], ['model'], ['best', '--split'], ['sweeps', 'copy']):\n"
        "    shell.get_completions(words, '')\n"
        "print(sorted({'torch', 'ray', 'torchvision', 'timm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_columns_and_attributes_of_a_run(tmp_path: Path) -> None:
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    Run.create(tmp_path / "runs", "known", manifest).close()
    assert completed("show", "known", "--sort", "val_acc") == [
        "val_accuracy", "val_accuracy/sleeve", "val_accuracy/fit"
    ]  # fmt: skip
    assert completed("show", "known", "--sort", "lr") == ["lr"]
    assert completed("show", "known", "--where", "lr<1 and train.l") == ["lr<1 and train.lr"]
    assert completed("show", "known", "--where", "(backb") == ["(backbone"]
    assert completed("show", "known", "--attribute", "") == ["sleeve", "fit"]
    assert completed("show", "nowhere", "--sort", "") == [], "and nothing is printed"
