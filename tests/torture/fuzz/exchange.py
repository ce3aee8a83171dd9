"""One connection: what is sent on it, what comes back, and whether that may be."""

import asyncio
import re
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

import msgspec

from tests.torture.fuzz.malformed import SENTINEL, Attempt

ANSWER_S = 10.0
"""What has to be answered is answered by then: a replica ends each request within 3 s, the rest is for a busy
machine."""
PATIENCE_S = 0.3
"""How long is waited where there may be no answer; longer than a replica waits for the rest of a request itself."""
REFUSALS = (503, 507)
"""What a replica that does what it should may answer of 500 and more: not now, and full."""
MOST_READ = 4 << 20

_NO_LINGER = struct.pack("ii", 1, 0)
"""Closed by a reset, so that a hundred thousand connections leave no port in use."""
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n:]+: [^\r\n]*\r\n)*)\r\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]+)\r\n")


class NotHttpError(Exception):
    """What came is no answer."""


class Answer(msgspec.Struct, frozen=True):
    """`fields` by their names in lower case. `whole`: all of it came."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    whole: bool


class Exchange(msgspec.Struct, frozen=True):
    """What came, and whether the replica closed the connection behind it."""

    answers: list[Answer]
    closed: bool


async def exchange(host: str, port: int, attempt: Attempt) -> Exchange:
    """Send it and take what comes. Raises OSError when nobody takes the connection, NotHttpError."""
    reader, writer = await asyncio.open_connection(host, port, limit=MOST_READ)
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    received = bytearray()
    try:
        await _send(writer, attempt)
        if attempt.cut:
            return Exchange([], closed=False)
        closed = await _receive(reader, received, attempt)
    finally:
        writer.transport.abort()
    return Exchange(parse(bytes(received), attempt), closed=closed)


async def _send(writer: asyncio.StreamWriter, attempt: Attempt) -> None:
    """As much of it as the replica takes: it may close before."""
    for piece in attempt.pieces:
        if writer.transport.is_closing():
            return
        writer.write(piece)
        await asyncio.sleep(attempt.pause_s)


async def _receive(reader: asyncio.StreamReader, received: bytearray, attempt: Attempt) -> bool:
    """True when the replica closed; else until all that must come is there, and for a moment what else may come."""
    try:
        async with asyncio.timeout(ANSWER_S) as limit:
            due = True
            while len(received) < MOST_READ:
                if due and _has_all(parse(bytes(received), attempt), attempt):
                    if attempt.whole:
                        return False
                    due = False
                    limit.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
                data = await reader.read(1 << 16)
                if not data:
                    return True
                received += data
    except TimeoutError:
        return False
    except OSError:  # by a reset: it had not read all that was sent
        return True
    return False


def _has_all(answers: list[Answer], attempt: Attempt) -> bool:
    """All that must come. A stream need not end."""
    final = [answer for answer in answers if answer.status != 100]
    if any(b"transfer-encoding" in answer.fields for answer in final):
        return True
    return len(final) >= attempt.good + attempt.whole and all(answer.whole for answer in final)


def parse(received: bytes, attempt: Attempt) -> list[Answer]:
    """All answers in it; the last one may not be whole. Raises NotHttpError."""
    answers: list[Answer] = []
    at = 0
    while at < len(received):
        head = _HEAD.match(received, at)
        if head is None:
            if b"\r\n\r\n" in received[at:] or not received.startswith(b"HTTP/1.1 "[: len(received) - at], at):
                raise NotHttpError(repr(received[at : at + 200]))
            break
        fields = dict(_field(line) for line in head[2].split(b"\r\n")[:-1])
        status = int(head[1])
        body, at, whole = _body(
            received, head.end(), status, fields, bodiless=attempt.bodiless and len(answers) >= attempt.good
        )
        answers.append(Answer(status, fields, body, whole))
    return answers


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name.lower(), value


def _body(
    received: bytes, at: int, status: int, fields: dict[bytes, bytes], *, bodiless: bool
) -> tuple[bytes, int, bool]:
    """It, where it ends, and whether it is whole."""
    if status in (100, 304) or (bodiless and (status != 400 or at == len(received))):
        return b"", at, True  # what is malformed is answered with a body, whatever the method
    if b"transfer-encoding" in fields:
        return _chunks(received, at)
    length = int(fields.get(b"content-length", b"0"))
    return received[at : at + length], min(at + length, len(received)), at + length <= len(received)


def _chunks(received: bytes, at: int) -> tuple[bytes, int, bool]:
    parts: list[bytes] = []
    while (size := _CHUNK.match(received, at)) is not None:
        length, start = int(size[1], 16), size.end()
        if length == 0:
            return b"".join(parts), start + 2, True
        parts.append(received[start : start + length])
        at = start + length + 2
    return b"".join(parts), len(received), False


def fault(attempt: Attempt, found: Exchange, types: Collection[str]) -> str | None:
    """Why this must not be, None where all is well. `types`: of the problems that the replica describes."""
    final = [answer for answer in found.answers if answer.status != 100]
    if attempt.cut:
        return None
    if attempt.whole and not found.closed and not final:
        return "no answer"
    for number, answer in enumerate(final[: attempt.good]):
        if (answer.status, answer.body) != (200, SENTINEL[1]):
            return f"good request {number + 1} was answered by {answer.status} {answer.body[:200]!r}"
    if len(final) < attempt.good:
        return f"of {attempt.good} good requests {len(final)} were answered"
    return next((why for answer in final if (why := _why_not(answer, types)) is not None), None)


def _why_not(answer: Answer, types: Collection[str]) -> str | None:
    if answer.status < 400 or not answer.whole or not answer.body:
        return None if answer.status < 500 or answer.status in REFUSALS else f"answered by {answer.status}"
    what = f"{answer.status} {answer.body[:300]!r}"
    if answer.status >= 500 and answer.status not in REFUSALS:
        return f"answered by {what}"
    if answer.fields.get(b"content-type") != b"application/problem+json":
        return f"{what} is no problem"
    try:
        problem = msgspec.json.decode(answer.body, type=_Problem)
    except msgspec.MsgspecError as error:
        return f"{what} is no problem: {error}"
    if problem.status != answer.status or problem.type not in types or not problem.detail:
        return f"{what} is not described"
    return None


class _Problem(msgspec.Struct):
    type: str
    status: int
    detail: str
