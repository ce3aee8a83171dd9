"""One connection: sending an attempt, parsing the answers, and judging them."""

import asyncio
import re
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

import msgspec

from tests.torture.fuzz.malformed import SENTINEL, Attempt

ANSWER_S = 10.0
"""Time for a required answer. A replica ends each request within 3 s; the rest is for a busy machine."""
PATIENCE_S = 0.3
"""Time for an optional answer."""
REFUSALS = (501, 503, 505, 507)
"""Statuses from 500 on that a correct replica may answer: not implemented, unavailable, and out of space."""
OF_BYTES = (400, 414, 431, 501, 505)
"""Statuses of the answers to bytes that are no request, which have a body whatever the method is."""
MAX_READ = 4 << 20

_NO_LINGER = struct.pack("ii", 1, 0)
"""Socket option to close with a reset, so that a hundred thousand connections leave no port in TIME_WAIT."""
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n:]+: [^\r\n]*\r\n)*)\r\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]+)\r\n")


class NotHttpError(Exception):
    """The received bytes are not an HTTP answer."""


class FuzzAnswer(msgspec.Struct, frozen=True):
    """An answer. `fields` has headers by lower-case name; `whole` means that the answer is complete."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    whole: bool


class FuzzExchange(msgspec.Struct, frozen=True):
    """The answers to an attempt, and whether the replica closed the connection."""

    answers: list[FuzzAnswer]
    closed: bool


async def exchange(host: str, port: int, attempt: Attempt) -> FuzzExchange:
    """Send an attempt and receive the answers. Raises OSError without a connection, NotHttpError."""
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_READ)
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    received = bytearray()
    try:
        await _send(writer, attempt)
        if attempt.cut:
            return FuzzExchange([], closed=False)
        closed = await _receive(reader, received, attempt)
    finally:
        writer.transport.abort()
    return FuzzExchange(parse(bytes(received), attempt), closed=closed)


async def _send(writer: asyncio.StreamWriter, attempt: Attempt) -> None:
    """Send the pieces; the replica may close the connection before the last one."""
    for piece in attempt.pieces:
        if writer.transport.is_closing():
            return
        writer.write(piece)
        await asyncio.sleep(attempt.pause_s)


async def _receive(reader: asyncio.StreamReader, received: bytearray, attempt: Attempt) -> bool:
    """Receive required answers, or optional ones for PATIENCE_S; return True when the replica closed the connection."""
    try:
        async with asyncio.timeout(ANSWER_S) as limit:
            due = True
            while len(received) < MAX_READ:
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
    except OSError:  # a reset: the replica had not read everything
        return True
    return False


def _has_all(answers: list[FuzzAnswer], attempt: Attempt) -> bool:
    """Return whether all required answers have arrived; a stream need not end."""
    final = [answer for answer in answers if answer.status != 100]
    if any(b"transfer-encoding" in answer.fields for answer in final):
        return True
    return len(final) >= attempt.good + attempt.whole and all(answer.whole for answer in final)


def parse(received: bytes, attempt: Attempt) -> list[FuzzAnswer]:
    """Parse the answers; the last one may be incomplete. Raises NotHttpError."""
    answers: list[FuzzAnswer] = []
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
        answers.append(FuzzAnswer(status, fields, body, whole))
    return answers


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name.lower(), value


def _body(
    received: bytes, at: int, status: int, fields: dict[bytes, bytes], *, bodiless: bool
) -> tuple[bytes, int, bool]:
    """Return a body, the index of its end, and whether it is complete."""
    ends = at == len(received) or received.startswith(b"HTTP/", at)
    if status in (100, 304) or (bodiless and (status not in OF_BYTES or ends)):
        return b"", at, True  # bytes that are no request are answered with a body, also where they begin with HEAD
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


def violation(attempt: Attempt, found: FuzzExchange, types: Collection[str]) -> str | None:
    """Describe an error in the answers, or return None. `types` has the problem types that the replica documents."""
    final = [answer for answer in found.answers if answer.status != 100]
    if attempt.cut:
        return None
    if attempt.whole and not found.closed and not final:
        return "no answer"
    for number, answer in enumerate(final[: attempt.good]):
        if (answer.status, answer.body) != (200, SENTINEL[1]):
            return f"good request {number + 1} was answered with status {answer.status} {answer.body[:200]!r}"
    if len(final) < attempt.good:
        return f"only {len(final)} of {attempt.good} good requests were answered"
    return next((why for answer in final if (why := _problem_violation(answer, types)) is not None), None)


def _problem_violation(answer: FuzzAnswer, types: Collection[str]) -> str | None:
    if answer.status < 400 or not answer.whole or not answer.body:
        return None if answer.status < 500 or answer.status in REFUSALS else f"answered with status {answer.status}"
    what = f"{answer.status} {answer.body[:300]!r}"
    if answer.status >= 500 and answer.status not in REFUSALS:
        return f"answered with status {what}"
    if answer.fields.get(b"content-type") != b"application/problem+json":
        return f"{what} is not application/problem+json"
    try:
        problem = msgspec.json.decode(answer.body, type=_ProblemBody)
    except msgspec.MsgspecError as error:
        return f"{what} is not a problem: {error}"
    if problem.status != answer.status or problem.type not in types or not problem.detail:
        return f"{what} is not in /openapi.json"
    return None


class _ProblemBody(msgspec.Struct):
    type: str
    status: int
    detail: str
