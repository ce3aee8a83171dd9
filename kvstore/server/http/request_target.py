"""The request target: its path, its query, and the key in the path. No path is ever normalized."""

import re
from urllib.parse import unquote_to_bytes

from kvstore.api.limits import MAX_KEY_BYTES, RESERVED_KEY
from kvstore.server.http.problems import INVALID_KEY, MALFORMED, Problem
from kvstore.server.http.request import HttpRequest

_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_SCHEMES = frozenset({"http", "https"})
"""Schemes of a target in absolute form. A replica speaks HTTP only, but a proxy before it may terminate TLS."""


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a target in origin form (`/kv/a?x`) or absolute form (`http://host/kv/a?x`).

    Raises Problem for a target with another scheme, a user name or a fragment, which HTTP does not allow.
    """
    if not target.startswith("/"):
        target = _origin_form(target)
    if "#" in target:
        raise Problem(MALFORMED, "The request target has a fragment. Write # in a key as %23.")
    path, _, query = target.partition("?")
    return path, query


def authority_of(request: HttpRequest) -> bytes | None:
    """Return the host, with its port, that a request is sent to: the one in an absolute target replaces the header
    Host (RFC 9112, 3.2.2). None if the request names none."""
    found = _ABSOLUTE.match(request.target)
    return found[2].encode("latin-1") if found is not None else request.headers.get(b"host")


def _origin_form(target: str) -> str:
    """Return an absolute target in origin form, and a target in another form as it is."""
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    scheme, authority = found.groups()
    if scheme.lower() not in _SCHEMES:
        detail = f"The request target has the scheme {scheme[:20]}. Use http, or send the path alone, as in GET /kv/a."
        raise Problem(MALFORMED, detail)
    if "@" in authority:
        # RFC 9110, 4.2.4: a name before the host is an error, because it can make a host look like another one.
        detail = (
            "The request target has a user name before the host. Leave it away, with the @: a replica asks for none."
        )
        raise Problem(MALFORMED, detail)
    rest = target[found.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


def decode_key(escaped: str) -> bytes:
    """Return the bytes of a key, or of the name of a lock.

    Raises Problem for a broken escape, a length outside of 1 to MAX_KEY_BYTES, and a first byte of 0.
    """
    if "%" in escaped:
        if (broken := broken_escape_in(escaped)) is not None:
            raise Problem(INVALID_KEY, f"{broken!r} is not an escape. Write % as %25, and any byte as %XX.")
        key = unquote_to_bytes(escaped)
    else:
        key = escaped.encode("utf-8", "surrogateescape")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise Problem(INVALID_KEY, f"The key has {len(key)} bytes. Use 1 to {MAX_KEY_BYTES}, as in /kv/my-key.")
    if key.startswith(b"\0"):
        raise Problem(INVALID_KEY, RESERVED_KEY)
    return key


def broken_escape_in(text: str) -> str | None:
    """Return the first `%` that two hexadecimal digits do not follow, with the characters behind it; None without."""
    broken = _BROKEN_ESCAPE.search(text)
    return text[broken.start() : broken.start() + 3] if broken is not None else None
