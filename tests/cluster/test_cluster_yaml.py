"""The shipped cluster.yaml is what Ray and EC2 take, its commands do what they say, and nobody is let in."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fashion.cli.main import HIDDEN
from fashion.cluster.cluster_file import TOKEN
from fashion.config.names import names_in
from fashion.model.backbones import BACKBONES
from fashion.spec.sweep_spec import load_spec
from tests.support.cluster_files import CONFIG, FILLED, ROOT, SPECS, prepared
from tests.support.machines.ray_nodes import wait_until

SETUP = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
START = ("head_start_ray_commands", "worker_start_ray_commands")
COMMANDS = [command for key in (*SETUP, *START) for command in CONFIG[key]]
# Stands in for `ray`: notes its words and its environment.
FAKE = """#!/bin/sh
{ printf '%s\\n' "$@"; env | sed -n /^RAY_/p; } > "$HOME/called"
"""


def test_ray_takes_it_and_adds_none_of_its_own_commands() -> None:
    config = prepared(FILLED)
    assert config["head_setup_commands"] == CONFIG["setup_commands"] + CONFIG["head_setup_commands"]
    assert config["worker_setup_commands"] == CONFIG["setup_commands"] + CONFIG["worker_setup_commands"]
    for key in START:
        assert config[key] == CONFIG[key]
    assert config["available_node_types"] == CONFIG["available_node_types"]
    assert config["provider"] == CONFIG["provider"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_plain_shell(command: str) -> None:
    """One line, valid, nothing fetched past the package managers, and every variable a known one in double quotes."""
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    assert "\n" not in command
    assert not re.search(r"`|\$\(|\$\{|\beval\b|\bcurl\b|\bwget\b|\{\{|sudo (-\S+ )*\S*pip", command)
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
    assert "$" not in outside
    assert set(re.findall(r"\$(\w*)", command)) <= {"HOME", "PATH", "RAY_HEAD_IP"}


def run_as_ray(command: str, home: Path) -> None:
    """The command, wrapped and quoted by Ray as for a node, by a shell like the one at the other end of ssh."""
    from ray.autoscaler._private.command_runner import _with_interactive

    done = subprocess.run(
        ["bash", "-c", " ".join(_with_interactive(command))], env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_environment_of_a_node_is_written_once_and_found(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("# the image's own\n")
    for _ in range(2):
        for command in CONFIG["setup_commands"][-2:]:
            run_as_ray(command, tmp_path)
    assert (tmp_path / ".bashrc").read_text() == "# the image's own\n. ~/.fashion-sweep\n"
    run_as_ray("env > ~/seen", tmp_path)
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    assert seen["RAY_AUTH_MODE"] == "token"
    assert seen["FASHION_CACHE"] == "/mnt/fashion/cache"
    assert seen["PATH"].startswith(f"{tmp_path}/fashion-sweep/.venv/bin:")


@pytest.mark.parametrize("key", START)
def test_what_ray_start_is_given(key: str, tmp_path: Path) -> None:
    from ray.autoscaler._private.util import with_envs, with_head_node_ip

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ray").write_text(FAKE)
    (tmp_path / "bin" / "ray").chmod(0o700)
    (tmp_path / ".bashrc").write_text('export PATH="$HOME/bin:$PATH"\n')
    # `ray up` turns the second autoscaler on; the file turns it off again
    for command in with_envs(with_head_node_ip(CONFIG[key], "10.1.2.3"), {"RAY_enable_autoscaler_v2": "1"}):
        run_as_ray(command, tmp_path)
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "start"
    assert "RAY_AUTH_MODE=token" in called
    if key.startswith("head"):
        head = {"--head", "--num-cpus=0", "--num-gpus=0", "--port=6379", "--dashboard-host=127.0.0.1"}
        assert head <= set(called)
        assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in called  # Ray expands it
        assert "RAY_enable_autoscaler_v2=0" in called
        assert "RAY_health_check_failure_threshold=3" in called
    else:
        assert "--address=10.1.2.3:6379" in called


def test_every_worker_watches_for_its_notice(tmp_path: Path) -> None:
    """In the background, before Ray is started: the shell that starts it returns while it runs."""
    *before, start = CONFIG["worker_start_ray_commands"]
    (watch,) = [command for command in before if "spot-watch" in command]
    assert "ray start" in start
    (tmp_path / "bin").mkdir()
    waits = 'until [ -e "$HOME/go" ]; do sleep 0.1; done\n'
    (tmp_path / "bin" / "fashion-sweep").write_text(FAKE.replace("{", waits + "{", 1))
    (tmp_path / "bin" / "fashion-sweep").chmod(0o700)
    (tmp_path / ".bashrc").write_text('export PATH="$HOME/bin:$PATH"\n')
    run_as_ray(watch, tmp_path)
    assert not (tmp_path / "called").exists()
    (tmp_path / "go").touch()
    wait_until(lambda: (tmp_path / "called").exists() and "RAY_AUTH" in (tmp_path / "called").read_text(), "it ran", 20)
    assert (tmp_path / "called").read_text().splitlines()[0] == "spot-watch"
    assert "RAY_AUTH_MODE=token" in (tmp_path / "called").read_text()
    assert (tmp_path / "spot-watch.log").exists()
    assert "spot-watch" in HIDDEN


def test_the_environment_is_the_pinned_one() -> None:
    pinned = dict(
        line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    installs = [command for command in COMMANDS if re.search(r"\bpip install\b", command)]
    assert len(installs) == 1
    words = shlex.split(installs[0])
    assert words[words.index("-c") + 1] == "constraints.txt"
    assert "pip check" in installs[0]
    for name, version in re.findall(r"([\w.-]+)==([\w.]+)", " ".join(COMMANDS)):
        assert pinned[name.lower()] == version
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    extras = re.findall(r"\.\[([\w,]+)\]", installs[0])[0].split(",")
    wanted = package["options"]["install_requires"] + "".join(
        package["options.extras_require"][name] for name in extras
    )
    names = re.findall(r"^([A-Za-z0-9_.-]+)", wanted, flags=re.M)
    assert {"torch", "ray", "timm", "boto3"} <= set(names)
    assert {name.lower() for name in names} <= set(pinned)
    # pip reads these on the node
    assert {"constraints.txt", "setup.cfg", "pyproject.toml", "fashion"} <= set(CONFIG["file_mounts"].values())


def test_weights_of_the_shipped_sweeps_are_fetched_once_on_the_head() -> None:
    fetch = [command for command in CONFIG["head_setup_commands"] if "resolve_weights" in command]
    assert len(fetch) == 1
    assert not [
        command
        for key in ("setup_commands", "worker_setup_commands")
        for command in CONFIG[key]
        if "weights" in command
    ]
    code = shlex.split(fetch[0])[-1]
    compile(code, "head_setup_commands", "exec")
    fetched = set(re.findall(r'"(\w+)"', code))
    wanted: set[str] = set()
    for path in SPECS:
        spec = load_spec(path)
        trials = [spec.trial(number) for number in range(spec.total_trials)]
        asked = [trial.model.backbone for trial in trials if trial.model.weights == "imagenet"]
        wanted.update(name for backbone in asked for name in names_in(backbone))
    assert fetched == {name for name in wanted if BACKBONES[name].weights_name}
    assert any("TORCH_HOME=/mnt/fashion" in command for command in CONFIG["setup_commands"])


def test_who_may_talk_to_ray() -> None:
    head, worker = CONFIG["head_start_ray_commands"][-1], CONFIG["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in shlex.split(head)
    assert all("RAY_AUTH_MODE=token" in command for command in (head, worker))
    assert any("RAY_AUTH_MODE=token" in command for command in CONFIG["setup_commands"])
    assert CONFIG["file_mounts"][TOKEN] == TOKEN
    for kind in ("initial_delay_ms=1000", "period_ms=1000", "timeout_ms=2000", "failure_threshold=3"):
        assert f"RAY_health_check_{kind}" in head
    for node in CONFIG["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_the_head_is_on_demand_and_workers_are_spot_of_several_types() -> None:
    types = dict(CONFIG["available_node_types"])
    assert "InstanceMarketOptions" not in types.pop(CONFIG["head_node_type"])["node_config"]
    assert all(node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot" for node in types.values())
    assert len({node["node_config"]["InstanceType"] for node in types.values()}) == len(types) >= 3


def test_the_aws_provider_changes_nothing_that_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install '.[cloud]'")
    from ray.autoscaler._private.aws import config as aws

    def network(*arguments: Any) -> None:
        raise AssertionError("asks the network")

    monkeypatch.setattr(aws, "_resource", network)
    monkeypatch.setattr(aws, "_client", network)
    monkeypatch.setattr(aws, "_configure_subnet", lambda config: config)  # looks subnets up
    before = prepared(FILLED)
    after = aws.bootstrap_aws(before)
    assert after.pop("head_node") == {}, "no profile of Ray's own"
    assert after == before


def test_ec2_takes_every_machine() -> None:
    session = pytest.importorskip("botocore.session", reason="boto3 is not installed: pip install '.[cloud]'")
    from botocore.validate import ParamValidator

    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, node in CONFIG["available_node_types"].items():
        report = ParamValidator().validate({**node["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_the_page_and_the_file_use_the_same_names() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    policies = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", page, flags=re.M | re.S)]
    assert len(policies) == 2
    assert f'"aws:RequestTag/ray-cluster-name": "{CONFIG["cluster_name"]}"' in page
    assert f'"aws:ResourceTag/ray-cluster-name": "{CONFIG["cluster_name"]}"' in page
    types = {name: node["node_config"]["InstanceType"] for name, node in CONFIG["available_node_types"].items()}
    started = policies[1]["Statement"][1]["Condition"]["StringEquals"]["ec2:InstanceType"]
    assert set(started) == {kind for name, kind in types.items() if name != CONFIG["head_node_type"]}
    for node in CONFIG["available_node_types"].values():
        assert f"--instance-profile-name {node['node_config']['IamInstanceProfile']['Name']}" in page
        assert f"--key-name {node['node_config']['KeyName']}" in page
    assert CONFIG["auth"]["ssh_private_key"] in page
