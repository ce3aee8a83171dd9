"""Leases that a request grants. Until the client has the answer, such a lease is provisional: its TTL is short.

    granted, short  ->  waiting for the lock: renewed, short  ->  full TTL  ->  the answer

If the replica, the connection or the client ends before the answer, nobody knows the lease. Then the lease and its lock
end within seconds, however long the TTL that the request asked for.
"""

from kvstore.api.commands import KeepLeaseAlive, RevokeLease
from kvstore.api.errors import Outcome, Refused
from kvstore.api.limits import PROVISIONAL_TTL_S
from kvstore.server.http.request import ClientConnection
from kvstore.server.http.writes import write
from kvstore.server.service import ReplicaService

_TTL_MS = PROVISIONAL_TTL_S * 1000


def provisional(ttl_ms: int) -> int:
    """Return the provisional TTL, in milliseconds, of a lease for which the client asked `ttl_ms`."""
    return min(ttl_ms, _TTL_MS)


async def give_full_ttl(replica: ReplicaService, lease: int, ttl_ms: int) -> None:
    """Make the lease live for `ttl_ms` from now on. Raises Problem, and Refused with an unknown outcome: the lease was
    granted."""
    if ttl_ms <= _TTL_MS:
        return
    try:
        await write(replica, KeepLeaseAlive(lease, ttl_ms))
    except Refused as error:
        raise Refused(error.reason, Outcome.UNKNOWN, error.instead) from error


async def confirm(
    replica: ReplicaService, client: ClientConnection, lease: int, ttl_ms: int, *, waited: bool, revocable: bool
) -> None:
    """Give a provisional lease its full TTL, just before the answer is written. Raises Problem or Refused.

    If the client is gone, the lease keeps its short TTL. It is revoked if it is `revocable`: no repeated request can
    ask for it again. A client that has closed only its side of the connection counts as gone if it `waited` for a
    lock; otherwise it reads the answer, as `nc -N` does.
    """
    if not await _is_gone(client, waited=waited):
        await give_full_ttl(replica, lease, ttl_ms)
    if revocable and await _is_gone(client, waited=waited):
        await write(replica, RevokeLease(lease))


async def _is_gone(client: ClientConnection, *, waited: bool) -> bool:
    try:
        await client.drain()
    except ConnectionError:
        return True
    return waited and client.is_gone
