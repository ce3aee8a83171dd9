"""The query of a request. An unknown or repeated parameter is refused: to ignore it would do something else than asked.

A query is percent-encoded as RFC 3986 says, like a path: `+` is a plus sign, and a space is `%20`. HTML forms write a
space as `+`, but a key may begin with `c++`, and must have one spelling.

All queries are parsed here, so that the tests can hold the parameters against `/openapi.json`.
"""

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

from kvstore.api.commands import MAX_KEYS
from kvstore.api.key_range import Span, starting_with
from kvstore.api.limits import MAX_REVISION
from kvstore.api.numbers import InvalidNumberError, parse_integer, parse_seconds
from kvstore.api.queries import Consistency
from kvstore.server.http.problems import INVALID_QUERY, Problem
from kvstore.server.http.request_target import broken_escape_in

_COMMON = {f"consistency={level}": level for level in Consistency}


def parse_query(query: str, known: Collection[str]) -> dict[str, str]:
    """Return the parameters of a query. Raises Problem for one that is not in `known`, or is repeated."""
    if not query:
        return {}
    usage = f"Known here: {', '.join(known) if known else 'none'}."
    found: dict[str, str] = {}
    for pair in query.split("&"):
        name, equals, value = (_decode(part) for part in pair.partition("="))
        if not equals:
            raise Problem(INVALID_QUERY, f"The query is not of the form name=value&name=value. {usage}")
        if name not in known:
            raise Problem(INVALID_QUERY, f"The parameter {name!r} is unknown. {usage}")
        if name in found:
            raise Problem(INVALID_QUERY, f"The parameter {name!r} is repeated. {usage}")
        found[name] = value
    return found


def _decode(escaped: str) -> str:
    """Return a name or a value without its escapes. Raises Problem for a broken one."""
    if "%" not in escaped:
        return escaped
    if (broken := broken_escape_in(escaped)) is not None:
        raise Problem(INVALID_QUERY, f"{broken!r} is not an escape. Write % as %25, and any byte as %XX.")
    return unquote(escaped, errors="surrogateescape")


def refuse_parameters(query: str) -> None:
    """Raise Problem if there is any parameter."""
    parse_query(query, ())


def parse_consistency(query: str) -> Consistency:
    """Return the consistency that the query of a read asks for. Raises Problem for any other parameter."""
    return consistency_in(parse_query(query, ("consistency",)))


def parse_key_read(query: str) -> tuple[Consistency, int | None]:
    """Return the consistency and the revision that the query of a read of a key asks for; None for the present
    revision. Raises Problem."""
    if not query:
        return Consistency.LINEARIZABLE, None
    common = _COMMON.get(query)
    if common is not None:
        return common, None
    found = parse_query(query, ("consistency", "revision"))
    return consistency_in(found), integer_in(found, "revision", 1, MAX_REVISION)


def parse_force(query: str) -> bool:
    """Return whether the query says `force=true`. Raises Problem for any other parameter."""
    return choice_in(parse_query(query, ("force",)), "force", ("false", "true")) == "true"


def parse_key_deletion(query: str) -> tuple[Span, int | None]:
    """Return the keys that a query names, and the most that are to be deleted. Raises Problem for no keys, and for any
    other parameter."""
    found = parse_query(query, ("prefix", "start", "end", "limit"))
    return key_range_in(found), integer_in(found, "limit", 1, MAX_KEYS)


def key_range_in(found: Mapping[str, str]) -> Span:
    """Return the keys that begin with `prefix`, or those from `start` on and before `end`. Raises Problem if neither or
    both are given."""
    prefix, start, end = (bytes_in(found, name) for name in ("prefix", "start", "end"))
    if (prefix is None) == (start is None and end is None):
        detail = "Name the keys by prefix=, or by start= and end= (exclusive). An empty prefix= means all keys."
        raise Problem(INVALID_QUERY, detail)
    return starting_with(prefix) if prefix is not None else Span(start or b"", end)


def consistency_in(found: Mapping[str, str]) -> Consistency:
    """Return the parameter `consistency`. Raises Problem for an unknown value."""
    value = found.get("consistency")
    if value is None:
        return Consistency.LINEARIZABLE
    try:
        return Consistency(value)
    except ValueError:
        known = ", ".join(Consistency)
        raise Problem(INVALID_QUERY, f"consistency={value!r} is unknown. Use one of: {known}.") from None


def choice_in(found: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    """Return the parameter `name`, by default the first value in `known`. Raises Problem for a value that is not."""
    value = found.get(name, known[0])
    if value not in known:
        raise Problem(INVALID_QUERY, f"{name}={value!r} is unknown. Use one of: {', '.join(known)}.")
    return value


def integer_in(found: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """Return the parameter `name`, None if it is not given. Raises Problem unless it is from `least` to `most`."""
    value = found.get(name)
    if value is None:
        return None
    try:
        return parse_integer(value, least, most)
    except InvalidNumberError as error:
        raise Problem(INVALID_QUERY, f"{name}={error}.") from None


def seconds_in(found: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    """Return the parameter `name`, None if it is not given. Raises Problem unless it is from `least` to `most`."""
    value = found.get(name)
    if value is None:
        return None
    try:
        return parse_seconds(value, least, most)
    except InvalidNumberError as error:
        raise Problem(INVALID_QUERY, f"{name}={error}.") from None


def bytes_in(found: Mapping[str, str], name: str) -> bytes | None:
    """Return the bytes of the parameter `name`, None if it is not given."""
    value = found.get(name)
    return value.encode("utf-8", "surrogateescape") if value is not None else None
