"""`GET /events`: the activity of this replica as server-sent events, a few per second, for the page /ui.

    event: glimpse
    data: {"status": ..., "messages": [...], "counts": {...}, "slots": [...], "requests": {...}, "interval_ms": 250}

All readers receive the same bytes. A slow reader misses events, which shows as a gap in `number`. Without readers
nothing is traced.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from itertools import accumulate

import msgspec

from kvstore.api.status import Status
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.problems import OVERLOADED, RETRY_AFTER, Problem, not_allowed
from kvstore.server.http.query_parameters import refuse_parameters
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import StreamedResponse, StreamHead
from kvstore.server.http.stream import send
from kvstore.server.metrics import REQUEST_BUCKETS_S, Metrics
from kvstore.server.service import ReplicaService
from kvstore.server.trace import Trace, TracedMessage, TracedSlot

PATH = "/events"
ALLOWED = "GET, HEAD"
INTERVAL_S = 0.25
MAX_READERS = 100
RECONNECT_MS = 1000
_FIELDS = b"Content-Type: text/event-stream\r\n"


class Served(msgspec.Struct, frozen=True):
    """Number and latencies of the requests of one method in the interval. The latencies are bounds of the buckets of
    the metrics, None without requests."""

    count: int
    p50_ms: float | None
    p99_ms: float | None


class GlimpseEvent(msgspec.Struct, frozen=True):
    """The data of an event. `messages` are the first ones of the interval, `counts` the numbers of all by kind."""

    number: int
    interval_ms: float
    status: Status
    messages: list[TracedMessage]
    counts: dict[str, int]
    slots: list[TracedSlot]
    requests: dict[str, Served]


_encode = msgspec.json.Encoder().encode


class EventHandlers:
    """Handlers of the streams of the activity of a replica."""

    def __init__(self, replica: ReplicaService, metrics: Metrics) -> None:
        self._replica = replica
        self._metrics = metrics
        self._trace: Trace | None = None
        self._readers = 0
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._chunk = b""
        self._next = asyncio.Event()
        self._ended = False
        self._last: dict[str, list[int]] = {}
        self._looked = 0.0

    def end(self) -> None:
        """End all streams: the replica is shutting down."""
        self._ended = True
        self._next.set()

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:  # noqa: ARG002  it is PATH
        """Return the call of a request. Raises Problem."""
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, ALLOWED)
        refuse_parameters(query)
        return TaskCall(partial(self._send, request), takes_body=False)

    async def _send(self, request: HttpRequest) -> StreamedResponse | StreamHead:
        if self._readers >= MAX_READERS:
            raise Problem(
                OVERLOADED,
                f"The limit of event streams of this replica, {MAX_READERS}, is reached. Try again later.",
                fields=RETRY_AFTER,
            )
        return await send(request, _FIELDS, self._chunks(), endless=True)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        self._readers += 1
        if self._trace is None:
            self._begin()
        try:
            yield b"retry: %d\n\n" % RECONNECT_MS
            while not self._ended:
                await self._next.wait()
                if not self._ended:
                    yield self._chunk
        finally:
            self._readers -= 1
            if not self._readers:
                self._stop()

    def _begin(self) -> None:
        self._trace = Trace()
        self._replica.trace(self._trace)
        self._last, self._looked = self._metrics.answers(), time.perf_counter()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._look)

    def _stop(self) -> None:
        self._trace = None
        self._replica.trace(None)
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Make the next event, and wake the streams that wait for it."""
        if self._trace is None:
            return
        self._number += 1
        glimpse, now, answers = self._trace.take(), time.perf_counter(), self._metrics.answers()
        event = GlimpseEvent(
            self._number,
            round(1000 * (now - self._looked), 1),
            self._replica.status(),
            glimpse.messages,
            glimpse.counts,
            glimpse.slots,
            {method: served(counts, self._last.get(method)) for method, counts in answers.items()},
        )
        self._last, self._looked = answers, now
        self._chunk = b"event: glimpse\ndata: %b\n\n" % _encode(event)
        self._next.set()
        self._next = asyncio.Event()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._look)


def served(counts: list[int], before: list[int] | None) -> Served:
    """Return the requests and latencies since the counts were `before`."""
    new = [count - (before[index] if before else 0) for index, count in enumerate(counts)]
    total = sum(new)
    if not total:
        return Served(0, None, None)
    reached = list(accumulate(new))
    bounds_ms = [1000 * bound for bound in REQUEST_BUCKETS_S]
    bounds_ms.append(bounds_ms[-1])  # requests slower than the last bucket

    def at(share: float) -> float:
        return next(bound for bound, count in zip(bounds_ms, reached, strict=True) if count >= share * total)

    return Served(total, at(0.5), at(0.99))
