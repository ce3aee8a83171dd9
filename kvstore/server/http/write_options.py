"""The query of a write of a key: the lease that the key is attached to, and the lock that must be held."""

from typing import NamedTuple

from kvstore.api.commands import Compare, Delete, LeasedPut, Put, Relation, Target
from kvstore.api.limits import MAX_KEY_BYTES, MAX_REVISION, MAX_TTL_S, MIN_TTL_S
from kvstore.server.http.problems import INVALID_QUERY, Problem
from kvstore.server.http.query_parameters import bytes_in, integer_in, parse_query, seconds_in

_GUARD = ("lock", "fence")


class WriteOptions(NamedTuple):
    """The lease to attach the key to (0 for none), or the time to live of a new one (0 for none), and the condition
    that a fencing token holds a lock."""

    lease: int
    ttl_ms: int
    guard: Compare | None

    def put(self, key: bytes, value: bytes) -> Put | LeasedPut:
        """Return the command that sets `key` to `value`, without its conditions."""
        return LeasedPut(key, value, self.lease, self.ttl_ms) if self.lease or self.ttl_ms else Put(key, value)


NO_OPTIONS = WriteOptions(0, 0, None)


def options_of(query: str, command: type[Put | Delete]) -> WriteOptions:
    """Return the options of a write of a key. Raises Problem."""
    found = parse_query(query, ("lease", "ttl_s", *_GUARD) if command is Put else _GUARD)
    lease = integer_in(found, "lease", 1, MAX_REVISION) or 0
    ttl_s = seconds_in(found, "ttl_s", MIN_TTL_S, MAX_TTL_S) or 0.0
    if lease and ttl_s:
        raise Problem(INVALID_QUERY, "A key has one lease: give lease, or ttl_s for a new one.")
    return WriteOptions(lease, round(1000 * ttl_s), _guard(found))


def _guard(found: dict[str, str]) -> Compare | None:
    name, fence = bytes_in(found, "lock"), integer_in(found, "fence", 1, MAX_REVISION)
    if name is None and fence is None:
        return None
    if name is None or fence is None:
        raise Problem(
            INVALID_QUERY,
            "lock and fence belong together: ?lock=deploy&fence=23, with the fence from the response to POST /locks.",
        )
    if not 1 <= len(name) <= MAX_KEY_BYTES:
        raise Problem(INVALID_QUERY, f"The name of the lock has {len(name)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    return Compare(name, Target.FENCING_TOKEN, Relation.EQUAL, fence)
