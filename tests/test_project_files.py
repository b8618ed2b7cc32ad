"""The project's own files: what the workflow and the hooks call exists, and every YAML file parses."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML_FILES = [
    *sorted((ROOT / ".github").rglob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "cluster.yaml",
    *sorted((ROOT / "sweeps").glob("*.yaml")),
]


def parsed(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.M))


def steps(path: Path) -> list[str]:
    """The shell lines of a workflow."""
    lines = [step.get("run", "") for job in parsed(path)["jobs"].values() for step in job["steps"]]
    return [line for line in lines if line]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_parse(path: Path) -> None:
    assert isinstance(parsed(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_make_targets_that_exist(path: Path) -> None:
    called = {name for line in steps(path) for name in re.findall(r"\bmake ([a-z-]+)", line)}
    assert called
    assert called <= make_targets()


def test_the_workflow_tries_every_python_that_is_allowed() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options"]["python_requires"] == ">=3.11,<3.14"
    matrix = parsed(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["fast"]["strategy"]["matrix"]["include"]
    assert [each["python"] for each in matrix] == ["3.11", "3.12", "3.13"]
    assert {"make setup", "make lint", "make test-fast", "make coverage"} <= {
        " ".join(line.split()[:2]) for line in steps(ROOT / ".github" / "workflows" / "tests.yml")
    }


def test_hooks_of_the_environment_are_the_tools_of_make_lint() -> None:
    local = next(repo for repo in parsed(ROOT / ".pre-commit-config.yaml")["repos"] if repo["repo"] == "local")
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in local["hooks"]:
        assert hook["entry"].startswith(".venv/bin/")
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in recipe


def test_the_licence_is_the_one_that_the_metadata_name() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_names_the_version() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert headings[0] == "Unreleased"
    assert config["metadata"]["version"] in headings


@pytest.mark.parametrize("name", ["reliability", "storage", "cluster", "security", "scale"])
def test_tests_that_the_documentation_names_exist(name: str) -> None:
    """`WING/test_X.py::test_Y`, below `tests/` or from it on."""
    text = (ROOT / "docs" / f"{name}.md").read_text()
    named = re.findall(r"`(?:tests/)?((?:\w+/)+test_\w+\.py)(?:::(test_\w+))?`", text)
    assert named
    for path, function in named:
        file = ROOT / "tests" / path.removeprefix("tests/")  # of tests of no wing the folder is all there is to name
        assert file.is_file(), path
        assert not function or f"def {function}(" in file.read_text(), f"{path}::{function}"
    # without its folder or its file, a test can't be found, nor missed
    assert not re.findall(r"`test_\w+(?:\.py)?(?:::\w+)?`", text)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_between_the_documents_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text())
    assert not [target for target in targets if not (path.parent / target).exists()]
