"""HTTP requests as bytes, prepared before a load, and the length of an answer."""

import re
from collections.abc import Sequence

from bench.load.options import Mix

ID_BYTES = 16
"""Length of the unique number at the beginning of each value."""
FILLER = b"v"
"""Byte that fills the rest of each value."""

_MARK = b"#" * ID_BYTES
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")


class Requests:
    """The requests of a load to `host`, which is the value of their Host header."""

    def __init__(self, mix: Mix, host: str) -> None:
        if mix.value_bytes < ID_BYTES:
            raise ValueError(f"a value needs at least {ID_BYTES} bytes to differ from all others")
        if mix.keys < mix.batch:
            raise ValueError(f"a batch of {mix.batch} keys needs at least as many keys, not {mix.keys}")
        keys = [b"%s%d" % (mix.prefix.encode(), number) for number in range(mix.keys)]
        host_line = b" HTTP/1.1\r\nHost: %s\r\n" % host.encode()
        self._rest = FILLER * (mix.value_bytes - ID_BYTES)
        self._puts = [b"PUT /kv/%s%sContent-Length: %d\r\n\r\n" % (key, host_line, mix.value_bytes) for key in keys]
        self._gets = [b"GET /kv/%s%s\r\n" % (key, host_line) for key in keys]
        self._batches: list[bytes] = []
        if mix.batch > 1:
            groups = (keys[first : first + mix.batch] for first in range(0, mix.keys, mix.batch))
            self._batches = [b"POST /txn" + host_line + self._transaction(group) for group in groups]

    def _transaction(self, keys: Sequence[bytes]) -> bytes:
        put = b'{"put":{"key":"%s","value":"%s%s"}}'
        body = b'{"then":[%s]}' % b",".join(put % (key, _MARK, self._rest) for key in keys)
        return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)

    def make(self, operation: int, number: int) -> bytes:
        """Return the request for an `operation` (see `draw`); `number` makes the value of a PUT unique."""
        if operation < 0:
            return self._gets[~operation]
        if self._batches:
            return self._batches[operation % len(self._batches)].replace(_MARK, b"%016x" % number)
        return b"%s%016x%s" % (self._puts[operation], number, self._rest)


def length(received: bytes) -> int | None:
    """Return the length of the answer at the beginning of `received`, or None while its head is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = _LENGTH.search(received, 0, end)
    return end + 4 + (int(found[1]) if found is not None else 0)
