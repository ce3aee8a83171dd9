"""Requests that are done once, however often they are sent (rule 22).

The client grants itself a lease at its first write, and numbers its writes within that: by the idempotency key
`<lease>.<number>` every replica knows a request again that was sent before, and gives the answer that it gave then.
"""

import asyncio
import time
from contextlib import suppress

from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.errors import ClientError, IdempotencyKeyExpired, Response, Unavailable, UnknownOutcome
from kvstore.client.leases import grant, lease_path

TTL_S = 600.0
USED_S = TTL_S / 2
"""After this time another lease is taken: what is sent under the old one has the rest to be repeated in."""
REVOKE_S = 0.5


class IdempotentCaller:
    """Gives each request a key of its own."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._granting = asyncio.Lock()
        self._lease = 0
        """0 while there is none."""
        self._used_until = 0.0
        self._number = 0

    async def call(self, request: Request, deadline: float | None = None) -> Response:
        """The answer to `request`, as `Caller.call` gives it."""
        until = self._caller.deadline() if deadline is None else deadline
        while True:
            lease, number = await self._next(until)
            headers = {**request.headers, "Idempotency-Key": f"{lease}.{number}"}
            try:
                return await self._caller.call(request._replace(headers=headers, repeat=Repeat.KNOWN), until)
            except (
                IdempotencyKeyExpired
            ):  # at the first attempt, so it is not done: the lease is over, or others were much faster
                if lease == self._lease:
                    self._lease = 0

    async def stop(self) -> None:
        """Give the lease back, if that is easy: it ends by itself."""
        if self._lease:
            request = Request("DELETE", lease_path(self._lease))
            with suppress(ClientError):
                await self._caller.ask(self._caller.endpoints.ranked("PUT")[0], request, REVOKE_S)

    async def _next(self, deadline: float) -> tuple[int, int]:
        async with self._granting:
            now = time.monotonic()
            if not self._lease or now >= self._used_until:
                try:
                    self._lease = (await grant(self._caller, TTL_S, deadline)).id
                except UnknownOutcome as error:
                    raise Unavailable(f"not sent, for want of a lease to number it in: {error}") from error
                self._used_until, self._number = now + USED_S, 0
            self._number += 1
            return self._lease, self._number
