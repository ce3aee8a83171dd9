"""Idempotency keys, with which a write is executed exactly once, however often it is sent (rule 22).

The client grants itself a lease before its first write and numbers its writes. The idempotency key of a write is
`<lease>.<number>`. A replica that receives a known key returns the stored response instead of executing it again.
"""

import asyncio
import time
from contextlib import suppress

from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.errors import ClientError, IdempotencyKeyExpired, Response, Unavailable, UnknownOutcome
from kvstore.client.leases import grant, lease_path

TTL_S = 600.0
USED_S = TTL_S / 2
"""Time after which a new lease is used. The rest of the TTL is for retries of requests under the old lease."""
REVOKE_S = 0.5
"""Timeout for revoking the lease when the client is closed. A lease that is not revoked expires."""


class IdempotentCaller:
    """A caller that gives each request an idempotency key of its own."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._granting = asyncio.Lock()
        self._lease = 0
        """Number of the current lease; 0 without one."""
        self._used_until = 0.0
        self._number = 0

    async def call(self, request: Request, deadline: float | None = None) -> Response:
        """Return the response to `request`, see `Caller.call`."""
        until = self._caller.deadline() if deadline is None else deadline
        while True:
            lease, number = await self._next_key(until)
            headers = {**request.headers, "Idempotency-Key": f"{lease}.{number}"}
            try:
                return await self._caller.call(request._replace(headers=headers, repeat=Repeat.KNOWN), until)
            except IdempotencyKeyExpired:
                # Caller raises this error only if no earlier attempt can have been executed. Either the lease has
                # ended, or later requests have displaced the key. A new lease helps in both cases.
                if lease == self._lease:
                    self._lease = 0

    async def stop(self) -> None:
        """Revoke the lease if a replica answers within REVOKE_S."""
        if self._lease:
            request = Request("DELETE", lease_path(self._lease))
            with suppress(ClientError):
                await self._caller.ask(self._caller.endpoints.ranked("PUT")[0], request, REVOKE_S)

    async def _next_key(self, deadline: float) -> tuple[int, int]:
        async with self._granting:
            now = time.monotonic()
            if not self._lease or now >= self._used_until:
                try:
                    self._lease = (await grant(self._caller, TTL_S, deadline)).id
                except UnknownOutcome as error:
                    raise Unavailable(
                        f"the write was not sent, no lease was granted for its idempotency key: {error}"
                    ) from error
                self._used_until, self._number = now + USED_S, 0
            self._number += 1
            return self._lease, self._number
