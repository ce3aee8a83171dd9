"""The request target: which path, which key, which query. Nothing in a path is ever normalised."""

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, unquote_to_bytes

from kvstore.http.problems import INVALID_KEY, INVALID_QUERY, MALFORMED, Problem
from kvstore.requests import Consistency

MAX_KEY_BYTES = 1024

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
    """The key's bytes. Raises Problem when an escape is broken or the key is not 1 to 1,024 bytes long."""
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
    return key


def consistency_of(query: str) -> Consistency:
    """What the query of a read asks for. Raises Problem on any other parameter or value."""
    if not query:
        return Consistency.LINEARIZABLE
    plain = _CONSISTENCIES.get(query)
    if plain is not None:
        return plain
    value = _parameters(query, ("consistency",)).get("consistency")
    if value is None:
        return Consistency.LINEARIZABLE
    try:
        return Consistency(value)
    except ValueError:
        known = ", ".join(Consistency)
        raise Problem(INVALID_QUERY, f"consistency={value!r} is not known. Use one of: {known}.") from None


def force_of(query: str) -> bool:
    """Whether the query says `force=true`. Raises Problem on any other parameter or value."""
    value = _parameters(query, ("force",)).get("force", "false") if query else "false"
    if value not in ("true", "false"):
        raise Problem(INVALID_QUERY, f"force={value!r} is not known. Use one of: true, false.")
    return value == "true"


def no_parameters(query: str) -> None:
    """Raises Problem when there is any parameter."""
    if query:
        _parameters(query, ())


def _parameters(query: str, known: Collection[str]) -> dict[str, str]:
    usage = f"Known here: {', '.join(known) if known else 'none'}."
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
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
