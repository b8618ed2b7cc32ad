"""cluster.yaml launched on test hosts: stand-ins for what the hosts lack, and the machine where `ray up` is typed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fashion.data.demo import write_demo
from tests.support.cluster_files import CONFIG, FILLED, ROOT
from tests.support.machines.descendants import descendants
from tests.support.machines.host_image import HOME, STAGE
from tests.support.machines.hosts import Hosts, run_within

# Every other command of cluster.yaml runs as it is, `python3 -m venv` and `pip install` among them: the new environment
# has this machine's packages, and the project is installed from the files that the launcher copied. The arguments must
# be those of the file to the letter: a stand-in fails on any others.
MOUNT = f"/bin/mount --bind {STAGE}/shared /mnt/fashion"
STAND_INS = {
    "apt-get": {  # no package mirror is reached from a host; the packages are this machine's
        "-o DPkg::Lock::Timeout=600 -qq update": "true",
        "-o DPkg::Lock::Timeout=600 -qq install --yes python3-venv nfs-common": "true",
    },
    "mount": {  # no NFS server
        "-t nfs4 -o nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport "
        "fs-0123456789abcdef0.efs.us-east-1.amazonaws.com:/ /mnt/fashion": MOUNT,
    },
}
# A host reaches no hub, but these weights are a pip package. The list of weights is in the file once.
SHIPPED_WEIGHTS = '("resnet50", "efficientnet_b3", "efficientnet_v2_s", "convnext_tiny", "convnext_small")'
PIP_WEIGHTS = '("efficientnet_lite0",)'
# For every process of a host: pip finds everything installed and asks no index.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
USED = [f"{name} {words}" for name, cases in STAND_INS.items() for words in cases]

CHECKOUT = f"{HOME}/checkout"
UP = 400  # seconds on a busy machine
# Waits until there are so many nodes, and prints their addresses and CPUs.
NODES = """
import logging, sys, time, ray
ray.init("auto", log_to_driver=False, logging_level=logging.ERROR)
end = time.monotonic() + 300
while len(alive := [n for n in ray.nodes() if n["Alive"]]) < int(sys.argv[1]):
    assert time.monotonic() < end, alive
    time.sleep(0.5)
print("NODES", sorted((n["NodeManagerAddress"], n["Resources"].get("CPU", 0.0)) for n in alive))
"""


def without_downloads(text: str) -> str:
    """A cluster file's text that fetches weights which need no network."""
    changed, times = re.subn(re.escape(SHIPPED_WEIGHTS).replace(r"\ ", r"\s+"), PIP_WEIGHTS, text)
    assert times == 1, "cluster.yaml fetches other weights: change SHIPPED_WEIGHTS"
    return changed


def local_config(head: str, workers: list[str]) -> dict[str, Any]:
    """cluster.yaml for machines that exist already, at these addresses. Only the provider, which knows no machine
    types, and the weights differ from the file."""
    config: dict[str, Any] = yaml.safe_load(without_downloads(FILLED))
    del config["available_node_types"], config["head_node_type"]
    config["provider"] = {"type": "local", "head_ip": head, "worker_ips": workers}
    config["min_workers"] = config["max_workers"] = len(workers)
    return config


class Client:
    """The user's machine. It has this machine's environment, the ssh key, the token, and a checkout in which every
    command
    is typed: the cluster file and the files that it copies to the nodes."""

    def __init__(self, hosts: Hosts, number: int, text: str, env: Mapping[str, str] | None = None) -> None:
        self.host, self.shared = hosts[number], hosts.shared
        self.env = {"PYTHONPATH": CHECKOUT, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", **(env or {})}
        home = self.host.image
        checkout = home / Path(CHECKOUT).relative_to(HOME)
        checkout.mkdir()
        (checkout / "cluster.yaml").write_text(text)
        for name in [name for name in CONFIG["file_mounts"].values() if not name.startswith("~")]:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, checkout / name)
        shutil.copy(hosts.folder / "key", home / Path(CONFIG["auth"]["ssh_private_key"]).relative_to("~"))
        (home / ".ray").mkdir()
        (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        (home / ".ray" / "auth_token").chmod(0o600)
        self.host.boot()

    def run(self, *words: str, seconds: float = 120, fails: bool = False) -> str:
        """Type the command in the checkout; what it prints. It must succeed, or fail if `fails` is true."""
        done = run_within(self.host, shlex.join(words), seconds, CHECKOUT, self.env)
        assert (done.returncode != 0) == fails, f"{shlex.join(words)}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def ray(self, command: str, *words: str, seconds: float = 120) -> str:
        """`ray up`, `ray exec` and so on with the cluster file."""
        return self.run("ray", command, "cluster.yaml", *words, seconds=seconds)

    def up(self) -> None:
        self.ray("up", "--yes", seconds=UP)

    def wait_for_nodes(self, count: int) -> list[tuple[str, float]]:
        """Wait until there are so many nodes, the head among them. Returns the address and CPUs of each."""
        try:
            said = self.ray("exec", f"python -c {shlex.quote(NODES)} {count}", seconds=UP)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.autoscaler_log()}") from error
        found = re.search(r"NODES (\[.*\])", said)
        assert found, said
        return [(address, float(cpus)) for address, cpus in re.findall(r"\('([\d.]+)', ([\d.]+)\)", found[1])]

    def autoscaler_log(self) -> str:
        return self.ray("exec", "tail -n 80 /tmp/ray/session_latest/logs/monitor.*")

    def lay_out(self, name: str, spec: Mapping[str, Any]) -> None:
        """Copy the data and a spec to the shared disk, as docs/cluster.md says."""
        home = self.host.home
        if not (home / "data").exists():
            write_demo(home / "data" / "demo", train=96, val=32, test=24, size=48)
            self.ray("exec", "mkdir -p /mnt/fashion/data")
            self.ray("rsync-up", f"{HOME}/data/demo/", "/mnt/fashion/data/demo/")
        (home / f"{name}.yaml").write_text(json.dumps(spec))
        self.ray("rsync-up", f"{HOME}/{name}.yaml", f"/mnt/fashion/{name}.yaml")

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        """As `ray`, without waiting for its end. Its processes end with the user's machine at the latest."""
        typed = shlex.join(["ray", command, "cluster.yaml", *words])
        return subprocess.Popen(
            self.host.command(f"cd {CHECKOUT} && exec {typed}", self.env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str]) -> None:
        """End what `start` started, as Ctrl-C would."""
        for pid in descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        process.communicate(timeout=60)


def sweep(name: str, trials: int, epochs: int) -> dict[str, Any]:
    """A spec for hosts of one CPU: one trial on each, none stopped early."""
    return {
        "name": name,
        "data": {"root": "data/demo", "resize": 192, "crop": 192},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": epochs, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]}},
        "search": {"trials": trials},
        "scheduler": {"name": "fifo"},
        "resources": {"gpus_per_worker": 0},
    }
