"""Reading the body of a PUT: bounded in length and time, byte for byte as sent."""

import asyncio

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.web_protocol import RequestPayloadError

from kvstore.server.http.limits import Limits
from kvstore.server.http.problems import (
    BODY_TOO_SLOW,
    EXPECTATION_FAILED,
    MALFORMED,
    UNSUPPORTED,
    VALUE_TOO_LARGE,
    Problem,
)


async def read_body(request: web.BaseRequest, limits: Limits) -> bytes:
    """All of the body. Raises Problem when it is too long (unread, when the length was told), too slow or broken."""
    headers = request.headers
    length = headers.get("Content-Length")
    if length is not None:
        if int(length) > limits.max_value_bytes:
            raise _too_large(limits)
    elif headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise Problem(UNSUPPORTED, "The only transfer coding taken is chunked. Send the value as it shall be stored.")
    expectation = headers.get("Expect")
    if expectation is not None and expectation.lower() != "100-continue":
        raise Problem(EXPECTATION_FAILED, "The only expectation taken is 100-continue. Leave the header Expect out.")
    content = request.content
    try:
        if content.is_eof():
            value = content.read_nowait()
        else:
            async with asyncio.timeout(limits.body_timeout_ms / 1000):
                if expectation is not None and request.version == HttpVersion11:
                    await _send_continue(request)
                value = await _receive(content, limits)
    except TimeoutError:
        detail = f"A body must arrive within {limits.body_timeout_ms} ms after the headers. Send it again, faster."
        raise Problem(BODY_TOO_SLOW, detail) from None
    except (OSError, RequestPayloadError) as error:
        raise Problem(MALFORMED, f"The body is broken or ends early: {error}. Send it again, whole.") from None
    if len(value) > limits.max_value_bytes:
        raise _too_large(limits)
    return value


async def _receive(content: StreamReader, limits: Limits) -> bytes:
    value = bytearray()
    while chunk := await content.readany():
        value += chunk
        if len(value) > limits.max_value_bytes:
            raise _too_large(limits)
    return bytes(value)


async def _send_continue(request: web.BaseRequest) -> None:
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # what counts as sent is the answer, and that is still to come


def _too_large(limits: Limits) -> Problem:
    detail = f"A body has at most {limits.max_value_bytes} bytes. Split it over several keys or requests."
    return Problem(VALUE_TOO_LARGE, detail)
