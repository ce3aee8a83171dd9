"""Documents in the bodies of requests."""

from typing import TypeVar

import msgspec

from kvstore.api.json.documents import RequestDocument
from kvstore.api.json.unique_names import RepeatedNameError, refuse_repeated_names
from kvstore.server.http.problems import Problem, ProblemKind

T = TypeVar("T", bound=RequestDocument)


def decode(body: bytes, form: type[T], invalid: ProblemKind, usage: str) -> T:
    """Return the document in `body`. Raises the Problem `invalid`, which names the field and the `usage`."""
    try:
        document = msgspec.json.decode(body, type=form)
        refuse_repeated_names(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RepeatedNameError) as error:
        raise invalid_body(invalid, str(error), usage) from None
    return document


def refuse_fields(body: bytes, invalid: ProblemKind) -> None:
    """Raise the Problem `invalid` for the body of a request that has no fields: they must not be ignored."""
    if body:
        decode(body, RequestDocument, invalid, "an empty body")


def invalid_body(invalid: ProblemKind, cause: str, usage: str) -> Problem:
    """Return the Problem `invalid` for a body."""
    return Problem(invalid, f"The body is invalid ({cause}). Send {usage}.")
