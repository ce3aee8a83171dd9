"""The rules for the body of a request that are checked when its head is complete."""

from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.problems import BODY_TOO_SLOW, EXPECTATION_FAILED, MALFORMED, VALUE_TOO_LARGE, Problem
from kvstore.server.http.request import HttpRequest

_MAX_DIGITS = 18
"""Digits of the largest body that any setting allows, and more."""


def refuse_body(request: HttpRequest, most: int) -> None:
    """Raise Problem for a body of more than `most` bytes or without an end, and for an unknown expectation."""
    headers = request.headers
    length = headers.get(b"content-length")
    if length is not None and _exceeds(length, most):
        raise too_large(most)
    if length is None and request.version == "1.0" and request.method == "PUT":
        # The bytes of its value would be lost. A POST is refused where it needs a body; others need none.
        raise Problem(MALFORMED, "A PUT of HTTP/1.0 must have Content-Length, 0 for an empty value.")
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        raise Problem(
            EXPECTATION_FAILED, "The only supported expectation is 100-continue. Leave the header Expect out."
        )


def _exceeds(length: bytes, most: int) -> bool:
    """Return whether the header Content-Length names more than `most` bytes. The parser of HTTP has seen to it that the
    header has digits only, but leading zeros are allowed (RFC 9110, 8.6), and `int` refuses thousands of digits."""
    digits = length.lstrip(b"0") or b"0"
    return len(digits) > _MAX_DIGITS or int(digits) > most


def too_large(most: int) -> Problem:
    """Return 413 for a body over the limit."""
    detail = (
        f"The body of this request may have at most {most} bytes (for values and transactions: max_value_bytes). "
        "Split it into several requests."
    )
    return Problem(VALUE_TOO_LARGE, detail)


def too_slow(limits: HttpLimits) -> Problem:
    """Return 408 for a body that is not complete in time."""
    detail = f"A body must arrive within {limits.body_timeout_ms} ms after the headers. Send the request again."
    return Problem(BODY_TOO_SLOW, detail)
