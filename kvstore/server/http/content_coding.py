"""The content coding of a request body (RFC 9110, 8.4): a body is stored and read as it is, without its headers."""

from kvstore.server.http.problems import UNKNOWN_CONTENT_CODING, Problem
from kvstore.server.http.request import HttpRequest

_NO_CODING = frozenset({"identity", ""})


def refuse_coding(request: HttpRequest) -> None:
    """Raise Problem for a body with a content coding: a reader of the value would not learn of it."""
    codings = request.header(b"content-encoding")
    if codings is None or {coding.strip().lower() for coding in codings.split(",")} <= _NO_CODING:
        return
    detail = (
        f"The body has the content coding {codings[:80]!r}, which is not stored with a value. Send the body without "
        "Content-Encoding; a compressed value is stored as it is, and its readers must know that it is compressed."
    )
    raise Problem(UNKNOWN_CONTENT_CODING, detail, fields=b"Accept-Encoding: identity\r\n")
