"""`If-Match` and `If-None-Match` (RFC 9110, 13.1): conditions on the revision of a key.

The entity tag of a key is its revision in quotes. It is the same on every replica.
"""

import re
from contextlib import suppress
from typing import NamedTuple

from kvstore.api.commands import Compare, Delete, Get, LeasedPut, Put, Record, Relation, Target, Transact
from kvstore.api.limits import MAX_REVISION
from kvstore.api.numbers import InvalidNumberError, parse_integer
from kvstore.server.http.problems import INVALID_CONDITION, PRECONDITION_FAILED, UNSUPPORTED, Problem
from kvstore.server.http.request import HttpRequest

_CONTENT_RANGE = b"content-range"
_CONDITIONS = {b"if-match": "If-Match", b"if-none-match": "If-None-Match"}
_ALL = {_CONTENT_RANGE: "Content-Range", **_CONDITIONS}
"""Headers that change the meaning of a write, so that they must not be ignored. If-Unmodified-Since must be: a key has
no modification date (RFC 9110, 13.1.4)."""

_MAX_TAGS = 100
_TAG = re.compile(r'[ \t]*(?:(?P<weak>W/)?"(?P<opaque>[^"\x00-\x20\x7f]*)")?[ \t]*(?:,|$)')


class Conditions(NamedTuple):
    """The conditions of a write. It is done if all of `required` hold, and the key is at one of `revisions`, if there
    are any."""

    required: list[Compare]
    revisions: list[int]


def conditions_on(key: bytes, request: HttpRequest) -> Conditions | None:
    """Return the conditions that the headers set on `key`, None without any. Raises Problem for one that cannot be
    understood."""
    headers = request.headers
    if headers.keys().isdisjoint(_ALL):
        return None
    if _CONTENT_RANGE in headers:
        raise Problem(UNSUPPORTED, "Content-Range is not supported: a PUT sets the whole value. Leave it out.")
    required: list[Compare] = []
    revisions: list[int] = []
    wanted, known = request.header(b"if-match"), request.header(b"if-none-match")
    if wanted is not None:
        if wanted.strip() == "*":
            required.append(Compare(key, Target.EXISTS, Relation.EQUAL, 1))
        else:
            revisions = _revisions("If-Match", wanted, weak=False)
            if not revisions:
                required.append(Compare(key, Target.REVISION, Relation.LESS, 0))  # no tag of this store: never holds
    if known is not None:
        if known.strip() == "*":
            required.append(Compare(key, Target.EXISTS, Relation.EQUAL, 0))
        else:
            others = _revisions("If-None-Match", known, weak=True)
            required += [Compare(key, Target.REVISION, Relation.NOT_EQUAL, revision) for revision in others]
    return Conditions(required, revisions)


def conditional(command: Put | LeasedPut | Delete, conditions: Conditions) -> Transact:
    """Return the transaction that does `command` if the conditions hold, and reads its key otherwise."""
    required, revisions, read = conditions.required, conditions.revisions, Get(command.key)
    if len(revisions) <= 1:
        matches = [Compare(command.key, Target.REVISION, Relation.EQUAL, revision) for revision in revisions]
        return Transact([*required, *matches], [command], [read])
    # All comparisons of a transaction must hold, so one of several revisions is what none of them differs from.
    differ = [Compare(command.key, Target.REVISION, Relation.NOT_EQUAL, revision) for revision in revisions]
    inner = Transact(differ, [read], [command])
    return Transact(required, [inner], [read]) if required else inner


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
    holder = f"fencing token {fence} holds it" if fence else "nobody holds it"
    lock = name.decode(errors="backslashreplace")
    detail = f"Nothing was done: this fencing token does not hold the lock {lock} any more; {holder}. Acquire it again."
    return Problem(PRECONDITION_FAILED, detail, about={"fence": fence})


def is_unmodified(request: HttpRequest, record: Record) -> bool:
    """Return whether the client has this revision already, so that a GET is answered by 304. Raises Problem for an
    invalid header, and if If-Match asks for another revision."""
    wanted, known = request.header(b"if-match"), request.header(b"if-none-match")
    matches = wanted is None or wanted.strip() == "*" or record.revision in _revisions("If-Match", wanted, weak=False)
    if not matches:
        raise precondition_failed(record)
    if known is None:
        return False
    return known.strip() == "*" or record.revision in _revisions("If-None-Match", known, weak=True)


def _revisions(name: str, value: str, *, weak: bool) -> list[int]:
    """Return the revisions that the entity tags in a header name; tags of other servers name none. Weak tags count
    where the comparison is `weak` (RFC 9110, 8.8.3.2). Raises Problem for a header that is no list of entity tags."""
    tags: list[re.Match[str]] = []
    at = 0
    while at < len(value):
        tag = _TAG.match(value, at)
        if tag is None:
            raise _invalid(name, value)
        if tag["opaque"] is not None:
            tags.append(tag)
        at = tag.end()
    if not 0 < len(tags) <= _MAX_TAGS:
        raise _invalid(name, value)
    revisions: list[int] = []
    for tag in tags:
        if weak or tag["weak"] is None:
            with suppress(InvalidNumberError):  # a tag of another server
                revisions.append(parse_integer(tag["opaque"], 1, MAX_REVISION))
    return revisions


def _invalid(name: str, value: str) -> Problem:
    usage = (
        f'{name}: "7" for a key at revision 7, as its ETag says, with commas between up to {_MAX_TAGS} of '
        f"them, or {name}: * for any revision"
    )
    return Problem(INVALID_CONDITION, f"{name} is invalid: {value[:80]!r}. Write {usage}.")
