"""`GET /watch?prefix=...`: every change of keys as a server-sent event, in order, once each.

A browser's EventSource reconnects with the last id that it has seen, and so misses nothing
(https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from collections.abc import AsyncGenerator
from functools import partial

from kvstore.api.errors import Refused
from kvstore.api.json.documents import WatchLostDocument
from kvstore.api.key_range import Span
from kvstore.api.limits import MAX_KEY_BYTES, MAX_REVISION
from kvstore.api.queries import Consistency
from kvstore.api.results import RevisionUnavailable
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.feed import Watcher, WatchFeed
from kvstore.server.http.problems import (
    COMPACTED,
    INVALID_QUERY,
    OVERLOADED,
    RETRY_AFTER,
    Problem,
    not_allowed,
    refusal,
    revision_unavailable,
)
from kvstore.server.http.query_parameters import consistency_in, integer_in, key_range_in, parse_query
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import StreamedResponse, StreamHead, encode
from kvstore.server.http.stream import send
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService
from storage.base import end_of

PATH = "/watch"
ALLOWED = "GET, HEAD"
MAX_WATCHES = 10_000
RECONNECT_MS = 1000

_FIELDS = b"Content-Type: text/event-stream\r\nKV-Revision: %d\r\n"
_NAMES = ("key", "prefix", "start", "end", "from_revision", "consistency")


class WatchHandlers:
    """Handlers of watches."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica
        self._feed = WatchFeed(replica)
        self._count = 0

    def end(self) -> None:
        """End all watches: their clients continue at another replica."""
        self._feed.end()

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:  # noqa: ARG002  it is PATH
        """Return the call of a request. Raises Problem."""
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, ALLOWED)
        found = parse_query(query, _NAMES)
        span, first, consistency = _span(found), _first_revision(request, found), consistency_in(found)
        return TaskCall(partial(self._send, request, span, first, consistency), takes_body=False)

    async def _send(
        self, request: HttpRequest, span: Span, first: int | None, consistency: Consistency
    ) -> StreamedResponse | StreamHead:
        """Send the stream. Raises Problem or Refused before the first byte.

        An EventSource gives up after any error, and its page cannot see which. One that reconnects is answered by a
        stream that ends at once if a retry may help: it connects again after RECONNECT_MS.
        """
        try:
            return await self._watch(request, span, first, consistency)
        except (Problem, Refused) as error:
            problem = refusal(error) if isinstance(error, Refused) else error
            if first is None or problem.fields != RETRY_AFTER or not _is_reconnecting_browser(request):
                raise
            return await send(request, _FIELDS % (first - 1), _try_again(problem.detail), endless=True)

    async def _watch(
        self, request: HttpRequest, span: Span, first: int | None, consistency: Consistency
    ) -> StreamedResponse | StreamHead:
        """Send the stream, until the client leaves, the replica stops, or events that the client has not read are
        compacted. Raises Problem or Refused before the first byte."""
        if self._count >= MAX_WATCHES:
            detail = f"This replica serves {MAX_WATCHES:,} watches, its limit. Watch at another replica."
            raise Problem(OVERLOADED, detail, fields=RETRY_AFTER)
        read = await reply_of(partial(self._replica.read, b"\0", consistency))
        first = first or read.revision + 1
        if first > read.revision + 1:
            raise revision_unavailable(RevisionUnavailable(0, read.revision), first - 1, consistency)
        oldest = self._replica.history.oldest + 1
        if first < oldest:
            raise _compacted(first, oldest)
        self._count += 1
        try:
            return await send(request, _FIELDS % (first - 1), self._events(request, span, first), endless=True)
        finally:
            self._count -= 1

    async def _events(self, request: HttpRequest, span: Span, first: int) -> AsyncGenerator[bytes, None]:
        """Yield the first and the last chunk of the stream. The feed writes the events in between to the client."""
        client = request.client
        watcher = Watcher(span, end_of(first - 1), client)
        # The id lets a browser that reconnects before the first event continue from here.
        yield b"retry: %d\nid: %d\n\n" % (RECONNECT_MS, first - 1)
        while not self._feed.ended:
            self._feed.follow(watcher)
            await watcher.left.wait()
            await client.drain()
            if watcher.is_lost and watcher.frames:
                break
            if watcher.is_lost:
                document = WatchLostDocument(
                    oldest_revision=self._replica.history.oldest + 1,
                    detail="Events were compacted before you read them.",
                )
                yield b"event: lost\ndata: %b\n\n" % encode(document)
                return
        if watcher.frames:
            raise ConnectionAbortedError("an event is incomplete, and the client must not take it for complete")
        yield b": this replica is shutting down, continue at another one\n\n"


def _is_reconnecting_browser(request: HttpRequest) -> bool:
    return request.header(b"accept") == "text/event-stream" and b"last-event-id" in request.headers


async def _try_again(why: str) -> AsyncGenerator[bytes, None]:
    yield b"retry: %d\n: %b\n\n" % (RECONNECT_MS, why.encode())


def _span(found: dict[str, str]) -> Span:
    key = found.get("key")
    if key is None:
        return key_range_in(found)
    name = key.encode("utf-8", "surrogateescape")
    if found.keys() & {"prefix", "start", "end"} or not 1 <= len(name) <= MAX_KEY_BYTES:
        raise Problem(INVALID_QUERY, f"Name one key= of 1 to {MAX_KEY_BYTES} bytes, or prefix=, or start= and end=.")
    return Span(name, name + b"\0")


def _first_revision(request: HttpRequest, found: dict[str, str]) -> int | None:
    """Return the first revision to send, None for the next one. A browser that reconnects sends its last id, and the
    query of the first request."""
    last = request.header(b"last-event-id")
    if last is not None:
        return (integer_in({"Last-Event-ID": last.strip()}, "Last-Event-ID", 0, MAX_REVISION) or 0) + 1
    return integer_in(found, "from_revision", 1, MAX_REVISION)


def _compacted(first: int, oldest: int) -> Problem:
    detail = (
        f"Revision {first} is compacted; the oldest to watch from is {oldest}. List the keys, and watch from the "
        "revision of the list plus 1."
    )
    return Problem(COMPACTED, detail, fields=b"KV-Oldest-Revision: %d\r\n" % oldest)
