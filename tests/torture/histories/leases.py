"""The histories of leases and locks: when they ended, who held them, and which numbers were given out.

A client counts the time of a lease from the request of its last acknowledged renewal, so the store ends the lease
later. All times are nanoseconds of one monotonic clock.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

FOREVER = 1 << 62


class LeaseHistory(msgspec.Struct):
    """One lease, as its client knows it."""

    lease: int
    ends_ns: list[int]
    """The end that the client counts from the request of the grant, and of each acknowledged renewal."""
    revoked_ns: int = FOREVER
    """Time of the first request that may have ended the lease."""


class LeaseEnding(msgspec.Struct, frozen=True):
    """An observation that a lease has ended: an event, or an answer."""

    lease: int
    seen_ns: int
    what: str


class LockHold(msgspec.Struct):
    """One client that held a lock by its own count, from the answer until the end of its lease or its release."""

    name: str
    lease: int
    fence: int
    began_ns: int
    ended_ns: int = FOREVER


class FencedWrite(msgspec.Struct, frozen=True):
    """An acknowledged write on the condition that `fence` holds the lock `name`."""

    name: str
    fence: int
    revision: int


class LeasesVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of what was compared, and the violations."""

    leases: int
    endings: int
    renewals: int
    holds: int
    fenced: int
    violations: list[str]


def judge_leases(
    leases: Sequence[LeaseHistory],
    endings: Sequence[LeaseEnding],
    holds: Sequence[LockHold],
    fenced: Sequence[FencedWrite],
    written: Iterable[int],
) -> LeasesVerdict:
    """Compare everything. `written` are the revisions of acknowledged writes of keys."""
    return LeasesVerdict(
        leases=len(leases),
        endings=len(endings),
        renewals=sum(len(lease.ends_ns) - 1 for lease in leases),
        holds=len(holds),
        fenced=len(fenced),
        violations=[
            *ended_early(leases, endings),
            *two_holders(holds),
            *numbers_twice(leases, holds, written),
            *fenced_back(fenced),
        ],
    )


def ended_early(leases: Iterable[LeaseHistory], endings: Iterable[LeaseEnding]) -> Iterator[str]:
    """Describe the leases that ended before the time that their clients count."""
    by_lease = {lease.lease: lease for lease in leases}
    for ending in endings:
        lease = by_lease.get(ending.lease)
        if lease is None or lease.revoked_ns <= ending.seen_ns:
            continue
        left_ns = max(lease.ends_ns) - ending.seen_ns
        if left_ns > 0:
            yield f"lease {lease.lease} ended {left_ns / 1e6:.1f} ms early: {ending.what}"


def two_holders(holds: Iterable[LockHold]) -> Iterator[str]:
    """Describe locks that two clients held at once, and fencing tokens that do not increase from holder to holder."""
    by_name: dict[str, list[LockHold]] = {}
    for hold in holds:
        by_name.setdefault(hold.name, []).append(hold)
    for name, of_name in by_name.items():
        for before, after in pairwise(sorted(of_name, key=lambda hold: hold.began_ns)):
            if after.began_ns < before.ended_ns:
                both_ms = (min(before.ended_ns, after.ended_ns) - after.began_ns) / 1e6
                yield f"{name} was held for {both_ms:.1f} ms by both lease {before.lease} and lease {after.lease}"
            if after.fence <= before.fence:
                yield f"{name} had the fencing token {after.fence} after {before.fence}"


def numbers_twice(leases: Iterable[LeaseHistory], holds: Iterable[LockHold], written: Iterable[int]) -> Iterator[str]:
    """Describe numbers that were given out twice: a lease, a fencing token and a write of keys share one counter."""
    owner = dict.fromkeys(written, "a write of keys")
    entries = {(hold.fence, f"an entry of lease {hold.lease} in the queue for {hold.name}") for hold in holds}
    given = [*((lease.lease, f"lease {lease.lease}") for lease in leases), *sorted(entries)]
    for number, what in given:
        other = owner.get(number)
        if other is not None:
            yield f"{number} was given to {what} and to {other}"
        owner[number] = what


def fenced_back(fenced: Iterable[FencedWrite]) -> Iterator[str]:
    """Describe writes under a fencing token that came after a write under a later one."""
    highest: dict[str, FencedWrite] = {}
    for write in sorted(fenced, key=lambda each: each.revision):
        before = highest.get(write.name)
        if before is not None and write.fence < before.fence:
            yield f"{write} came after {before}"
        else:
            highest[write.name] = write
