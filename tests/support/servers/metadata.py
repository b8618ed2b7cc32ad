"""The metadata services of EC2 (IMDSv2) and Compute Engine, as documented, on this machine."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

TOKEN = "/latest/api/token"
ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


class Service:
    """Answers requests for `pages` (path -> text).

    EC2: a PUT with a lifetime in a header gets a token. A request without a valid token gets 401, one for a missing
    page 404, and a request for a token through a proxy 403. Compute Engine: requests and answers carry Metadata-Flavor.
    """

    def __init__(self, kind: str = "ec2") -> None:
        self.kind = kind
        self.pages: dict[str, str] = {PREEMPTED: "FALSE"} if kind == "gce" else {}
        self.tokens: dict[str, float] = {}  # token -> when it expires
        self.asked: list[str] = []
        self.broken = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Makes clients ask this server: a test must not ask the real address."""
        return {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.address,
            "GCE_METADATA_HOST": self.address.removeprefix("http://"),
        }

    def announce(self, seconds: float, action: str = "terminate") -> None:
        """Announce the end of the machine in so many seconds (EC2 gives two minutes)."""
        stamp = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.pages[ACTION] = f'{{"action": "{action}", "time": "{stamp}"}}'

    def _handler(service) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                if service.kind != "ec2" or self.path != TOKEN:
                    self._answer(404, "")
                elif self.headers.get("X-Forwarded-For"):
                    self._answer(403, "")
                elif not lifetime.isdecimal() or not 1 <= int(lifetime) <= 21600:
                    self._answer(400, "")
                else:
                    token = secrets.token_urlsafe(40)
                    service.tokens[token] = time.monotonic() + int(lifetime)
                    self._answer(200, token)

            def do_GET(self) -> None:
                service.asked.append(self.path)
                shown = self.headers.get("X-aws-ec2-metadata-token", "")
                if service.broken:
                    self._answer(500, "")
                elif service.kind == "ec2" and service.tokens.get(shown, 0.0) < time.monotonic():
                    self._answer(401, "")
                elif service.kind == "gce" and self.headers.get("Metadata-Flavor") != "Google":
                    self._answer(403, "")
                elif self.path not in service.pages:
                    self._answer(404, "<html>Not Found</html>")
                else:
                    self._answer(200, service.pages[self.path])

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                if service.kind == "gce":
                    self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler
