"""`/`, `/docs` and `/openapi.json` as they are served. Each is generated once per process."""

from functools import cache
from hashlib import sha256
from typing import NamedTuple

import msgspec

from kvstore.server.http.openapi.document import BASE, openapi
from kvstore.server.http.openapi.operations import OPERATIONS
from kvstore.server.http.openapi.page import policy, render
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import HttpResponse, NotModified


class Page(NamedTuple):
    """A page that does not change while the process runs. `fields` are its header lines."""

    fields: bytes
    body: bytes

    def response(self, request: HttpRequest) -> HttpResponse:
        """Return the page, or 304 if the client has it."""
        etag = f'"{sha256(self.body).hexdigest()[:16]}"'
        fields = f"ETag: {etag}\r\nCache-Control: no-cache\r\n".encode()
        known = {tag.strip().removeprefix("W/") for tag in (request.header(b"if-none-match") or "").split(",")}
        return NotModified(fields) if known & {etag, "*"} else HttpResponse(200, self.fields + fields, self.body)


@cache
def openapi_page() -> Page:
    """Return `/openapi.json`."""
    return Page(b"Content-Type: application/json\r\n", msgspec.json.encode(openapi()) + b"\n")


@cache
def docs_page() -> Page:
    """Return `/docs`."""
    fields = (
        "Content-Type: text/html; charset=utf-8\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Referrer-Policy: no-referrer\r\n"
        f"Content-Security-Policy: {policy()}\r\n"
    )
    return Page(fields.encode(), render().encode())


@cache
def index() -> bytes:
    """Return `/`: a line for each operation, and two commands to try."""
    lines = [f"  {call.method:<6} {call.path:<26} {call.summary}" for call in OPERATIONS if call.method != "HEAD"]
    return "\n".join(
        [
            "kvstore: a replicated, linearizable key-value store. GET /docs explains each of these operations.",
            "",
            *lines,
            "",
            "A key has 1 to 1,024 bytes; percent-encode those that a URL cannot contain. Try:",
            "",
            f"  curl -X PUT --data-binary 'hello' {BASE}/kv/greeting",
            f"  curl {BASE}/kv/greeting",
            "",
        ]
    ).encode()
