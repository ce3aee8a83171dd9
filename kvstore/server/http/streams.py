"""Answers that go on for as long as there is something to send."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from aiohttp import HttpVersion11, web

from kvstore.server.http.problems import MALFORMED, Problem


async def send(
    request: web.BaseRequest, headers: Mapping[str, str], chunks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """All of `chunks`, already sent, each once the client has taken those before it. Raises Problem before the first
    byte for HTTP/1.0, in which nobody could tell whether a stream is whole."""
    if request.version < HttpVersion11:
        raise Problem(MALFORMED, "The answer is a stream. Send the request with HTTP/1.1.")
    response = web.StreamResponse(
        headers={"Server": "kvstore", **headers}
    )  # aiohttp would tell its version, and Python's
    response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        async with aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        if request.transport is not None:
            request.transport.abort()  # the client is gone: it must not believe that this was all
    return response
