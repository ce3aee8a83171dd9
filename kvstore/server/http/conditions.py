"""`If-Match` and `If-None-Match` (RFC 9110, 13.1): a write that is done only if the key is as its sender knows it.

The entity tag of a key is its revision in quotes, and the same on every replica.
"""

import re

from multidict import MultiMapping

from kvstore.api.commands import Compare, Delete, Get, LeasedPut, Put, Record, Relation, Target, Transact
from kvstore.server.http.problems import INVALID_CONDITION, PRECONDITION_FAILED, UNSUPPORTED, Problem

_UNSUPPORTED = ("If-Unmodified-Since", "Content-Range")
"""Headers that change what a write means: to ignore one would do a write that its sender did not ask for."""

_CONDITIONS = ("If-Match", "If-None-Match")

_TAG = re.compile(r'(W/)?"([1-9][0-9]{0,18})"')


def conditions_on(key: bytes, headers: MultiMapping[str]) -> list[Compare]:
    """What the headers ask of `key`. Raises Problem for a condition that cannot be understood."""
    for name in _UNSUPPORTED:
        if name in headers:
            raise Problem(UNSUPPORTED, f"Writes take no {name}. Use If-Match or If-None-Match, or leave it out.")
    return [_compare(key, name, _value(headers, name)) for name in _CONDITIONS if name in headers]


def conditional(command: Put | LeasedPut | Delete, compares: list[Compare]) -> Put | LeasedPut | Delete | Transact:
    """`command` if all of them hold, else a look at its key."""
    return Transact(compares, [command], [Get(command.key)]) if compares else command


def refuse_conditions(headers: MultiMapping[str]) -> None:
    """For writes of many keys. Raises Problem when there is one: to ignore it would do what was not asked for."""
    for name in (*_UNSUPPORTED, *_CONDITIONS):
        if name in headers:
            raise Problem(UNSUPPORTED, f"{name} is for a single key. Compare in POST /txn, or leave it out.")


def failed(present: Record | None) -> Problem:
    """412, with what the key is at."""
    if present is None:
        return Problem(PRECONDITION_FAILED, "Nothing was done: the key is absent.")
    revision = present.revision
    detail = f'Nothing was done: the key is at revision {revision}. GET it, and repeat with If-Match: "{revision}".'
    fields = b'ETag: "%d"\r\nKV-Revision: %d\r\n' % (revision, revision)
    return Problem(PRECONDITION_FAILED, detail, fields=fields)


def not_guarded(name: bytes, fence: int) -> Problem:
    """412, with who holds the lock `name` now: `fence`, 0 for nobody."""
    holder = f"fence {fence} does" if fence else "nobody does"
    lock = name.decode(errors="backslashreplace")
    detail = f"Nothing was done: the fence does not hold the lock {lock} any more, {holder}. Acquire it again."
    return Problem(PRECONDITION_FAILED, detail, about={"fence": fence})


def is_unmodified(headers: MultiMapping[str], record: Record) -> bool:
    """Whether a GET is answered by 304: its sender has this revision already. Raises Problem for a header that cannot
    be understood, and where If-Match asks for another one."""
    wanted, known = (_value(headers, name) if name in headers else None for name in _CONDITIONS)
    if wanted is not None and wanted.strip() != "*" and record.revision not in _revisions("If-Match", wanted):
        raise failed(record)
    return known is not None and (known.strip() == "*" or record.revision in _revisions("If-None-Match", known))


def _value(headers: MultiMapping[str], name: str) -> str:
    """A field that is there several times is one list (RFC 9110, 5.3)."""
    return ", ".join(headers.getall(name, ()))


def _compare(key: bytes, name: str, value: str) -> Compare:
    match = name == "If-Match"
    if value.strip() == "*":
        return Compare(key, Target.EXISTS, Relation.EQUAL, int(match))
    revisions = _revisions(name, value)
    if len(revisions) > 1:
        raise Problem(INVALID_CONDITION, f"A write takes one entity tag in {name}. Use POST /txn to compare more.")
    return Compare(key, Target.REVISION, Relation.EQUAL if match else Relation.NOT_EQUAL, revisions[0])


def _revisions(name: str, value: str) -> list[int]:
    tags = [_TAG.fullmatch(tag.strip()) for tag in value.split(",")]
    if not all(tags):
        usage = f'{name}: "7" for a key at revision 7, as its ETag says, or {name}: * for any'
        raise Problem(INVALID_CONDITION, f"{name} cannot be understood: {value[:80]!r}. Write {usage}.")
    return [int(tag[2]) for tag in tags if tag is not None]
