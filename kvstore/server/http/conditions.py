"""`If-Match` and `If-None-Match` (RFC 9110, 13.1): conditions on the revision of a key.

The entity tag of a key is its revision in quotes. It is the same on every replica.
"""

import re

from kvstore.api.commands import Compare, Delete, Get, LeasedPut, Put, Record, Relation, Target, Transact
from kvstore.server.http.problems import INVALID_CONDITION, PRECONDITION_FAILED, UNSUPPORTED, Problem
from kvstore.server.http.request import HttpRequest

_UNSUPPORTED = {b"if-unmodified-since": "If-Unmodified-Since", b"content-range": "Content-Range"}
"""Headers that change the meaning of a write, so that they must not be ignored."""

_CONDITIONS = {b"if-match": "If-Match", b"if-none-match": "If-None-Match"}
_ALL = {**_UNSUPPORTED, **_CONDITIONS}

_TAG = re.compile(r'(W/)?"([1-9][0-9]{0,18})"')


def conditions_on(key: bytes, request: HttpRequest) -> list[Compare]:
    """Return the conditions that the headers set on `key`. Raises Problem for one that cannot be understood."""
    headers = request.headers
    if headers.keys().isdisjoint(_ALL):
        return []
    for header, name in _UNSUPPORTED.items():
        if header in headers:
            raise Problem(
                UNSUPPORTED, f"{name} is not supported for writes. Use If-Match or If-None-Match, or leave it out."
            )
    return [
        _compare(key, name, value)
        for header, name in _CONDITIONS.items()
        if (value := request.header(header)) is not None
    ]


def conditional(command: Put | LeasedPut | Delete, compares: list[Compare]) -> Transact:
    """Return the transaction that does `command` if all of `compares` hold, and reads its key otherwise."""
    return Transact(compares, [command], [Get(command.key)])


def refuse_conditions(request: HttpRequest) -> None:
    """Raise Problem for a condition on a write of many keys: it must not be ignored."""
    for header, name in _ALL.items():
        if header in request.headers:
            raise Problem(
                UNSUPPORTED, f"{name} is supported for single keys only. Use a compare in POST /txn, or leave it out."
            )


def precondition_failed(present: Record | None) -> Problem:
    """Return 412 with the present revision of the key."""
    if present is None:
        return Problem(PRECONDITION_FAILED, "Nothing was done: the key does not exist.")
    revision = present.revision
    detail = (
        f'Nothing was done: the key is at revision {revision}. GET the key, and repeat with If-Match: "{revision}".'
    )
    fields = b'ETag: "%d"\r\nKV-Revision: %d\r\n' % (revision, revision)
    return Problem(PRECONDITION_FAILED, detail, fields=fields)


def lock_lost(name: bytes, fence: int) -> Problem:
    """Return 412 with the fencing token that holds the lock `name` now, 0 for none."""
    holder = f"fence {fence} holds it" if fence else "nobody holds it"
    lock = name.decode(errors="backslashreplace")
    detail = f"Nothing was done: this fence does not hold the lock {lock} any more; {holder}. Acquire it again."
    return Problem(PRECONDITION_FAILED, detail, about={"fence": fence})


def is_unmodified(request: HttpRequest, record: Record) -> bool:
    """Return whether the client has this revision already, so that a GET is answered by 304. Raises Problem for an
    invalid header, and if If-Match asks for another revision."""
    wanted, known = request.header(b"if-match"), request.header(b"if-none-match")
    if wanted is not None and wanted.strip() != "*" and record.revision not in _revisions("If-Match", wanted):
        raise precondition_failed(record)
    return known is not None and (known.strip() == "*" or record.revision in _revisions("If-None-Match", known))


def _compare(key: bytes, name: str, value: str) -> Compare:
    match = name == "If-Match"
    if value.strip() == "*":
        return Compare(key, Target.EXISTS, Relation.EQUAL, int(match))
    revisions = _revisions(name, value)
    if len(revisions) > 1:
        raise Problem(
            INVALID_CONDITION, f"A write supports one entity tag in {name}. Use POST /txn for more conditions."
        )
    return Compare(key, Target.REVISION, Relation.EQUAL if match else Relation.NOT_EQUAL, revisions[0])


def _revisions(name: str, value: str) -> list[int]:
    tags = [_TAG.fullmatch(tag.strip()) for tag in value.split(",")]
    if not all(tags):
        usage = f'{name}: "7" for a key at revision 7, as its ETag says, or {name}: * for any revision'
        raise Problem(INVALID_CONDITION, f"{name} is invalid: {value[:80]!r}. Write {usage}.")
    return [int(tag[2]) for tag in tags if tag is not None]
