"""What a real sweep listens on and writes, and whom a real cluster lets in."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fashion.record.trial_files import MICRO_BATCHES
from tests.support.machines.descendants import descendants
from tests.support.machines.ray_nodes import Nodes, launch
from tests.support.running import PATIENCE, start, wait_for_reports

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("security")]

PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret/9f8e7d6c5b4a",
    "HF_TOKEN": "hf_plantedplantedplanted",
    "WANDB_API_KEY": "planted0123456789abcdef",
    "GITHUB_TOKEN": "ghp_plantedplanted",
}
# Joins a cluster and runs code there, as anybody may who is let in.
CLIENT = """
import logging, sys, ray
from ray._private import ray_constants
# As in the sweep itself; else Ray replaces a loopback address by the machine's other one.
ray_constants.ENABLE_RAY_CLUSTER = False
ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
print("ran", ray.get(ray.remote(num_cpus=0)(lambda: 6 * 7).remote()))
"""


def spec(root: Path, trials: int, epochs: int) -> str:
    return json.dumps(
        {
            "data": {"root": str(root), "resize": 96, "crop": 96},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"epochs": epochs, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]}},
            "search": {"trials": trials},
            "scheduler": {"name": "fifo"},
        }
    )


@dataclass
class Sweep:
    """What was observed of one sweep on this machine, whose second trial failed with a traceback."""

    folder: Path
    logs: Path
    said: str
    listening: list[str]
    strangers: dict[str, subprocess.CompletedProcess[str]]
    token: Path


def client(address: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CLIENT, address], env=env, capture_output=True, text=True, timeout=PATIENCE / 4
    )


def without_ray(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("RAY_")}


def listening_addresses(pids: set[int]) -> list[str]:
    """Local addresses ("127.0.0.1:8265") on which these processes accept TCP connections."""
    shown = subprocess.run(["ss", "-H", "-ltnp"], capture_output=True, text=True, check=True).stdout
    found = []
    for line in shown.splitlines():
        if pids & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}:
            found.append(line.split()[3])
    return found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Iterator[Sweep]:
    if shutil.which("ss") is None:
        pytest.skip("ss (iproute2) is needed to see what listens")
    folder = tmp_path_factory.mktemp("secure")
    temporary = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))  # Ray's logs; sockets need a short path
    home = folder / "home"
    home.mkdir()
    env = {**without_ray(dict(os.environ)), **PLANTED, "HOME": str(home), "RAY_TMPDIR": str(temporary)}
    (folder / "s.yaml").write_text(spec(demo_root, trials=1, epochs=2))
    first = launch(folder, env=env)
    said = "".join(first.communicate(timeout=PATIENCE))
    assert first.returncode == 0, said
    # A damaged file in the next trial's folder: an unforeseen failure, with a traceback.
    (folder / "runs/s/trials/0001").mkdir()
    (folder / "runs/s/trials/0001" / MICRO_BATCHES).write_text("{")
    process = launch(folder, "--trials", "4", "--set", "train.epochs=1000", env=env)
    wait_for_reports(
        process, folder / "runs/s/journal.jsonl", lambda found: any(report["trial"] > 0 for report in found)
    )
    pids = {process.pid, *descendants(process.pid)}
    listening = listening_addresses(pids)
    address = gcs_address(pids)
    wrong = folder / "wrong"
    wrong.write_text("0" * 64)
    token = home / ".ray" / "auth_token"
    # The owner asks first, while the cluster is up: a client of a cluster that is gone waits for minutes.
    token_mode = {**without_ray(env), "RAY_AUTH_MODE": "token", "RAY_gcs_server_port_wait_time_s": "1"}
    strangers = {
        "right": client(address, {**token_mode, "RAY_AUTH_TOKEN_PATH": str(token)}),
        "wrong": client(address, {**token_mode, "RAY_AUTH_TOKEN_PATH": str(wrong)}),
        "without": client(address, {**token_mode, "HOME": str(folder), "RAY_AUTH_MODE": "disabled"}),
    }
    assert process.poll() is None, "the sweep ended too early to refuse anybody"
    # Ray's logs go with the command.
    logs = folder / "ray"
    shutil.copytree(temporary, logs, symlinks=True, ignore=shutil.ignore_patterns("sockets"))
    os.kill(process.pid, signal.SIGINT)
    said += "".join(process.communicate(timeout=PATIENCE))
    assert process.returncode == 130, said
    assert not [path for path in temporary.rglob("*") if path.is_file()], "nothing of Ray's stays"
    yield Sweep(folder, logs, said, listening, strangers, token)
    shutil.rmtree(temporary)


def gcs_address(pids: set[int]) -> str:
    for pid in pids:
        found = re.search(r"--gcs-address=([^\0 ]+)", Path(f"/proc/{pid}/cmdline").read_text())
        if found:
            return found[1]
    raise AssertionError("Ray is not running")


def test_a_stranger_is_refused_and_the_owner_let_in(sweep: Sweep) -> None:
    assert "ran 42" in sweep.strangers["right"].stdout  # so the token is what the others lack
    for who in ("without", "wrong"):
        assert sweep.strangers[who].returncode != 0
        assert "ran" not in sweep.strangers[who].stdout


def test_only_loopback_listens(sweep: Sweep) -> None:
    assert sweep.listening
    # "[::ffff:127.0.0.1]" is an IPv4 address on a dual-stack socket.
    hosts = {address.rpartition(":")[0].strip("[]").removeprefix("::ffff:") for address in sweep.listening}
    assert [host for host in hosts if host == "*" or not ipaddress.ip_address(host).is_loopback] == []


def test_the_token_is_readable_by_its_owner_alone(sweep: Sweep) -> None:
    assert sweep.token.stat().st_mode & 0o777 == 0o600
    assert len(sweep.token.read_text()) == 64


def test_no_secret_is_written(sweep: Sweep) -> None:
    (failure,) = sweep.folder.glob("runs/s/trials/*/error.txt")
    assert "Traceback" in failure.read_text()
    secrets = [*PLANTED.values(), sweep.token.read_text()]
    needles = {secret.encode() for secret in secrets} | {base64.b64encode(secret.encode()) for secret in secrets}
    written = {path: path.read_bytes() for top in (sweep.folder / "runs", sweep.logs) for path in files(top)}
    assert any(path.name.startswith("events") for path in written)
    assert any("raylet" in path.name for path in written)  # Ray's logs are among them
    for place, content in {**written, Path("stdout and stderr"): sweep.said.encode()}.items():
        assert not [needle for needle in needles if needle in content], place


def files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]


def test_a_secret_in_a_spec_is_refused_and_not_repeated(tmp_path: Path, demo_root: Path) -> None:
    planted = json.loads(spec(demo_root, trials=1, epochs=1))
    planted["data"]["token"] = planted["aws_secret_access_key"] = PLANTED["AWS_SECRET_ACCESS_KEY"]
    (tmp_path / "s.yaml").write_text(json.dumps(planted))
    process = start(tmp_path, "s.yaml")
    said = "".join(process.communicate(timeout=PATIENCE))
    assert process.returncode == 2
    assert "data.token: unknown field" in said
    assert "aws_secret_access_key: unknown section" in said
    assert PLANTED["AWS_SECRET_ACCESS_KEY"] not in said
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("token", ["none", "missing", "wrong"])
def test_a_cluster_that_refuses_is_told_so(cluster: Nodes, tmp_path: Path, demo_root: Path, token: str) -> None:
    env = {**without_ray(cluster.env), "HOME": str(tmp_path)}
    if token != "none":
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    if token == "wrong":
        (tmp_path / "token").write_text("0" * 64)
    (tmp_path / "s.yaml").write_text(spec(demo_root, trials=1, epochs=1))
    process = launch(tmp_path, "--address", cluster.address, env=env)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, (out, err)
    assert f"--address {cluster.address}" in err
    assert "token" in err
    assert "Traceback" not in out + err


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.mark.parametrize(("address", "rule"), [("127.0.0.1:1025", "no Ray cluster answers"), ("nonsense", "HOST:PORT")])
def test_an_address_where_nobody_answers_is_told_so(tmp_path: Path, demo_root: Path, address: str, rule: str) -> None:
    (tmp_path / "s.yaml").write_text(spec(demo_root, trials=1, epochs=1))
    process = start(tmp_path, "s.yaml", "--address", address)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, (out, err)
    assert f"--address {address}: " in err
    assert rule in err
    assert "Traceback" not in out + err
