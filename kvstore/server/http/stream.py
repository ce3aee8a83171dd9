"""Responses of unknown length, sent in chunks.

To HTTP/1.0 (nginx speaks it to the servers behind it by default) they are sent as they are, and end with their
connection. So each stream has an end of its own, or ids from which a client continues: a client knows that it has all.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import StreamedResponse, StreamHead


async def send(
    request: HttpRequest, fields: bytes, chunks: AsyncGenerator[bytes, None], *, endless: bool = False
) -> StreamedResponse | StreamHead:
    """Send all of `chunks`, each after the client has read enough of those before it; none of them for HEAD.

    `fields` are the header lines, each with its CRLF. See ClientConnection for `endless`.
    """
    client = request.client
    if request.method == "HEAD":
        await chunks.aclose()
        return StreamHead(fields)
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
