"""What the query of a write can ask for: a lease to go with, and a lock that must be held."""

from typing import NamedTuple

from kvstore.api.commands import Compare, Delete, LeasedPut, Put, Relation, Target
from kvstore.server.http.problems import INVALID_QUERY, Problem
from kvstore.server.http.target import MAX_KEY_BYTES, MOST_REVISION, bytes_named, number_named, parameters

LONGEST_TTL_S = 365 * 24 * 3600
SHORTEST_TTL_S = 0.1

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
    lease = number_named(found, "lease", 1, MOST_REVISION) or 0
    ttl_ms = 0
    if "ttl_s" in found:
        if lease:
            raise Problem(INVALID_QUERY, "A key goes with one lease: give lease, or ttl_s for one of its own.")
        try:
            ttl_ms = ttl_ms_of(float(found["ttl_s"]))
        except ValueError as error:
            raise Problem(INVALID_QUERY, f"ttl_s={found['ttl_s'][:80]!r} cannot be used: {error}.") from None
    return WriteOptions(lease, ttl_ms, _guard(found))


def ttl_ms_of(ttl_s: float) -> int:
    """Raises ValueError for a length that no lease can have."""
    if not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
        raise ValueError(f"use {SHORTEST_TTL_S} to {LONGEST_TTL_S} seconds")
    return round(ttl_s * 1000)


def _guard(found: dict[str, str]) -> Compare | None:
    name, fence = bytes_named(found, "lock"), number_named(found, "fence", 1, MOST_REVISION)
    if name is None and fence is None:
        return None
    if name is None or fence is None:
        raise Problem(INVALID_QUERY, "Give lock and fence together: ?lock=deploy&fence=23, as POST /locks gave them.")
    if not 1 <= len(name) <= MAX_KEY_BYTES:
        raise Problem(INVALID_QUERY, f"The name of the lock has {len(name)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    return Compare(name, Target.FENCING_TOKEN, Relation.EQUAL, fence)
