"""A watch that outlives the replica that it began at.

A revision is handed on when all its changes are there, which its id says: so what was handed on is never repeated, and
the next replica goes on behind it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import aiohttp
import msgspec

from kvstore.api.commands import Record
from kvstore.client.caller import Caller, ConnectionLostError
from kvstore.client.documents import KeyDocument, RecordDocument
from kvstore.client.errors import Compacted, Response, Unavailable, accept

_PAUSE_S = 0.1
_END = b"\n\n"


class WatchEvent(msgspec.Struct, frozen=True):
    """`key` holds `record` since `revision`; None: it was deleted."""

    revision: int
    key: bytes
    record: Record | None


class _Lost(msgspec.Struct):
    oldest_revision: int
    detail: str


class Watch:
    """One watch, at one replica after the other."""

    def __init__(self, caller: Caller, query: str, from_revision: int | None) -> None:
        self._caller = caller
        self._query = query
        self._seen = from_revision - 1 if from_revision is not None else None
        """All up to this revision was handed on; None until a replica has said where it begins."""
        self._served_at = 0.0
        """When a replica was heard last."""

    async def follow(self) -> AsyncIterator[WatchEvent]:
        """What happens, without an end. Raises Compacted; Unavailable when for `timeout_s` no replica serves it."""
        loop = asyncio.get_running_loop()
        self._served_at = loop.time()
        refusals: list[str] = []
        while True:
            for endpoint in self._caller.endpoints.ranked("GET"):
                try:
                    async for happened in self._follow_at(endpoint):
                        yield happened
                    why = f"{endpoint} has ended the watch"
                except Unavailable as error:
                    why = str(error)
                except aiohttp.ClientConnectorError as error:
                    why = f"{endpoint} is not reached: {os.strerror(error.errno or 0)}"
                except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
                    why = f"{endpoint} broke off: {str(error) or 'timed out'}"
                refusals.append(why)
                self._caller.endpoints.failed(endpoint)
            if loop.time() > self._served_at + self._caller.timeout_s:
                raise Unavailable("; ".join(refusals[-len(self._caller.endpoints.urls) :]))
            await asyncio.sleep(_PAUSE_S)

    async def _follow_at(self, endpoint: str) -> AsyncIterator[WatchEvent]:
        headers = {"Last-Event-ID": str(self._seen)} if self._seen is not None else {}
        async with self._caller.open(endpoint, f"/watch?{self._query}", headers) as response:
            if response.status != 200:
                accept(endpoint, "GET", Response(response.status, response.headers, await response.read()))
            self._seen = int(response.headers["KV-Revision"])
            pending: list[WatchEvent] = []
            buffer = bytearray()
            async for data in response.content.iter_any():
                buffer += data
                self._served_at = asyncio.get_running_loop().time()
                for fields in _blocks(buffer):
                    if fields.get("event") == "lost":
                        lost = msgspec.json.decode(fields["data"], type=_Lost)
                        raise Compacted(lost.detail, lost.oldest_revision)
                    if "data" in fields:
                        pending.append(_happened(fields["event"], fields["data"]))
                    if "id" in fields:
                        for happened in pending:
                            yield happened
                        pending = []
                        self._seen = int(fields["id"])


def _blocks(buffer: bytearray) -> Iterator[dict[str, str]]:
    """Takes all blocks that are whole out of `buffer`: their fields, without comments."""
    while (end := buffer.find(_END)) >= 0:
        lines = bytes(buffer[:end]).decode().split("\n")
        del buffer[: end + len(_END)]
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        if fields:
            yield fields


def _happened(kind: str, data: str) -> WatchEvent:
    if kind == "put":
        document = msgspec.json.decode(data, type=RecordDocument)
        found = document.found()
        return WatchEvent(document.revision, found.key, found.record)
    deleted = msgspec.json.decode(data, type=KeyDocument)
    return WatchEvent(deleted.revision, deleted.name, None)
