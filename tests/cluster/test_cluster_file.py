"""Each common mistake in a cluster file that Ray lets pass is found, made in the shipped one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fashion.cluster.cluster_file import check_cluster
from fashion.cluster.ec2_keys import NODE_KEYS
from fashion.spec.settings import ResourcesConfig
from tests.support.cluster_files import CONFIG, FILLED, ROOT, SHIPPED, WANTED, prepared


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a cluster file of this text where its file_mounts are found, the token among them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    for local in CONFIG["file_mounts"].values():
        if not local.startswith("~"):
            (tmp_path / local).symlink_to(ROOT / local)

    def written(text: str) -> Path:
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return path

    return written


def mutated(old: str, new: str) -> str:
    assert old in FILLED, old
    return FILLED.replace(old, new, 1)


def test_what_is_shipped_lacks_nothing_but_what_is_the_users_own(write: Callable[[str], Path]) -> None:
    found = check_cluster(write(SHIPPED), WANTED)
    assert [re.findall(r"^\w+", problem.value)[0] for problem in found] == ["ami", "sg", "fs"]
    assert check_cluster(write(FILLED), WANTED) == []


def test_ray_and_the_check_read_the_same(write: Callable[[str], Path]) -> None:
    from fashion.cluster.cluster_file import _read

    assert _read(write(FILLED), []).value == CONFIG


# What Ray lets pass: name, text, what stands there instead, place and words of the one finding.
MISTAKES = {
    "a misspelt key of the provider": ("cache_stopped_nodes:", "cache_stoped_nodes:", "provider.cache_stoped_nodes", "Did you mean cache_stopped_nodes"),
    "a zone of another region": ("us-east-1c", "us-west-2c", "provider.availability_zone", "zones of us-east-1"),
    "no region": ("  region: us-east-1\n", "", "provider", "region must be given"),
    "a misspelt key of a machine": ("BlockDeviceMappings: *disk", "BlockDeviceMapings: *disk", "gpu-l4.node_config.BlockDeviceMapings", "Did you mean BlockDeviceMappings"),
    "a misspelt key of a disk": ("VolumeSize:", "VolumSize:", "BlockDeviceMappings[0].Ebs.VolumSize", "Did you mean VolumeSize"),
    "a subnet that Ray overwrites": ("InstanceType: g5.xlarge", "InstanceType: g5.xlarge\n      SubnetId: subnet-1", "node_config.SubnetId", "Did you mean SubnetIds"),
    "no cluster_name": ("cluster_name: fashion-sweep", "", "", "cluster_name must be given"),
    "a file that is not there": (": pyproject.toml", ": pyproject.tom", "file_mounts.~/fashion-sweep/pyproject.toml", "no such file"),
    "no token shipped": ("  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "file_mounts", "must be among the file_mounts"),
    "a type's maximum above the cluster's": ("max_workers: 4\n    node_config: &worker", "max_workers: 8\n    node_config: &worker", "gpu-l4.max_workers", "at most the cluster's"),
    "a type's minimum above its maximum": ("min_workers: 0\n    max_workers: 4\n    node_config: &worker", "min_workers: 3\n    max_workers: 2\n    node_config: &worker", "gpu-l4.max_workers", "at least its min_workers"),
    "a key that is there twice": ("max_workers: 4 #", "max_workers: 40\nmax_workers: 4 #", "max_workers", "twice, first on line"),
    "a head with CPUs": ("resources: {CPU: 0, GPU: 0}", "resources: {CPU: 2, GPU: 0}", "head.resources", "must offer no CPU"),
    "a head whose CPUs are looked up": ("resources: {CPU: 0, GPU: 0}", "resources: {GPU: 0}", "head.resources", "must offer no CPU"),
    "a head that starts with CPUs": ("--num-cpus=0 ", "", "head_start_ray_commands[1]", "must start with --num-cpus=0"),
    "a head that starts with GPUs": ("--num-gpus=0 ", "--num-gpus=01 ", "head_start_ray_commands[1]", "must start with --num-gpus=0"),
    "workers of the head's type": ("max_workers: 0\n", "max_workers: 1\n", "head.max_workers", "must be 0"),
    "a dashboard for everybody": ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "head_start_ray_commands[1]", "loopback"),
    "a head without token": ("export RAY_AUTH_MODE=token RAY_enable", "export RAY_enable", "head_start_ray_commands[1]", "RAY_AUTH_MODE=token"),
    "workers without token": ("export RAY_AUTH_MODE=token; ulimit", "ulimit", "worker_start_ray_commands[2]", "RAY_AUTH_MODE=token"),
    "Ray's own security group": ("      SecurityGroupIds: &groups [sg-0123456789abcdef0]\n", "", "head.node_config", "SecurityGroupIds must be given"),
    "Ray's own rights": ("      IamInstanceProfile: {Name: fashion-sweep-head}\n", "", "head.node_config", "IamInstanceProfile must be given"),
    "Ray's own image": ("      ImageId: &image ami-0123456789abcdef0\n", "", "head.node_config", "ImageId must be given"),
    "no key pair": ("      KeyName: &key fashion-sweep\n", "", "head.node_config", "KeyName must be given"),
    "Ray's own set-up": ("\nhead_setup_commands:", "\n  #", "", "head_setup_commands must be given"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_that_ray_lets_pass_is_found(name: str, write: Callable[[str], Path]) -> None:
    old, new, place, words = MISTAKES[name]
    text = mutated(old, new)
    for anchor, value in (
        ("groups", "[sg-0123456789abcdef0]"),
        ("image", "ami-0123456789abcdef0"),
        ("key", "fashion-sweep"),
    ):
        if f"&{anchor} " not in text:  # the head's line is gone that the workers' refer to
            text = text.replace(f"*{anchor}\n", f"{value}\n")
    prepared(text)
    path = write(text)
    found = [problem for problem in check_cluster(path, WANTED) if place in problem.place and words in str(problem)]
    assert len(found) == 1
    assert found == check_cluster(path, WANTED), "one mistake, one finding"
    assert found[0].place.startswith(str(path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("idle_timeout_minutes: 10", "idle_timeout_minuets: 10", "idle_timeout_minuets"),
        ("max_workers: 4 #", "max_workers: four #", "four"),
        ("head_node_type: head", "head_node_type: haed", "head_node_type"),
        ("min_workers: 0\n    max_workers: 4", "min_workers: 9\n    max_workers: 9", "max_workers"),
        ("resources: {CPU: 4, GPU: 1}", "resorces: {CPU: 4, GPU: 1}", "resorces"),
    ],
)
def test_ray_finds_these_itself(old: str, new: str, words: str) -> None:
    from jsonschema import ValidationError

    with pytest.raises((ValidationError, ValueError), match=words):
        prepared(mutated(old, new))


@pytest.mark.parametrize(
    ("asked", "change", "room"),
    [
        ({}, ("CPU: 4", "CPU: 0"), "0"),
        ({"cpus_per_worker": 5}, None, "0"),
        ({"gpus_per_worker": 2}, None, "0"),
        ({"workers": 5}, None, "4"),
        ({"workers": 3}, ("max_workers: 4\n", "max_workers: 0\n"), "0"),
        ({"gpus_per_worker": 1}, ("GPU: 1", "GPU: 0"), "0"),
    ],
)
def test_resources_that_nobody_offers_are_found(
    asked: dict[str, Any], change: tuple[str, str] | None, room: str, write: Callable[[str], Path]
) -> None:
    text = FILLED.replace(*change) if change else FILLED  # of all types
    found = check_cluster(write(text), [("my.yaml", ResourcesConfig.model_validate(asked))])
    assert len(found) == 1
    assert "my.yaml: no node type offers" in found[0].rule
    assert found[0].value == f"room for {room}"


def test_a_group_of_workers_may_span_node_types(write: Callable[[str], Path]) -> None:
    text = FILLED.replace("max_workers: 4\n", "max_workers: 1\n")  # of the types; the cluster's is 4
    assert check_cluster(write(text), [("my.yaml", ResourcesConfig(workers=3))]) == []


def test_resources_that_ray_looks_up_may_be_any(write: Callable[[str], Path]) -> None:
    text = FILLED.replace("resources: {CPU: 4, GPU: 1}", "resources: {}")
    assert check_cluster(write(text), [("my.yaml", ResourcesConfig(cpus_per_worker=64, gpus_per_worker=8))]) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: [",
        "a: \x00",
        "? [a]\n: b",
        "a: &a [*a]",
        "a: !!python/name:os.system",
        "provider: aws\navailable_node_types: [1]\nfile_mounts: 3",
    ],
)
def test_what_is_no_cluster_file_is_told(text: str, write: Callable[[str], Path]) -> None:
    assert check_cluster(write(text), WANTED)
    assert check_cluster(write(text).parent / "absent.yaml")


def test_the_keys_of_machines_are_those_of_ec2() -> None:
    session = pytest.importorskip("botocore.session", reason="boto3 is not installed: pip install '.[cloud]'")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    members = {"node_config": shape.members, "Ebs": shape.members["BlockDeviceMappings"].member.members["Ebs"].members}
    members["SpotOptions"] = shape.members["InstanceMarketOptions"].members["SpotOptions"].members
    for key in set(NODE_KEYS) - set(members):
        kind = shape.members[key]
        members[key] = (kind.member if kind.type_name == "list" else kind).members
    known = {key: set(value) for key, value in members.items()}
    known["node_config"] = known["node_config"] - {"MinCount", "MaxCount", "SubnetId"} | {"SubnetIds"}
    assert {key: set(value) for key, value in NODE_KEYS.items()} == known


def fashion(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fashion", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


def test_the_command_checks_specs_against_a_cluster(write: Callable[[str], Path]) -> None:
    path = write(FILLED)
    good = ["check", "--cluster", "cluster.yaml", "sweeps/lr.yaml"]
    done = fashion(*good, folder=path.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("cluster.yaml: ok\n")
    done = fashion(*good, "--set", "resources.gpus_per_worker=2", "--json", folder=path.parent)
    assert done.returncode == 2
    spec, cluster = json.loads(done.stdout)
    assert spec["ok"]
    assert not cluster["ok"]
    assert "sweeps/lr.yaml" in cluster["problems"][0]["rule"]
    write(SHIPPED)
    done = fashion(*good, folder=path.parent)
    assert done.returncode == 2
    assert "docs/cluster.md" in done.stderr
