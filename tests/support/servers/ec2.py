"""moto's EC2 over HTTP. It notes its requests, and test hosts may boot and end with its machines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

import boto3
import pytest
from moto import settings
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from tests.support.machines.hosts import Host
from tests.support.machines.networks import enter, within

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
PORT = 5555
NO_CAPACITY = b"""<?xml version="1.0"?><Response><Errors><Error><Code>InsufficientInstanceCapacity</Code>
<Message>We currently do not have sufficient capacity of what you asked for.</Message></Error></Errors></Response>"""
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Ec2(ThreadedMotoServer):
    """The server, with an empty account.

    asked: the form of every request to EC2, in order. sold_out: instance types without capacity.
    hosts: address -> the host that boots when EC2 starts the machine with that address, and is killed when EC2 ends it.
    namespace: the network namespace in which it listens; None: this process's.
    """

    def __init__(self, address: str, namespace: str | None = None, hosts: Iterable[Host] = ()) -> None:
        super().__init__(address, PORT if namespace else 0, verbose=False)
        self.namespace = namespace
        self.hosts = {host.address: host for host in hosts}
        self.asked: list[dict[str, str]] = []
        self.sold_out: set[str] = set()
        self.patch = pytest.MonkeyPatch()
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        # As in EC2, requests must name images, keys and types that exist.
        for name in ("ENABLE_AMI_VALIDATION", "ENABLE_KEYPAIR_VALIDATION", "EC2_ENABLE_INSTANCE_TYPE_VALIDATION"):
            self.patch.setattr(settings, name, True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for backends in (ec2_backends, iam_backends):
            backends.pop(ACCOUNT, None)
        self.patch.undo()

    @property
    def url(self) -> str:
        host, port = self.get_host_and_port()
        return f"http://{host}:{port}"

    def requests(self, action: str) -> list[dict[str, str]]:
        return [form for form in self.asked if form["Action"] == action]

    def machines(self) -> list[Any]:
        """All machines that ever were, in order."""
        return list(self._backend.all_instances())

    def alive(self) -> list[Any]:
        return [machine for machine in self.machines() if machine.state != "terminated"]

    def take_back(self, machine: Any) -> None:
        """End a spot machine as EC2 does. Its host goes away without warning."""
        with self.lock:
            address = machine.private_ip
            self._backend.terminate_instances([machine.id])
            if address in self.hosts:
                self.hosts[address].lose()

    @property
    def _backend(self) -> Any:
        return ec2_backends[ACCOUNT][REGION]

    def _server_entry(self) -> None:
        if self.namespace:
            enter(self.namespace)
        app = self._noting(DomainDispatcherApplication(create_backend_app))
        self._server = make_server(self._ip_address, self._port, app, threaded=True, request_handler=_Quiet)
        self._server_ready_event.set()
        self._server.serve_forever()

    def _noting(self, app: Wsgi) -> Wsgi:
        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = _Body(body)
            form = dict(parse_qsl(body.decode(errors="replace")))
            if form.get("Version") != "2016-11-15":  # not EC2's
                return app(environ, start_response)
            self.asked.append(form)
            if form["Action"] == "RunInstances" and form["InstanceType"] in self.sold_out:
                start_response("500 Internal Server Error", [("Content-Type", "text/xml")])
                return [NO_CAPACITY]
            said = app(environ, start_response)
            self._follow()
            return said

        return answer

    def _follow(self) -> None:
        """Boot and kill hosts so that those run whose machines run."""
        with self.lock:
            wanted = {machine.private_ip for machine in self.alive()}
            for address, host in self.hosts.items():
                if address in wanted and not host.running:
                    host.boot()
                elif address not in wanted and host.running:
                    host.kill()


class _Quiet(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class _Body:
    """A request's body, which was read already and can be read again."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def read(self, size: int = -1) -> bytes:
        taken = self.body if size < 0 else self.body[:size]
        self.body = self.body[len(taken) :]
        return taken


def env(url: str) -> dict[str, str]:
    """What a process needs to talk to the server at `url`."""
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
    return {**keys, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}


def account(ec2: Ec2) -> dict[str, str]:
    """Makes what docs/cluster.md has the user make once, in a VPC with the test hosts' addresses.

    Returns the ids for cluster.yaml's placeholders: prefix -> id. Machines get addresses from 10.77.0.4 on, in order.
    """
    return within(ec2.namespace, lambda: _account(ec2.url)) if ec2.namespace else _account(ec2.url)


def _account(url: str) -> dict[str, str]:
    session = boto3.Session("testing", "testing", region_name=REGION)
    client, iam = (session.client(name, endpoint_url=url) for name in ("ec2", "iam"))
    vpc = client.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    for number, zone in enumerate("abc"):
        client.create_subnet(VpcId=vpc, CidrBlock=f"10.77.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")
    group = client.create_security_group(GroupName="fashion-sweep", Description="fashion-sweep", VpcId=vpc)["GroupId"]
    client.create_key_pair(KeyName="fashion-sweep")
    for name in ("fashion-sweep-head", "fashion-sweep-worker"):
        iam.create_instance_profile(InstanceProfileName=name)
    image = client.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    return {"ami": image, "sg": group}
