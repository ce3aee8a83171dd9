"""Outages during a command that runs until Ctrl-C: it goes on asking, and tells the user once."""

import asyncio
import sys
import time

from kvstore.client import ClientError

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0


class Outage:
    """The outage of all replicas that a command waits for, if there is one."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def report(self, error: ClientError | None) -> None:
        """Take the error of a request, or None for a request that was answered. Tell the user when an outage begins and
        when it ends."""
        if error is not None and self._began_at is None:
            self._began_at = time.monotonic()
            sys.stderr.write(f"kvstore: no replica answers, trying again: {error}\n")
        elif error is None and self._began_at is not None:
            sys.stderr.write(f"kvstore: a replica answers again after {time.monotonic() - self._began_at:.0f} s\n")
            self._began_at, self._pause_s = None, FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait before the next request, longer each time."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
