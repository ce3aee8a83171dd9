"""Documents in the bodies of requests."""

from typing import TypeVar

import msgspec

from kvstore.api.json.documents import RequestDocument
from kvstore.server.http.problems import Problem, ProblemKind

T = TypeVar("T", bound=RequestDocument)


def decode(body: bytes, form: type[T], invalid: ProblemKind, usage: str) -> T:
    """Return the document in `body`. Raises the Problem `invalid`, which names the field and the `usage`."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid_body(invalid, str(error), usage) from None


def invalid_body(invalid: ProblemKind, cause: str, usage: str) -> Problem:
    """Return the Problem `invalid` for a body."""
    return Problem(invalid, f"The body is invalid ({cause}). Send {usage}.")
