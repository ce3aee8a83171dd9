"""What the query of a write can ask for: a lease to go with, and a lock that must be held."""

from typing import NamedTuple

from kvstore.api.commands import Compare, Delete, LeasedPut, Put, Relation, Target
from kvstore.api.limits import MAX_KEY_BYTES, MAX_REVISION, MAX_TTL_S, MIN_TTL_S
from kvstore.server.http.problems import INVALID_QUERY, Problem
from kvstore.server.http.request_target import bytes_named, number_named, parameters

_GUARD = ("lock", "fence")


class WriteOptions(NamedTuple):
    """`lease`: 0 for none; `ttl_ms`: of a lease of its own, 0 for none; `guard`: that a fence holds a lock."""

    lease: int
    ttl_ms: int
    guard: Compare | None

    def put(self, key: bytes, value: bytes) -> Put | LeasedPut:
        """The command that sets `key` to `value`, less its conditions."""
        return LeasedPut(key, value, self.lease, self.ttl_ms) if self.lease or self.ttl_ms else Put(key, value)


NO_OPTIONS = WriteOptions(0, 0, None)


def options_of(query: str, command: type[Put | Delete]) -> WriteOptions:
    """Those of a write of a key. Raises Problem."""
    found = parameters(query, ("lease", "ttl_s", *_GUARD) if command is Put else _GUARD)
    lease = number_named(found, "lease", 1, MAX_REVISION) or 0
    ttl_ms = 0
    if "ttl_s" in found:
        if lease:
            raise Problem(INVALID_QUERY, "A key goes with one lease: give lease, or ttl_s for one of its own.")
        ttl_ms = _ttl_ms(found["ttl_s"])
    return WriteOptions(lease, ttl_ms, _guard(found))


def _ttl_ms(text: str) -> int:
    try:
        ttl_s = float(text)
    except ValueError:
        ttl_s = 0.0
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        detail = f"ttl_s={text[:80]!r} cannot be used: use {MIN_TTL_S} to {MAX_TTL_S} seconds."
        raise Problem(INVALID_QUERY, detail)
    return round(ttl_s * 1000)


def _guard(found: dict[str, str]) -> Compare | None:
    name, fence = bytes_named(found, "lock"), number_named(found, "fence", 1, MAX_REVISION)
    if name is None and fence is None:
        return None
    if name is None or fence is None:
        raise Problem(INVALID_QUERY, "Give lock and fence together: ?lock=deploy&fence=23, as POST /locks gave them.")
    if not 1 <= len(name) <= MAX_KEY_BYTES:
        raise Problem(INVALID_QUERY, f"The name of the lock has {len(name)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    return Compare(name, Target.FENCING_TOKEN, Relation.EQUAL, fence)
