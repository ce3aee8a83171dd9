"""`GET /backup`: the state of this replica, in pages, while it serves; the format is `kvstore.backup.stream`.

A page is read between two commits, when the client has read the page before it: a slow client costs the memory of one
page. Compaction waits for it within the same bounds as for a peer that receives a snapshot.
"""

import itertools
from collections.abc import AsyncGenerator, Callable
from functools import partial

from kvstore.api.queries import Consistency
from kvstore.backup.stream import VERSION, StreamEnd, StreamFailure, StreamPage, StreamStart, pack
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.problems import OVERLOADED, RETRY_AFTER, Problem, not_allowed
from kvstore.server.http.query_parameters import parse_consistency
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import StreamedResponse, StreamHead
from kvstore.server.http.stream import send
from kvstore.server.pacer import BackgroundKind
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService

PATH = "/backup"
ALLOWED = "GET, HEAD"
_FIELDS = b"Content-Type: application/octet-stream\r\n"
MAX_BACKUPS = 2
"""BackupHandlers that one replica sends at the same time."""


class BackupHandlers:
    """Handlers of backups. `stopping` returns True while the front end is shutting down."""

    def __init__(self, replica: ReplicaService, stopping: Callable[[], bool]) -> None:
        self._replica = replica
        self._stopping = stopping
        self._numbers = itertools.count(1)
        self._running = 0

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:  # noqa: ARG002  it is PATH
        """Return the call of a request. Raises Problem."""
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, ALLOWED)
        return TaskCall(partial(self._send, request, parse_consistency(query)), takes_body=False)

    async def _send(self, request: HttpRequest, consistency: Consistency) -> StreamedResponse | StreamHead:
        """Send the stream. It has every write that was acknowledged before the request, unless the request accepts a
        stale state. Raises Problem or Refused before the first byte."""
        if self._running >= MAX_BACKUPS:
            detail = f"This replica sends {MAX_BACKUPS} backups, its limit. Use another replica, or try again later."
            raise Problem(OVERLOADED, detail, fields=RETRY_AFTER)
        self._running += 1
        reader = f"backup {next(self._numbers)}"  # no member has a space in its name
        try:
            # The key does not matter: after the read this replica is current, or it has refused.
            await reply_of(partial(self._replica.read, b"\0", consistency))
            return await send(request, _FIELDS, self._parts(reader))
        finally:
            self._running -= 1
            self._replica.end_state(reader)

    async def _parts(self, reader: str) -> AsyncGenerator[bytes, None]:
        status, pacer = self._replica.status(), self._replica.pacer
        yield pack(StreamStart(VERSION, status.cluster, status.id, status.version, status.revision, status.keys))
        after = least = 0
        while True:
            if self._stopping():
                yield pack(StreamFailure(f"{status.id} is shutting down: take the backup from another replica"))
                return
            page = await pacer.rest_after(self._replica.read_state(reader, after))
            if after and page.compacted > max(after, least):
                yield pack(StreamFailure(_TOO_SLOW.format(status.id)))
                return
            # The rows so far lack deletions only up to the least position up to which their pages were compacted. That
            # position falls when this replica installs the snapshot of a peer that has compacted less.
            least = min(least, page.compacted) if after else page.compacted
            yield await pacer.run(BackgroundKind.BACKUP, partial(pack, StreamPage(after, page.changes)))
            if page.progress is not None:
                yield pack(StreamEnd(page.progress))
                return
            after = page.changes[-1].position


_TOO_SLOW = (
    "{} had to drop old revisions before the backup had them: take it again, over a faster connection or to a faster "
    "disk"
)
