"""Spans of keys, in the order of their bytes."""

import msgspec


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The keys from `start` up to, not including, `end`. There is no upper bound if `end` is None."""

    start: bytes
    end: bytes | None

    def __contains__(self, key: bytes) -> bool:
        return self.start <= key and (self.end is None or key < self.end)


EVERY_KEY = Span(b"", None)


def starting_with(prefix: bytes) -> Span:
    """Return the span of the keys that begin with `prefix`."""
    head = prefix.rstrip(b"\xff")
    return Span(prefix, head[:-1] + bytes([head[-1] + 1]) if head else None)
