"""The request target: which path, which key, which query. Nothing in a path is ever normalised."""

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl, unquote_to_bytes

from kvstore.api.key_range import Span, starting_with
from kvstore.api.limits import MAX_KEY_BYTES, MAX_REVISION, RESERVED_KEY
from kvstore.api.queries import Consistency
from kvstore.server.http.problems import INVALID_KEY, INVALID_QUERY, MALFORMED, Problem

_MOST_DIGITS = 19

_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_CONSISTENCIES = {f"consistency={way}": way for way in Consistency}


def split(target: str) -> tuple[str, str]:
    """Path and query of a request target in origin form (`/kv/a?x`) or absolute form (`http://host/kv/a?x`).

    Raises Problem for one with a fragment, which no client may send.
    """
    if not target.startswith("/"):
        target = _AUTHORITY.sub("", target, count=1)
        if target[:1] in ("", "?"):
            target = "/" + target
    if "#" in target:
        raise Problem(MALFORMED, "A request target has no fragment. Write # in a key as %23.")
    path, _, query = target.partition("?")
    return path, query


def decode_key(escaped: str) -> bytes:
    """The bytes of a key, or of the name of a lock. Raises Problem when an escape is broken, it is not 1 to 1,024 bytes
    long, or begins with byte 0."""
    if "%" in escaped:
        broken = _BROKEN_ESCAPE.search(escaped)
        if broken is not None:
            escape = escaped[broken.start() : broken.start() + 3]
            raise Problem(INVALID_KEY, f"{escape!r} is not an escape. Write % in a key as %25, any byte as %XX.")
        key = unquote_to_bytes(escaped)
    else:
        key = escaped.encode("utf-8", "surrogateescape")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise Problem(INVALID_KEY, f"The key has {len(key)} bytes. Use 1 to {MAX_KEY_BYTES}, as in /kv/my-key.")
    if key.startswith(b"\0"):
        raise Problem(INVALID_KEY, RESERVED_KEY)
    return key


def consistency_of(query: str) -> Consistency:
    """What the query of a read asks for. Raises Problem on any other parameter or value."""
    return consistency_named(parameters(query, ("consistency",)))


def point_of(query: str) -> tuple[Consistency, int | None]:
    """What the query of a read of a key asks for: how current, or as of which revision."""
    if not query:
        return Consistency.LINEARIZABLE, None
    common = _CONSISTENCIES.get(query)
    if common is not None:
        return common, None
    found = parameters(query, ("consistency", "revision"))
    return consistency_named(found), number_named(found, "revision", 1, MAX_REVISION)


def consistency_named(found: Mapping[str, str]) -> Consistency:
    """The parameter of this name. Raises Problem when it is not known."""
    value = found.get("consistency")
    if value is None:
        return Consistency.LINEARIZABLE
    try:
        return Consistency(value)
    except ValueError:
        known = ", ".join(Consistency)
        raise Problem(INVALID_QUERY, f"consistency={value!r} is not known. Use one of: {known}.") from None


def one_of(found: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    """The parameter `name`, by default the first of those that are known. Raises Problem for another one."""
    value = found.get(name, known[0])
    if value not in known:
        raise Problem(INVALID_QUERY, f"{name}={value!r} is not known. Use one of: {', '.join(known)}.")
    return value


def number_named(found: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """The parameter `name`, None where it is not given. Raises Problem when it is no number from `least` to `most`."""
    value = found.get(name)
    if value is None:
        return None
    if not is_number(value, least, most):
        raise Problem(INVALID_QUERY, f"{name}={value!r} is not a number from {least} to {most}.")
    return int(value)


def is_number(text: str, least: int, most: int) -> bool:
    """Whether it is written in digits, few enough to be looked at, and within these bounds."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and least <= int(text) <= most


def force_of(query: str) -> bool:
    """Whether the query says `force=true`. Raises Problem on any other parameter or value."""
    return one_of(parameters(query, ("force",)), "force", ("false", "true")) == "true"


def span_of(query: str) -> Span:
    """The keys that a query names. Raises Problem when it names none, or more than that."""
    return span_named(parameters(query, ("prefix", "start", "end")))


def span_named(found: Mapping[str, str]) -> Span:
    """The keys that begin with `prefix`, or those from `start` on and before `end`. Raises Problem for no or both."""
    prefix, start, end = (bytes_named(found, name) for name in ("prefix", "start", "end"))
    if (prefix is None) == (start is None and end is None):
        detail = "Name the keys by prefix=, or by start= and end=, before which they end. prefix= alone is every key."
        raise Problem(INVALID_QUERY, detail)
    return starting_with(prefix) if prefix is not None else Span(start or b"", end)


def bytes_named(found: Mapping[str, str], name: str) -> bytes | None:
    """The parameter `name`, None where it is not given."""
    value = found.get(name)
    return value.encode("utf-8", "surrogateescape") if value is not None else None


def no_parameters(query: str) -> None:
    """Raises Problem when there is any parameter."""
    parameters(query, ())


def parameters(query: str, known: Collection[str]) -> dict[str, str]:
    """The query, taken apart. Raises Problem on any parameter that is not known, or is there twice."""
    if not query:
        return {}
    usage = f"Known here: {', '.join(known) if known else 'none'}."
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="surrogateescape")
    except ValueError:
        raise Problem(INVALID_QUERY, f"The query cannot be read as name=value&name=value. {usage}") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise Problem(INVALID_QUERY, f"The parameter {name!r} is not known. {usage}")
        if name in parameters:
            raise Problem(INVALID_QUERY, f"The parameter {name!r} is there twice. {usage}")
        parameters[name] = value
    return parameters
