"""`GET /kv/?prefix=...`: keys in order, all as of one revision, in pages or as NDJSON.

The cursor of a page holds its revision and its last key, so that any replica can send the next page.
"""

import asyncio
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET

from kvstore.api.errors import Refused
from kvstore.api.json.documents import (
    RecordDocument,
    RecordPageDocument,
    RecordStreamEndDocument,
    RecordStreamErrorDocument,
    record_document,
)
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.api.limits import MAX_KEY_BYTES, MAX_LISTED, MAX_REVISION
from kvstore.api.queries import Consistency, Scan
from kvstore.api.results import RevisionUnavailable, ScanAnswer
from kvstore.server.http.problems import INVALID_QUERY, OVERLOADED, RETRY_AFTER, Problem, revision_unavailable
from kvstore.server.http.query_parameters import choice_in, consistency_in, integer_in, key_range_in, parse_query
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.response import HttpResponse, StreamedResponse, StreamHead, encode, json_response
from kvstore.server.http.stream import send
from kvstore.server.pacer import BackgroundKind
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService

STREAMED = 250
STREAMED_BYTES = 64 * 1024
"""Bounds of the records that a stream reads in one turn of the pacer. The last record may exceed the second one."""
MAX_STREAMS = 100
"""Streams that one replica sends at the same time. Each may hold the longest record in memory."""
NDJSON = "application/x-ndjson"
_NOT_ACCEPTED = re.compile(r"q=0(?:\.0*)?")
_NDJSON_FIELDS = b"Content-Type: %b\r\nKV-Revision: %%d\r\n" % NDJSON.encode()

T = TypeVar("T")

_NAMES = ("prefix", "start", "end", "limit", "cursor", "order", "keys_only", "revision", "consistency")


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    revision: Annotated[int, msgspec.Meta(ge=1, le=MAX_REVISION)]
    last: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY_BYTES)]

    def pack(self) -> str:
        return urlsafe_b64encode(msgspec.msgpack.encode(self)).decode()


class _Wanted(NamedTuple):
    """The list that a query asks for. `scan` reads its next part; `most` bounds all of its records, None is no
    bound."""

    scan: Scan
    most: int | None
    keys_only: bool
    consistency: Consistency

    def after(self, part: ScanAnswer) -> "_Wanted":
        """Return the rest of the list after `part`, as of the same revision, which this replica has reached."""
        count = len(part.found)
        size_bytes = sum(len(each.key) + len(each.record.value) for each in part.found if each.record is not None)
        scan = _behind(self.scan, _Cursor(part.revision, _last_of(part)))
        return self._replace(
            scan=msgspec.structs.replace(scan, limit=scan.limit - count, max_bytes=scan.max_bytes - size_bytes),
            most=self.most - count if self.most is not None else None,
            consistency=Consistency.STALE,
        )

    def streamed(self) -> "_Wanted":
        """Return the same list in the small parts of a stream."""
        limit = STREAMED if self.most is None else min(STREAMED, self.most)
        return self._replace(scan=msgspec.structs.replace(self.scan, limit=limit, max_bytes=STREAMED_BYTES))


class KeyListHandlers:
    """Handlers of lists of keys. `stopping` returns True while the front end is shutting down."""

    def __init__(self, replica: ReplicaService, stopping: Callable[[], bool]) -> None:
        self._replica = replica
        self._stopping = stopping
        self._streams = 0

    async def handle(self, request: HttpRequest, query: str) -> HttpResponse | StreamedResponse:
        """Return a page; or, if the client accepts NDJSON, send all records. Raises Problem or Refused."""
        wanted = _wanted_by(query)
        if _accepts_ndjson(request):
            return await self._stream(request, wanted)
        await self._catch_up(wanted)
        records: list[RecordDocument] = []
        rest = wanted
        while True:  # once, unless the history has many deleted keys among those of the page
            part, more_records = await self._part(rest, _records)
            records += more_records
            if not part.more:
                break
            rest = rest.after(part)
            if part.stopped_at is None or not rest.scan.limit or rest.scan.max_bytes <= 0:
                break
        cursor = _Cursor(part.revision, _last_of(part)).pack() if part.more else UNSET
        document = RecordPageDocument(revision=part.revision, records=records, more=part.more, cursor=cursor)
        return json_response(200, document, b"KV-Revision: %d\r\n" % part.revision)

    async def _catch_up(self, wanted: _Wanted) -> None:
        """Wait until this replica may answer from the state that it has applied. Raises Problem or Refused."""
        empty = msgspec.structs.replace(wanted.scan, limit=0)
        _found(await reply_of(partial(self._replica.read, empty, wanted.consistency)), wanted)

    async def _part(self, wanted: _Wanted, render: Callable[[ScanAnswer, _Wanted], T]) -> tuple[ScanAnswer, T]:
        """Return a part of the list, and the part as `render` makes it. Both are made in a turn of the pacer."""
        answers: asyncio.Queue[tuple[object, T | None]] = asyncio.Queue()

        def reply(answer: object) -> None:
            answers.put_nowait((answer, render(answer, wanted) if isinstance(answer, ScanAnswer) else None))

        await self._replica.pacer.run(
            BackgroundKind.LIST, partial(self._replica.read, wanted.scan, Consistency.STALE, reply)
        )
        answer, rendered = await answers.get()
        return _found(answer, wanted), cast("T", rendered)

    async def _stream(self, request: HttpRequest, wanted: _Wanted) -> StreamedResponse | StreamHead:
        """Send a record on each line. The last line has the revision and the number of records, or an error. A page is
        read when the client has read the one before it."""
        if self._streams >= MAX_STREAMS:
            detail = f"This replica sends {MAX_STREAMS} lists as NDJSON, its limit. List at another replica."
            raise Problem(OVERLOADED, detail, fields=RETRY_AFTER)
        self._streams += 1
        try:
            await self._catch_up(wanted)
            first, lines = await self._part(wanted.streamed(), _lines)
            return await send(request, _NDJSON_FIELDS % first.revision, self._lines(first, lines, wanted))
        finally:
            self._streams -= 1

    async def _lines(self, part: ScanAnswer, lines: bytes, wanted: _Wanted) -> AsyncGenerator[bytes, None]:
        count = 0
        while True:
            yield lines
            count += len(part.found)
            wanted = wanted.after(part) if part.more else wanted
            if not part.more or wanted.most == 0:
                end = RecordStreamEndDocument(revision=part.revision, count=count, more=part.more)
                yield encode(end) + b"\n"
                return
            if self._stopping():
                yield _error("this replica is shutting down: list at another replica", count)
                return
            try:
                part, lines = await self._part(wanted.streamed(), _lines)
            except (Problem, Refused) as error:
                yield _error(str(error), count)
                return


def _accepts_ndjson(request: HttpRequest) -> bool:
    for accepted in (request.header(b"accept") or "").lower().split(","):
        media, *parameters = (part.strip() for part in accepted.split(";"))
        if media == NDJSON:
            return not any(map(_NOT_ACCEPTED.fullmatch, parameters))
    return False


def _found(answer: object, wanted: _Wanted) -> ScanAnswer:
    if isinstance(answer, Refused):
        raise answer
    if isinstance(answer, RevisionUnavailable):
        raise revision_unavailable(answer, wanted.scan.revision or 0, wanted.consistency)
    if not isinstance(answer, ScanAnswer):
        raise TypeError(f"a list was answered with {answer!r}")
    return answer


def _last_of(part: ScanAnswer) -> bytes:
    """Return the key after which the list goes on."""
    return part.stopped_at if part.stopped_at is not None else part.found[-1].key


def _lines(page: ScanAnswer, wanted: _Wanted) -> bytes:
    return b"".join(encode(record) + b"\n" for record in _records(page, wanted))


def _records(page: ScanAnswer, wanted: _Wanted) -> list[RecordDocument]:
    documents = (record_document(found, keys_only=wanted.keys_only) for found in page.found)
    return [document for document in documents if document is not None]


def _error(why: str, count: int) -> bytes:
    return encode(RecordStreamErrorDocument(error=why, count=count)) + b"\n"


def _wanted_by(query: str) -> _Wanted:
    found = parse_query(query, _NAMES)
    span = key_range_in(found) if found.keys() & {"prefix", "start", "end"} else EVERY_KEY
    cursor = _cursor(found["cursor"]) if "cursor" in found else None
    most = integer_in(found, "limit", 1, MAX_REVISION)
    scan = Scan(
        span,
        MAX_LISTED if most is None else min(most, MAX_LISTED),
        integer_in(found, "revision", 1, MAX_REVISION),
        choice_in(found, "order", ("asc", "desc")) == "desc",
    )
    keys_only = choice_in(found, "keys_only", ("false", "true")) == "true"
    return _Wanted(_behind(scan, cursor) if cursor is not None else scan, most, keys_only, consistency_in(found))


def _behind(scan: Scan, cursor: _Cursor) -> Scan:
    start, end = scan.span.start, scan.span.end
    span = Span(start, cursor.last) if scan.reverse else Span(cursor.last + b"\0", end)
    return msgspec.structs.replace(scan, span=span, revision=cursor.revision)


def _cursor(text: str) -> _Cursor:
    try:
        return msgspec.msgpack.decode(b64decode(text, altchars=b"-_", validate=True), type=_Cursor)
    except (ValueError, msgspec.MsgspecError):
        detail = "The cursor is not from an earlier page. Leave it out for the first page."
        raise Problem(INVALID_QUERY, detail) from None
