"""The rules for the body of a request that are checked when its head is complete."""

from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.problems import BODY_TOO_SLOW, EXPECTATION_FAILED, UNSUPPORTED, VALUE_TOO_LARGE, Problem
from kvstore.server.http.request import HttpRequest


def refuse_body(request: HttpRequest, limits: HttpLimits) -> None:
    """Raise Problem for a body that is too long, is encoded for its transfer, or waits for what is never sent."""
    headers = request.headers
    length = headers.get(b"content-length")
    if length is not None:
        if int(length) > limits.max_value_bytes:
            raise too_large(limits)
    elif headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise Problem(UNSUPPORTED, "The only transfer coding taken is chunked. Send the value as it shall be stored.")
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise Problem(EXPECTATION_FAILED, "The only expectation taken is 100-continue. Leave the header Expect out.")


def too_large(limits: HttpLimits) -> Problem:
    """413 for a body over the limit."""
    detail = f"A body has at most {limits.max_value_bytes} bytes. Split it over several keys or requests."
    return Problem(VALUE_TOO_LARGE, detail)


def too_slow(limits: HttpLimits) -> Problem:
    """408 for a body that is not complete in time."""
    detail = f"A body must arrive within {limits.body_timeout_ms} ms after the headers. Send it again, faster."
    return Problem(BODY_TOO_SLOW, detail)
