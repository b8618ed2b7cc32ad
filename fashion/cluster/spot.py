"""A spot machine's termination notice: read from the cloud's metadata service and passed on to Ray, which then drains.

Ray itself does not ask for it. Sweeps leave a draining node: their trials go on elsewhere, and it is not counted as a
failure.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from fashion.cluster.processes import Daemon, raylets
from fashion.errors import UserError, printable

METADATA = "http://169.254.169.254"  # on EC2 and on Compute Engine
ANSWER_SECONDS = 2.0  # the service is on the machine itself or close to it
TRIES = 3  # before a metadata service counts as absent: a booting machine may have no network yet
TOKEN_SECONDS = 21600  # the longest that EC2 allows

NOTICE_SECONDS = 120.0  # how early EC2 gives notice, if it does not say when
RAYLET_SECONDS = 300.0  # how long to wait for the node to come up
DRAIN_SECONDS = 60.0  # for Ray's command, which spends most of them on starting
RETRY_SECONDS = 2.0
# Ray counts a node that disappears after its deadline as preempted, and one that disappears before it as lost.
MARGIN_SECONDS = 10.0


class SpotError(UserError):
    """This machine gets no notices, or has no Ray node to drain."""


@dataclass(frozen=True)
class Notice:
    """What the cloud will do with this machine ("terminate"), and when (seconds since the epoch)."""

    action: str
    time: float


class Cloud(Protocol):
    """A metadata service. `seconds` is how long to wait between two questions."""

    name: str
    seconds: float

    def notice(self) -> Notice | None:
        """The notice, if there is one. Raises OSError or HTTPException where the service does not answer."""

    def advice(self) -> str:
        """What the service says short of a notice; empty if it says nothing."""


class Ec2:
    """Amazon's service, version 2: every request carries a token, which is requested first and expires.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """

    name, seconds = "EC2", 5.0  # as Amazon recommends

    def __init__(self, address: str) -> None:
        self.address, self.token = address, ""

    def there(self) -> bool:
        """Whether it answers like EC2's. Keeps the token."""
        status, text, _ = ask(self.address, "PUT", "/latest/api/token", self._ttl())
        self.token = text if status == 200 else ""
        return bool(self.token)

    def notice(self) -> Notice | None:
        said = self._get("/latest/meta-data/spot/instance-action")
        if not said:
            return None
        try:
            found = json.loads(said)
            return Notice(str(found["action"]), datetime.fromisoformat(found["time"]).timestamp())
        except (ValueError, TypeError, KeyError):
            # Whatever it says, only a notice is ever found here.
            return Notice(f"take ({printable(' '.join(said.split())[:80])})", time.time() + NOTICE_SECONDS)

    def advice(self) -> str:
        said = self._get("/latest/meta-data/events/recommendations/rebalance")
        return f"EC2 recommends to rebalance: {printable(' '.join(said.split())[:80])}" if said else ""

    def _get(self, path: str) -> str:
        """The text at this path; empty if there is none."""
        for _ in range(2):
            status, text, _headers = ask(self.address, "GET", path, {"X-aws-ec2-metadata-token": self.token})
            if status == 200:
                return text
            if status == 404:
                return ""
            if status != 401 or not self.there():  # 401: the token has expired
                break
        raise http.client.HTTPException(f"{path}: HTTP {status}")

    @staticmethod
    def _ttl() -> dict[str, str]:
        return {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}


class Gce:
    """Google's service: it says TRUE on a machine that is preempted, which is switched off 30 s later.

    https://docs.cloud.google.com/compute/docs/instances/create-use-preemptible
    """

    name, seconds = "Compute Engine", 1.0

    def __init__(self, address: str) -> None:
        self.address = address

    def there(self) -> bool:
        status, _, headers = self._ask()
        return status == 200 and headers.get("Metadata-Flavor") == "Google"

    def notice(self) -> Notice | None:
        status, text, _ = self._ask()
        if status != 200:
            raise http.client.HTTPException(f"HTTP {status}")
        return Notice("preempt", time.time() + 30) if text.strip() == "TRUE" else None

    def advice(self) -> str:
        return ""

    def _ask(self) -> tuple[int, str, http.client.HTTPMessage]:
        return ask(self.address, "GET", "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})


def ask(address: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers of a metadata service's answer, past all proxies. Raises OSError or HTTPException."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(65536).decode(errors="replace"), answer.headers
    finally:
        connection.close()


def find_cloud(environment: dict[str, str] | None = None, sleep: Callable[[float], None] = time.sleep) -> Ec2 | Gce:
    """The metadata service of this machine.

    AWS_EC2_METADATA_SERVICE_ENDPOINT (a URL) and GCE_METADATA_HOST (HOST:PORT) replace the usual address, as they do
    for the clouds' own clients. Raises SpotError where no service answers.
    """
    names = os.environ if environment is None else environment
    host = names.get("GCE_METADATA_HOST")
    clouds = (
        Ec2(names.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA)),
        Gce(f"http://{host}" if host else METADATA),
    )
    for left in reversed(range(TRIES)):
        for cloud in clouds:
            try:
                if cloud.there():
                    return cloud
            except (OSError, http.client.HTTPException):
                pass  # the error below says so if none answers in the end
        if left:
            sleep(RETRY_SECONDS)
    addresses = sorted({cloud.address for cloud in clouds})
    raise SpotError(
        f"{', '.join(addresses)}: no metadata service of EC2 or Compute Engine answers, so this machine gets no notice "
        "before it is taken away. Machines that are never taken away do not need spot-watch."
    )


def find_raylet(
    node_id: str = "", seconds: float = RAYLET_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Daemon:
    """The Ray node on this machine, once it has come up.

    Raises SpotError where none comes up within `seconds`, or where there are several and `node_id` does not name one.
    """
    end = time.monotonic() + seconds
    while True:
        found = [each for each in raylets() if not node_id or each.option("node_id") == node_id]
        if len(found) == 1:
            return found[0]
        if found:
            nodes = ", ".join(sorted(each.option("node_id") for each in found))
            raise SpotError(
                f"{len(found)} Ray nodes run on this machine: choose one with --node-id. There are {nodes}."
            )
        if time.monotonic() > end:
            raise SpotError(
                f"no Ray node{f' {node_id}' if node_id else ''} came up on this machine within {seconds:g} s."
            )
        sleep(1.0)


def watch(
    cloud: Cloud, raylet: Daemon, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Notice | None:
    """Ask until there is a notice, then drain the node.

    Returns the notice once Ray has accepted it, None if the node ends before that. A service or a GCS that does not
    answer is reported once and asked again.
    """
    said = ""
    while raylet.alive():
        notice, trouble = None, ""
        try:
            notice = cloud.notice()
            trouble = cloud.advice()
        except (OSError, http.client.HTTPException) as error:
            trouble = f"{cloud.name}'s metadata service: {type(error).__name__}: {error}"
        if notice:
            say(f"{cloud.name} will {notice.action} this machine in {notice.time - time.time():.0f} s")
            return notice if _drain_until_taken(raylet, cloud, notice, say, sleep) else None
        if trouble and trouble != said:
            say(trouble)
        said = trouble
        sleep(cloud.seconds)
    return None


def _drain_until_taken(
    raylet: Daemon, cloud: Cloud, notice: Notice, say: Callable[[str], None], sleep: Callable[[float], None]
) -> bool:
    while raylet.alive():
        refused = drain(raylet, notice, f"{cloud.name}: {notice.action}")
        if not refused:
            return True
        say(f"not passed on yet: {refused}")
        sleep(RETRY_SECONDS)
    return False


def drain(raylet: Daemon, notice: Notice, message: str) -> str:
    """Tell Ray that the node will be taken away. Returns why Ray did not accept that; empty if it did.

    This runs Ray's command in a process of its own, since a client in this process would end it when the GCS is away
    for a while.
    """
    left = max(math.floor(notice.time - time.time() - MARGIN_SECONDS), 1)
    try:
        done = subprocess.run(
            [
                sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={raylet.option('gcs-address')}",
                f"--node-id={raylet.option('node_id')}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
                f"--reason-message={message}", f"--deadline-remaining-seconds={left}",
            ],
            capture_output=True, text=True, timeout=DRAIN_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer from {raylet.option('gcs-address')} within {DRAIN_SECONDS:g} s"
    return "" if done.returncode == 0 else (done.stderr + done.stdout).strip().rpartition("\n")[2] or "no reason given"
