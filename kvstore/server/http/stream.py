"""Responses of unknown length, sent in chunks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from kvstore.server.http.problems import MALFORMED, Problem
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import StreamedResponse


async def send(
    request: HttpRequest, fields: bytes, chunks: AsyncGenerator[bytes, None], *, endless: bool = False
) -> StreamedResponse:
    """Send all of `chunks`, each after the client has read enough of those before it.

    `fields` are the header lines, each with its CRLF. See ClientConnection for `endless`. Raises Problem before the
    first byte for HTTP/1.0, whose clients could not detect that a stream is incomplete.
    """
    if request.version == "1.0":
        raise Problem(MALFORMED, "The response is a stream. Send the request with HTTP/1.1.")
    client = request.client
    try:
        client.begin_stream(fields, endless=endless)
        async with aclosing(chunks):
            async for chunk in chunks:
                client.write(chunk)
                await client.drain()
        client.end_stream()
    except ConnectionError:
        client.abort()
    except Exception:
        client.abort()  # the client must not take the stream for complete
        raise
    return StreamedResponse(fields)
