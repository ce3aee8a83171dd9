"""The request target: its path, its query, and the key in the path. No path is ever normalized."""

import re
from urllib.parse import unquote_to_bytes

from kvstore.api.limits import MAX_KEY_BYTES, RESERVED_KEY
from kvstore.server.http.problems import INVALID_KEY, MALFORMED, Problem
from kvstore.server.http.request import HttpRequest

_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a target in origin form (`/kv/a?x`) or absolute form (`http://host/kv/a?x`).

    Raises Problem for a target with a fragment, which HTTP does not allow.
    """
    if not target.startswith("/"):
        target = _AUTHORITY.sub("", target, count=1)
        if target[:1] in ("", "?"):
            target = "/" + target
    if "#" in target:
        raise Problem(MALFORMED, "The request target has a fragment. Write # in a key as %23.")
    path, _, query = target.partition("?")
    return path, query


def authority_of(request: HttpRequest) -> bytes | None:
    """Return the host, with its port, that a request is sent to: the one in an absolute target replaces the header
    Host (RFC 9112, 3.2.2). None if the request names none."""
    found = _AUTHORITY.match(request.target)
    if found is None:
        return request.headers.get(b"host")
    return found[0].partition("://")[2].rpartition("@")[2].encode("latin-1")


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
