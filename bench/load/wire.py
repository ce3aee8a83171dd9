"""Requests as bytes, made before the run, and answers, of which only the status and the end are looked for."""

import re
from collections.abc import Sequence

import msgspec

from bench.load.order import Mix

ID_BYTES = 16
"""A value begins with so many bytes of which there are no two alike in a run. The rest is always the same."""

_MARK = b"#" * ID_BYTES

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_ETAG = re.compile(rb'\r\n[Ee][Tt]ag: *"(\d+)"')


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, with the revision that its ETag names."""

    status: int
    revision: int | None
    body: bytes


class Requests:
    """The requests of one process. `host`: what they name in the header Host."""

    def __init__(self, mix: Mix, worker: int, host: str) -> None:
        if mix.value_bytes < ID_BYTES:
            raise ValueError(f"a value has {ID_BYTES} bytes at least, so that it can be told from any other")
        if mix.keys < mix.batch:
            raise ValueError(f"{mix.batch} keys are put at once: take so many keys at least")
        keys = [b"%s%d" % (mix.prefix.encode(), number) for number in range(mix.keys)]
        host_line = b" HTTP/1.1\r\nHost: %s\r\n" % host.encode()
        put_end = b"Content-Length: %d\r\n\r\n%04x" % (mix.value_bytes, worker)
        self._puts = [b"PUT /kv/" + key + host_line + put_end for key in keys]
        self._gets = [b"GET /kv/" + key + host_line + b"\r\n" for key in keys]
        self._rest = b"v" * (mix.value_bytes - ID_BYTES)
        self._worker = worker
        self._batches: list[bytes] = []
        if mix.batch > 1:
            groups = (keys[first : first + mix.batch] for first in range(0, mix.keys - mix.batch + 1, mix.batch))
            self._batches = [b"POST /txn" + host_line + self._transaction(group) for group in groups]

    def _transaction(self, keys: Sequence[bytes]) -> bytes:
        """Head and body of a request that puts all these keys, with a mark where their values are to be told apart."""
        put = b'{"put":{"key":"%s","value":"%s%s"}}'
        body = b'{"then":[%s]}' % b",".join(put % (key, _MARK, self._rest) for key in keys)
        return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)

    def make(self, operation: int, number: int) -> bytes:
        """The request for an `operation` (see `draw`); `number` is in the value of a PUT, another one for each."""
        if operation < 0:
            return self._gets[~operation]
        if self._batches:
            mark = b"%04x%012x" % (self._worker, number)
            return self._batches[operation % len(self._batches)].replace(_MARK, mark)
        return b"%s%012x%s" % (self._puts[operation], number, self._rest)

    def name(self, number: int) -> str:
        """The first bytes of the value that a PUT with this number has: they stand for all of it."""
        return f"{self._worker:04x}{number:012x}"

    def name_of(self, value: bytes) -> str:
        """The same of a value that was read; all of it, if nobody here has put it."""
        return (value[:ID_BYTES] if value[ID_BYTES:] == self._rest else value).decode(errors="replace")


def length(received: bytes) -> int | None:
    """How long the answer at the beginning of `received` is; None when even its head is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = _LENGTH.search(received, 0, end)
    return end + 4 + (int(found[1]) if found is not None else 0)


def parse(answer: bytes) -> Answer:
    """A whole answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    revision = _ETAG.search(head)
    return Answer(int(head[9:12]), None if revision is None else int(revision[1]), body)
