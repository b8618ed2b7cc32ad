"""The S3 server of these tests: moto's, on loopback, behind a proxy that can be told to fail.

    with s3_server() as server:
        server.make_bucket("sweeps")
        server.faults.fail(503)  # until server.faults.heal()

The server speaks S3's protocol over HTTP, so clients get real answers. It keeps objects in the memory of a process of
its own, which nothing that a test does to its process can reach. `server.env` is the environment that a process needs
to find it; `environment` sets it for this process.
"""

from __future__ import annotations

import atexit
import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY, SECRET, REGION = "testing", "testing-secret", "us-east-1"
CODES = {  # status -> S3's own code and message
    403: ("AccessDenied", "Access Denied"),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the connection ends with a reset
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Faults:
    """What the proxy does to requests from now on. `only` confines it to these methods ("PUT"), `named` to paths that
    contain this, `times` to so many requests."""

    status: int = 0
    code: str = ""
    seconds: float = 0.0
    how: str = ""  # where the connection is cut: "within" the request, or "after" it was carried out
    refused: bool = False
    only: tuple[str, ...] = ()
    named: str = ""
    times: int = -1
    met: int = 0  # requests that met a fault
    lock: Any = field(default_factory=threading.Lock, repr=False)

    def fail(self, status: int = 503, code: str = "", **confined: Any) -> None:
        """Answer with this status and, in the body, S3's code for it (`ExpiredToken` goes with 400)."""
        self._set(status=status, code=code, **confined)

    def delay(self, seconds: float, **confined: Any) -> None:
        """Let each request wait before it is carried out."""
        self._set(seconds=seconds, **confined)

    def cut(self, how: str = "within", **confined: Any) -> None:
        """Cut the connection: "within" the request's body, so that it has no effect, or "after" the request was carried
        out, in place of the answer."""
        self._set(how=how, **confined)

    def refuse(self, **confined: Any) -> None:
        """Close each connection as soon as its request begins, as if nobody listened."""
        self._set(refused=True, **confined)

    def heal(self) -> None:
        """No more faults. `met` stays as it is."""
        self._set()

    def _set(
        self, status: int = 0, code: str = "", seconds: float = 0.0, how: str = "", refused: bool = False,
        only: tuple[str, ...] = (), named: str = "", times: int = -1,
    ) -> None:  # fmt: skip
        with self.lock:
            self.status, self.code, self.seconds, self.how, self.refused = status, code, seconds, how, refused
            self.only, self.named, self.times = only, named, times

    def meets(self, method: str, path: str) -> Faults | None:
        """What is done to this request; None if it is let through."""
        with self.lock:
            idle = not (self.status or self.seconds or self.how or self.refused)
            if idle or self.times == 0 or (self.only and method not in self.only) or self.named not in path:
                return None
            self.times -= 1 if self.times > 0 else 0
            self.met += 1
            return Faults(self.status, self.code, self.seconds, self.how, self.refused)


class Server:
    """url: the proxy's. requests: (method, path) of every request so far, in order."""

    def __init__(self, url: str, moto_url: str, faults: Faults) -> None:
        self.url, self.moto_url, self.faults = url, moto_url, faults
        self.requests: list[tuple[str, str]] = []
        self.ignores_conditions = False  # as stores do that have no conditional writes

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes that are to use this server and no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self) -> Any:
        """boto3's client, past the proxy: a test itself reads and writes through it, whatever the faults."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.moto_url, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )

    def make_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name)

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """The objects of a bucket whose names begin with `prefix`, sorted."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", []))

    def read(self, bucket: str, name: str) -> bytes:
        content: bytes = self.client().get_object(Bucket=bucket, Key=name)["Body"].read()
        return content

    def write(self, bucket: str, name: str, content: bytes) -> None:
        self.client().put_object(Bucket=bucket, Key=name, Body=content)


@contextmanager
def s3_server(handler: type[Handler] | None = None) -> Iterator[Server]:
    """A server without buckets, on a free port. `handler` may put another protocol in front of it."""
    faults = Faults()
    proxy = Proxy(("127.0.0.1", 0), handler or Handler)
    server = Server(f"http://127.0.0.1:{proxy.server_address[1]}", _moto(), faults)
    proxy.told = server
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    _reset(server)  # moto's process outlives a server, so an earlier server may have left something
    try:
        yield server
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        _reset(server)


MOTO = """
import sys
from moto.server import ThreadedMotoServer
moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
moto.start()
print("http://{}:{}".format(*moto.get_host_and_port()), flush=True)
sys.stdin.read()  # ends with the process that holds the other end
"""


@cache
def _moto() -> str:
    """The URL of moto's server, which lasts as long as this process: starting one takes over a second."""
    command = [sys.executable, "-c", MOTO]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.communicate)  # closes its standard input, and waits
    return process.stdout.readline().decode().strip()


def _reset(server: Server) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{server.moto_url}/moto-api/reset", method="POST")).close()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Within, this process's environment has these values, and no other credentials of AWS."""
    patch = pytest.MonkeyPatch()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        patch.delenv(name, raising=False)
    for name, value in values.items():
        patch.setenv(name, value)
    try:
        yield
    finally:
        patch.undo()


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    told: Server
    # S3 compares and writes in one step, moto in two, so conditional writes are carried out one by one.
    writing = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that end mid-request are what this proxy is for."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _any(self) -> None:
        told = self.server.told
        told.requests.append((self.command, self.path))
        fault = told.faults.meets(self.command, self.path)
        if fault is not None and fault.refused:
            return self._hang_up()
        if fault is not None and fault.how == "within":
            self._body(part=True)
            return self._hang_up()
        body = self._body()
        if fault is not None and fault.seconds:
            time.sleep(fault.seconds)
        if fault is not None and fault.status:
            return self._refuse(fault)
        conditional = self.headers.get("If-Match") or self.headers.get("If-None-Match")
        if conditional and self.command in ("PUT", "POST"):
            with self.server.writing:
                status, headers, content = self._forward(body)
        else:
            status, headers, content = self._forward(body)
        if fault is not None and fault.how == "after":
            return self._hang_up()
        self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815

    def _forward(self, body: bytes) -> Answer:
        host = self.server.told.moto_url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=self._headers())
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        """The request's, as they are forwarded."""
        # The signature covers the Host header, so that it stays the proxy's.
        dropped = HOP - {"date"} | ({"if-match", "if-none-match"} if self.server.told.ignores_conditions else set())
        return {name: value for name, value in self.headers.items() if name.lower() not in dropped}

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value  # of what a GET would bring
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, fault: Faults) -> None:
        code, message = CODES.get(fault.status, ("BadRequest", "Bad request"))
        if fault.code == "ExpiredToken":
            message = "The provided token has expired."
        code = fault.code or code
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        self._answer(fault.status, [("Content-Type", "application/xml")], text.encode())

    def _body(self, part: bool = False) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks(part)
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(min(length // 2, 1 << 16) if part else length)

    def _chunks(self, part: bool) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
            if part:
                return found
        while self.rfile.readline().strip():
            pass
        return found

    def _hang_up(self) -> None:
        """Reset the connection, so that the other side learns of it at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.connection.close()
