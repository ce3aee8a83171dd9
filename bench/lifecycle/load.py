"""PUTs at full speed or at a given one, by connections that cost next to nothing: the cores are for the replicas."""

import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence

from yarl import URL

from bench.errors import BenchError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REPEAT_S = 0.1
"""A refused request is repeated after this time."""


def put_request(key: str, value: bytes) -> bytes:
    """A PUT as it goes over the wire. The key is one that needs no encoding."""
    return b"PUT /kv/%s HTTP/1.1\r\nHost: replica\r\nContent-Length: %d\r\n\r\n%s" % (key.encode(), len(value), value)


def puts(keys: int, value_bytes: int, *, prefix: str = "k", rounds: int = 1) -> Iterator[bytes]:
    """Requests for all keys in turn, so many times, with values of which hardly two are equal."""
    pool = random.randbytes(value_bytes + 4096)
    number = 0
    for _ in range(rounds):
        for key in range(keys):
            number += 1
            start = number % 4096
            yield put_request(f"{prefix}{key}", pool[start : start + value_bytes])


class Load:
    """Connections to the replicas at `urls`, in turn, each with one request of `requests` under way, until these end
    or `stop` is called. `per_second`: of all connections together, at even intervals; None for full speed.

    An answer that is not 2xx is counted in `refused`, and its request repeated.
    """

    def __init__(
        self, urls: Sequence[str], connections: int, requests: Iterator[bytes], per_second: float | None = None
    ) -> None:
        self._urls = [URL(url) for url in urls]
        self._connections = connections
        self._requests = requests
        self._interval_s = connections / per_second if per_second else 0.0
        self._stopping = False
        self.answered = 0
        self.refused = 0
        self._latencies_ms: list[float] = []

    async def run(self) -> None:
        """Raises BenchError when a replica closes a connection."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._connections):
                group.create_task(self._connection(self._urls[number % len(self._urls)]))

    def stop(self) -> None:
        """Let `run` end after the requests that are under way."""
        self._stopping = True

    def take_latencies_ms(self) -> list[float]:
        """Those of the requests that were answered since the last call. At a given speed they count from when a request
        was due: one that waits for a slow answer before it waits, too."""
        taken, self._latencies_ms = self._latencies_ms, []
        return taken

    async def _connection(self, url: URL) -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        due = time.perf_counter() + random.random() * self._interval_s
        try:
            for request in self._requests:
                if self._interval_s:
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    began, due = due, due + self._interval_s
                else:
                    began = time.perf_counter()
                if self._stopping:
                    return
                while not await self._ask(reader, writer, request):
                    self.refused += 1
                    await asyncio.sleep(_REPEAT_S)
                self.answered += 1
                self._latencies_ms.append(1000 * (time.perf_counter() - began))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise BenchError(f"{url} closed a connection under load: see its log") from error
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is not None:
            await reader.readexactly(int(length[1]))
        return head.startswith(b"HTTP/1.1 20")
