"""The rules for the body of a request that are checked when its head is complete."""

from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.problems import BODY_TOO_SLOW, EXPECTATION_FAILED, UNSUPPORTED, VALUE_TOO_LARGE, Problem
from kvstore.server.http.request import HttpRequest


def refuse_body(request: HttpRequest, limits: HttpLimits) -> None:
    """Raise Problem for a body that is too long, has another transfer coding than chunked, or an unknown
    expectation."""
    headers = request.headers
    length = headers.get(b"content-length")
    if length is not None:
        if _exceeds(length, limits.max_value_bytes):
            raise too_large(limits)
    elif b"transfer-encoding" in headers and headers[b"transfer-encoding"].lower() != b"chunked":
        raise Problem(
            UNSUPPORTED, "The only supported transfer coding is chunked. Send the value as it is to be stored."
        )
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        raise Problem(
            EXPECTATION_FAILED, "The only supported expectation is 100-continue. Leave the header Expect out."
        )


def _exceeds(length: bytes, most: int) -> bool:
    """Return whether the header Content-Length names more than `most` bytes. The parser of HTTP has seen to it that the
    header has digits only, but leading zeros are allowed (RFC 9110, 8.6), and `int` refuses thousands of digits."""
    digits = length.lstrip(b"0")
    return len(digits) > len(str(most)) or int(digits or b"0") > most


def too_large(limits: HttpLimits) -> Problem:
    """Return 413 for a body over the limit."""
    detail = (
        f"A body may have at most {limits.max_value_bytes} bytes (max_value_bytes). Split it into several requests."
    )
    return Problem(VALUE_TOO_LARGE, detail)


def too_slow(limits: HttpLimits) -> Problem:
    """Return 408 for a body that is not complete in time."""
    detail = f"A body must arrive within {limits.body_timeout_ms} ms after the headers. Send the request again."
    return Problem(BODY_TOO_SLOW, detail)
