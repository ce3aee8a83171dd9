"""Answers that go on for as long as there is something to send."""

from aiohttp import HttpVersion11, web

from kvstore.http.problems import MALFORMED, Problem


def refuse_old_http(request: web.BaseRequest) -> None:
    """Raises Problem for HTTP/1.0, in which nobody could tell whether a stream is whole."""
    if request.version < HttpVersion11:
        raise Problem(MALFORMED, "The answer is a stream. Send the request with HTTP/1.1.")
