"""A watch that continues at another replica when the current one fails.

Only the last change of a revision carries an event id. The client delivers the changes of a revision when this id has
arrived, so the next replica can continue after the last delivered revision, and no change is delivered twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import msgspec

from kvstore.api.commands import Record
from kvstore.api.json.documents import KeyDeletionDocument, RecordDocument, WatchLostDocument
from kvstore.api.limits import MAX_REVISION
from kvstore.api.numbers import parse_integer
from kvstore.client.caller import Caller, ConnectionLostError, cannot_connect
from kvstore.client.errors import Compacted, Response, Unavailable, accept

_PAUSE_S = 0.1
"""Pause after a round in which each replica was asked once. It doubles after each round in which none has served the
watch."""
_MAX_PAUSE_S = 2.0
_END = b"\n\n"

OnOutage = Callable[[Unavailable | None], object]
"""Callback for outages: it gets Unavailable when an outage begins, and None when the outage ends."""


class WatchEvent(msgspec.Struct, frozen=True):
    """A change of `key` at `revision`. `record` is its new record, None after a deletion."""

    revision: int
    key: bytes
    record: Record | None


class Watch:
    """One watch, served by one replica at a time."""

    def __init__(self, caller: Caller, query: str, from_revision: int | None, on_outage: OnOutage | None) -> None:
        self._caller = caller
        self._query = query
        self._on_outage = on_outage
        self._outage_at: float | None = None
        """Time at which the first failed round of the present outage ended; None outside an outage."""
        self._was_served = False
        """True if a replica has served the watch in this round."""
        self._told = False
        """True if `on_outage` was called with the present outage."""
        self._delivered = from_revision - 1 if from_revision is not None else None
        """Last revision whose changes were delivered; None until a replica has said where the watch begins."""

    async def follow(self) -> AsyncIterator[WatchEvent]:
        """Yield each change, without end. Raises Compacted; without `on_outage` also Unavailable, when no replica has
        served the watch for `timeout_s`."""
        pause_s = _PAUSE_S
        while True:
            failures: list[str] = []
            self._was_served = False
            for endpoint in self._caller.endpoints.ranked("GET"):
                try:
                    async for event in self._follow_at(endpoint):
                        yield event
                    why = f"{endpoint} ended the watch"
                except Unavailable as error:
                    why = str(error)
                except aiohttp.ClientConnectorError as error:
                    why = cannot_connect(endpoint, error)
                except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
                    why = f"the watch at {endpoint} was interrupted: {str(error) or 'timed out'}"
                failures.append(why)
                self._caller.endpoints.failed(endpoint)
            if self._was_served:
                pause_s = _PAUSE_S
            else:
                self._round_failed(Unavailable("; ".join(failures)))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _round_failed(self, error: Unavailable) -> None:
        now = time.monotonic()
        if self._outage_at is None:
            self._outage_at = now
        if self._on_outage is None and now >= self._outage_at + self._caller.timeout_s:
            raise error
        if self._on_outage is not None and not self._told:
            self._told = True
            self._on_outage(error)

    def _served(self) -> None:
        self._was_served, self._outage_at = True, None
        if self._on_outage is not None and self._told:
            self._told = False
            self._on_outage(None)

    async def _follow_at(self, endpoint: str) -> AsyncIterator[WatchEvent]:
        headers = {"Last-Event-ID": str(self._delivered)} if self._delivered is not None else {}
        async with self._caller.open(endpoint, f"/watch?{self._query}", headers) as response:
            if response.status != 200:
                accept(endpoint, "GET", Response(response.status, response.headers, await response.read(), endpoint))
            self._served()
            answer = Response(response.status, response.headers, b"", endpoint)
            self._delivered = answer.number("KV-Revision")
            pending: list[WatchEvent] = []
            buffer = bytearray()
            async for data in response.content.iter_any():
                buffer += data
                for fields in _take_events(answer, buffer):
                    if fields.get("event") == "lost":
                        with answer.of_a_replica():
                            lost = msgspec.json.decode(fields["data"], type=WatchLostDocument)
                        raise Compacted(lost.detail, lost.oldest_revision)
                    if "data" in fields:
                        pending.append(_watch_event(answer, fields))
                    if "id" in fields:
                        for event in pending:
                            yield event
                        pending = []
                        with answer.of_a_replica():
                            self._delivered = parse_integer(fields["id"], 0, MAX_REVISION)


def _take_events(answer: Response, buffer: bytearray) -> Iterator[dict[str, str]]:
    """Remove all complete server-sent events from `buffer` and yield their fields. Comments are skipped."""
    while (end := buffer.find(_END)) >= 0:
        with answer.of_a_replica():
            lines = bytes(buffer[:end]).decode().split("\n")
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        del buffer[: end + len(_END)]
        if fields:
            yield fields


def _watch_event(answer: Response, fields: dict[str, str]) -> WatchEvent:
    with answer.of_a_replica():
        if fields["event"] == "put":
            document = msgspec.json.decode(fields["data"], type=RecordDocument)
            found = document.found
            return WatchEvent(document.revision, found.key, found.record)
        deleted = msgspec.json.decode(fields["data"], type=KeyDeletionDocument)
        return WatchEvent(deleted.revision, deleted.key_bytes, None)
