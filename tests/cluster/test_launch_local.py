"""cluster.yaml for real, on test hosts: `ray up`, sweeps through `ray exec`, a worker lost, `ray down`.

The file's own set-up and start commands, through the launcher's `local` provider. What a host lacks is listed in
`launching`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from fashion.record.run import Run
from tests.support.cluster_files import CONFIG, SHIPPED, prepared
from tests.support.machines.host_image import HOME
from tests.support.machines.hosts import Hosts, run_within
from tests.support.machines.launching import OFFLINE, STAND_INS, USED, Client, local_config, sweep, without_downloads
from tests.support.running import PATIENCE, events, wait_for_reports

# Waits until the dashboard's port answers.
ANSWERS = """
import socket, time
while True:
    try:
        socket.create_connection(("127.0.0.1", 8265), 1).close()
        break
    except OSError:
        time.sleep(0.2)
"""
CLIENT, HEAD, FIRST, SECOND = range(1, 5)


def test_the_hosts_get_the_shipped_file() -> None:
    config = local_config("10.0.0.1", ["10.0.0.2"])
    changed = {
        "provider",
        "available_node_types",
        "head_node_type",
        "min_workers",
        "max_workers",
        "head_setup_commands",
    }
    assert {key for key in {**CONFIG, **config} if config.get(key) != CONFIG.get(key)} == changed
    assert len(config["head_setup_commands"]) == len(CONFIG["head_setup_commands"])
    after = prepared(yaml.safe_dump(config))
    assert after["provider"] == config["provider"]
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert after[key] == CONFIG[key]


def test_a_change_of_the_weights_is_noticed() -> None:
    with pytest.raises(AssertionError, match="SHIPPED_WEIGHTS"):
        without_downloads(SHIPPED.replace('"resnet50"', '"resnet101"'))


def test_every_stand_in_takes_one_commands_place() -> None:
    commands = [command for command in CONFIG["setup_commands"] if "sudo " in command]
    stood_for = [command for command in commands if any(f"sudo {used}" in command for used in USED)]
    assert [sum(f"sudo {used}" in command for command in commands) for used in USED] == [1] * len(USED)
    # the rest is done on a host as on a machine
    rest = [re.findall(r"sudo (\S+)", command) for command in commands if command not in stood_for]
    assert rest == [["mkdir"], ["chown"]]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(5, STAND_INS, OFFLINE) as network:
        yield network


@pytest.fixture(scope="module")
def client(hosts: Hosts) -> Client:
    """Where `ray up` was typed; the cluster is up."""
    for number in (HEAD, FIRST, SECOND):
        hosts[number].boot()
    config = local_config(hosts[HEAD].address, [hosts[FIRST].address, hosts[SECOND].address])
    client = Client(hosts, CLIENT, yaml.safe_dump(config))
    client.up()
    return client


@pytest.mark.cluster
def test_all_nodes_come_up_with_the_environment(hosts: Hosts, client: Client) -> None:
    nodes = client.wait_for_nodes(3)
    cpus = {HEAD: 0.0, FIRST: 1.0, SECOND: 1.0}
    assert nodes == [(hosts[number].address, count) for number, count in cpus.items()]
    for number in cpus:
        assert hosts[number].stood_in() == USED
        found = run_within(
            hosts[number], '. ~/.fashion-sweep && cd / && python -c "import fashion; print(fashion)"', 60
        )
        assert f"'{HOME}/fashion-sweep/fashion/__init__.py'" in found.stdout
        token = hosts[number].home / ".ray" / "auth_token"
        assert token.read_text() == (client.host.home / ".ray" / "auth_token").read_text()
        assert token.stat().st_mode & 0o077 == 0


@pytest.mark.cluster
def test_doctor_finds_all_nodes_well(client: Client) -> None:
    client.lay_out("s", sweep("s", trials=3, epochs=12))
    said = client.ray("exec", "cd /mnt/fashion && fashion-sweep doctor s.yaml --address auto")
    assert "checks on 4 nodes: " in said  # the cluster's and the machine where it is typed


@pytest.mark.cluster
def test_a_driver_off_the_cluster_is_told_where_to_go(hosts: Hosts, client: Client) -> None:
    """Ray needs a node beside a driver, and looks for one for a minute."""
    address = f"{hosts[HEAD].address}:6379"
    command = ["python", "-m", "fashion", "run", "sweeps/quickstart.yaml", f"--address={address}"]
    data = ["--set", f"data.root={HOME}/data/demo", "--set", f"storage={HOME}/runs"]
    said = client.run(*command, *data, seconds=50, fails=True)
    assert "this machine is no node of a Ray cluster" in said
    assert "Traceback" not in said


@pytest.mark.cluster
def test_a_sweep_outlives_a_worker_and_its_results_are_read(hosts: Hosts, client: Client) -> None:
    process = client.start("exec", f"cd /mnt/fashion && fashion-sweep run s.yaml --address {hosts[HEAD].address}:6379")
    run = hosts.shared / "runs" / "s"
    wait_for_reports(
        process, run / "journal.jsonl", lambda found: {r["trial"] for r in found if r["epoch"] >= 2} >= {0, 1}
    )
    hosts[SECOND].lose()
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    reports = [event["report"] for event in events(run) if event["event"] == "report"]
    assert sorted((each["trial"], each["epoch"]) for each in reports) == [
        (trial, epoch) for trial in range(3) for epoch in range(1, 13)
    ]
    assert {each["attempt"] for each in reports} == {1, 2}
    assert {trial.status for trial in Run.open(run).trials.values()} == {"completed"}
    client.ray("exec", "cd /mnt/fashion && fashion-sweep best s --predict")
    client.run("mkdir", "-p", f"{HOME}/runs")
    client.ray("rsync-down", "/mnt/fashion/runs/s/", f"{HOME}/runs/s/")
    prediction = client.host.home / "runs" / "s" / "predictions" / "test" / "prediction.txt"
    assert len(prediction.read_text().splitlines()) == 24
    assert "3 trials" in client.run("python", "-m", "fashion", "show", f"{HOME}/runs/s")


@pytest.mark.cluster
def test_a_sweep_is_submitted_through_the_heads_dashboard(hosts: Hosts, client: Client) -> None:
    """As docs/cluster.md says: `ray dashboard` forwards the head's job server to the user's machine."""
    (client.host.home / "far.yaml").write_text(json.dumps(sweep("far", trials=2, epochs=1)))
    tunnel = client.start("dashboard")
    client.run("python", "-c", ANSWERS)
    said = client.run("python", "-m", "fashion", "submit", f"{HOME}/far.yaml", "--folder", "/mnt/fashion")
    client.end(tunnel)
    assert "far is done" in said
    assert {trial.status for trial in Run.open(hosts.shared / "runs" / "far").trials.values()} == {"completed"}


@pytest.mark.cluster
def test_down_leaves_nothing_running(hosts: Hosts, client: Client) -> None:
    """The head's processes end at once. A worker of the local provider is not told: its Ray ends when it finds no head
    any more. Its log monitor stays until the `ray stop` before the next start."""
    client.ray("down", "--yes")
    assert hosts[HEAD].left_after(30) == []
    assert hosts[FIRST].left_after(150, but="/ray/_private/log_monitor.py") == []
