"""cluster.yaml through Ray's AWS provider and moto's EC2: the requests, and on test hosts the whole walk.

On the hosts, a machine boots when Ray asks for it, is set up by the file's own commands, joins the cluster, trains, and
ends when EC2 ends it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fashion.record.run import Run
from tests.support.cluster_files import CONFIG, SHIPPED, prepared
from tests.support.machines.hosts import Hosts
from tests.support.machines.launching import OFFLINE, STAND_INS, USED, Client, sweep, without_downloads
from tests.support.machines.ray_nodes import wait_until
from tests.support.running import PATIENCE, events, wait_for_reports

pytest.importorskip("moto", reason="moto is not installed: pip install '.[dev]'")
from tests.support.servers.ec2 import PORT, Ec2, account, env

TYPES = CONFIG["available_node_types"]
WORKERS = [name for name in TYPES if name != CONFIG["head_node_type"]]
EPOCHS = 40
CLIENT, HEAD, LAST = 1, 3, 7  # EC2 keeps the first three addresses of a network for itself, and gives none twice


def filled(ids: dict[str, str]) -> str:
    """cluster.yaml with these ids in place of the placeholders."""
    text = SHIPPED
    for prefix, value in {**ids, "fs": "fs-0123456789abcdef0"}.items():
        text = text.replace(f"{prefix}-CHANGE-ME", value)
    return by_internal_addresses(text)


def by_internal_addresses(text: str) -> str:
    """With internal addresses: the test hosts have no public ones."""
    assert text.count("provider:\n  type: aws\n") == 1
    return text.replace("provider:\n  type: aws\n", "provider:\n  type: aws\n  use_internal_ips: true\n")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Ec2, Any, dict[str, Any]]]:
    """EC2 on loopback, Ray's provider of it, and the file's node types as Ray completed them."""
    from ray.autoscaler._private.aws import utils
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    with Ec2("127.0.0.1") as ec2:
        for key, value in env(ec2.url).items():
            monkeypatch.setenv(key, value)
        utils.resource_cache.cache_clear()  # clients of another address
        config = AWSNodeProvider.bootstrap_config(prepared(filled(account(ec2))))
        yield ec2, AWSNodeProvider(config["provider"], config["cluster_name"]), config["available_node_types"]
        utils.resource_cache.cache_clear()


def launch(provider: Any, types: dict[str, Any], name: str) -> None:
    kind = "head" if name == CONFIG["head_node_type"] else "worker"
    provider.create_node(types[name]["node_config"], {"ray-node-type": kind, "ray-user-node-type": name}, 1)


def tags(form: dict[str, str]) -> dict[str, str]:
    keys = {name: value for name, value in form.items() if re.fullmatch(r"TagSpecification\.1\.Tag\.\d+\.Key", name)}
    return {value: form[f"{name.removesuffix('Key')}Value"] for name, value in keys.items()}


def assert_asked_as_the_file_says(form: dict[str, str], name: str, groups: list[str]) -> None:
    """The request for a machine of this node type is as expected. The values are not read from the file."""
    kind = "head" if name == "head" else "worker"
    market = {key: value for key, value in form.items() if key.startswith("InstanceMarketOptions.")}
    spot = {
        "InstanceMarketOptions.MarketType": "spot",
        "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
        "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
    }
    assert market == ({} if kind == "head" else spot)
    types = {"head": "m6i.large", "gpu-l4": "g6.xlarge", "gpu-a10g": "g5.xlarge", "gpu-t4": "g4dn.xlarge"}
    wanted = {
        "InstanceType": types[name],
        "KeyName": "fashion-sweep",
        "IamInstanceProfile.Name": f"fashion-sweep-{kind}",
        "MetadataOptions.HttpTokens": "required",
        "MetadataOptions.HttpPutResponseHopLimit": "1",
        "BlockDeviceMapping.1.Ebs.Encrypted": "true",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "TagSpecification.1.ResourceType": "instance",
    }
    assert {key: form.get(key) for key in wanted} == wanted
    assert [value for key, value in form.items() if key.startswith("SecurityGroupId.")] == groups
    assert tags(form)["ray-cluster-name"] == "fashion-sweep"
    assert tags(form)["ray-node-type"] == kind
    assert tags(form)["ray-user-node-type"] == name


def test_machines_are_asked_for_as_the_file_says_and_all_are_ended(provider: tuple[Ec2, Any, dict[str, Any]]) -> None:
    ec2, ray, types = provider
    before = Counter(form["Action"] for form in ec2.asked)
    for name in types:
        launch(ray, types, name)
    groups = types["head"]["node_config"]["SecurityGroupIds"]
    for form, name in zip(ec2.requests("RunInstances"), types, strict=True):
        assert_asked_as_the_file_says(form, name, groups)
    machines = ec2.machines()
    assert [machine.lifecycle for machine in machines] == [None, "spot", "spot", "spot"]
    found = ray.non_terminated_nodes({})
    assert sorted(found) == sorted(machine.id for machine in machines)
    ray.terminate_nodes(found)
    assert ec2.alive() == []
    # and nothing that the page's policy for the head does not name
    asked = Counter(form["Action"] for form in ec2.asked) - before
    assert set(asked) <= {"RunInstances", "DescribeInstances", "CreateTags", "TerminateInstances"}


def test_a_type_without_capacity_is_tried_in_every_zone(provider: tuple[Ec2, Any, dict[str, Any]]) -> None:
    from ray.autoscaler.node_launch_exception import NodeLaunchException

    ec2, ray, types = provider
    ec2.sold_out.add("g5.xlarge")
    with pytest.raises(NodeLaunchException) as caught:
        launch(ray, types, "gpu-a10g")
    assert caught.value.category == "InsufficientInstanceCapacity"
    assert {form["SubnetId"] for form in ec2.requests("RunInstances")} == set(
        types["gpu-a10g"]["node_config"]["SubnetIds"]
    )
    assert ec2.machines() == []


@pytest.fixture(scope="module")
def walk() -> Iterator[tuple[Hosts, Ec2, Client]]:
    """Test hosts, EC2 among them, and the user's machine with the file. Nothing is up yet."""
    address = "10.77.0.1"
    keys = env(f"http://{address}:{PORT}")
    with Hosts(LAST + 1, STAND_INS, {**OFFLINE, **keys}) as hosts:
        assert hosts.network.address(0) == address
        machines = [hosts[number] for number in range(HEAD, LAST + 1)]
        with Ec2(address, hosts.network.names[0], machines) as ec2:
            text = without_downloads(filled(account(ec2)))
            # All hosts share two cores.
            yield hosts, ec2, Client(hosts, CLIENT, text.replace("max_workers: 4", "max_workers: 2"), keys)


@pytest.mark.cluster
def test_up_starts_the_head_alone(walk: tuple[Hosts, Ec2, Client]) -> None:
    hosts, ec2, client = walk
    client.run("python", "-m", "fashion", "check", "--cluster", "cluster.yaml", "sweeps/lr.yaml")
    client.up()
    (form,) = ec2.requests("RunInstances")
    (head,) = ec2.alive()
    assert_asked_as_the_file_says(form, "head", [group.id for group in head.security_groups])
    assert client.wait_for_nodes(1) == [(hosts[HEAD].address, 0.0)]
    assert hosts[HEAD].stood_in() == USED


@pytest.mark.cluster
@pytest.mark.timeout(1000)
def test_a_sweep_brings_its_workers_and_outlives_one(walk: tuple[Hosts, Ec2, Client]) -> None:
    """Two of the three types are sold out. A worker that EC2 takes away is replaced."""
    hosts, ec2, client = walk
    ec2.sold_out.update({"g5.xlarge", "g4dn.xlarge"})
    resources = {"gpus_per_worker": 0, "cpus_per_worker": 4, "concurrent_trials": 2}  # one on each
    client.lay_out("s", {**sweep("s", trials=2, epochs=EPOCHS), "resources": resources})
    process = client.start("exec", "cd /mnt/fashion && fashion-sweep run s.yaml --address auto")
    run = hosts.shared / "runs" / "s"
    wait_for_reports(
        process, run / "journal.jsonl", lambda found: {r["trial"] for r in found if r["epoch"] >= 2} >= {0, 1}
    )
    head, *workers = ec2.alive()
    assert [(machine.instance_type, machine.lifecycle) for machine in workers] == [("g6.xlarge", "spot")] * 2
    for form in ec2.requests("RunInstances")[1:]:
        name = next(name for name in WORKERS if TYPES[name]["node_config"]["InstanceType"] == form["InstanceType"])
        assert_asked_as_the_file_says(form, name, [group.id for group in head.security_groups])

    victim = workers[-1]
    ec2.take_back(victim)
    wait_until(lambda: len(ec2.alive()) == 3, "EC2 was asked for another worker")
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    reports = [event["report"] for event in events(run) if event["event"] == "report"]
    assert sorted((each["trial"], each["epoch"]) for each in reports) == [
        (trial, epoch) for trial in range(2) for epoch in range(1, EPOCHS + 1)
    ]
    assert {each["attempt"] for each in reports} == {1, 2}
    assert {trial.status for trial in Run.open(run).trials.values()} == {"completed"}
    head, *workers = ec2.alive()
    assert victim.id not in {machine.id for machine in workers}
    cpus = {head.private_ip: 0.0, **{machine.private_ip: 4.0 for machine in workers}}
    assert client.wait_for_nodes(3) == sorted(cpus.items())


@pytest.mark.cluster
def test_down_ends_every_machine(walk: tuple[Hosts, Ec2, Client]) -> None:
    hosts, ec2, client = walk
    client.ray("down", "--yes")
    assert ec2.alive() == []
    assert len(ec2.machines()) >= 4
    assert not [number for number in range(HEAD, LAST + 1) if hosts[number].running]
