"""A server on loopback that speaks Google Cloud Storage's XML API, as documented, in front of moto's S3 server.

That API is S3's but for three things, which are here: conditional requests name generations in place of ETags
(`x-goog-if-generation-match`, with 0 for "does not exist"), deleting an object that does not exist is an error, and
several objects cannot be deleted at once. Everything else (multipart uploads, lists, ranges of bytes) moto answers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers.s3_server import KEY, REGION, Answer, Handler, Server, s3_server

# In place of Google's token: moto reads the access key and checks no signature.
SIGNED = f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/{REGION}/s3/aws4_request, SignedHeaders=host, Signature=0"


class _Google(Handler):
    generations: dict[str, int]
    count: Iterator[int]

    def _headers(self) -> dict[str, str]:
        kept = {name: value for name, value in super()._headers().items() if name.lower() != "authorization"}
        return {**kept, "Authorization": SIGNED}

    def _forward(self, body: bytes) -> Answer:
        url = urlsplit(self.path)
        name, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        if self.command in ("GET", "HEAD"):
            status, headers, content = super()._forward(body)
            return status, [*headers, *self._generation(name, status)], content
        if "delete" in query:
            return _error(400, "InvalidArgument")
        with self.server.writing:
            return self._write(name, query, body)

    def _write(self, name: str, query: dict[str, list[str]], body: bytes) -> Answer:
        current = self.generations.get(name, 0)
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted not in (None, str(current)):
            return _error(412, "PreconditionFailed")
        whole = not query or (self.command == "POST" and "uploadId" in query)  # of an object, no part of an upload
        if self.command == "DELETE" and whole and not current:
            return _error(404, "NoSuchKey")
        status, headers, content = super()._forward(body)
        if whole and status < 300:
            self.generations[name] = 0 if self.command == "DELETE" else next(self.count)
        return status, [*headers, *self._generation(name, status)], content

    def _generation(self, name: str, status: int) -> list[tuple[str, str]]:
        found = self.generations.get(name, 0)
        return [("x-goog-generation", str(found))] if found and status < 300 else []


def _error(status: int, code: str) -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return status, [("Content-Type", "application/xml")], text.encode()


@contextmanager
def google_server() -> Iterator[Server]:
    """A server without buckets. `environment_of` tells processes where it is; otherwise use it as S3's server."""

    class Google(_Google):
        generations: dict[str, int] = {}  # noqa: RUF012 (of this server alone)
        count = itertools.count(1_700_000_000_000_001)

    with s3_server(Google) as server:
        yield server


def environment_of(server: Server) -> dict[str, str]:
    """The environment of processes that are to use this server and no other."""
    account = {
        "gcs_base_url": server.url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": "",
    }  # fmt: skip
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
