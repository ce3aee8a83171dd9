"""Refusal of JSON in which an object has a name twice: parsers take one of the two values, and not all the same one.

With two members `compare`, a transaction would silently lose the conditions of one of them. RFC 8259 (4) leaves open
what such an object means, and the decoder of msgspec takes the last one.
"""

from json import JSONDecoder
from typing import Any


class RepeatedNameError(ValueError):
    """Error for an object that has a name twice."""


def refuse_repeated_names(document: bytes) -> None:
    """Raise RepeatedNameError if an object in `document`, which is valid JSON in UTF-8, has a name twice."""
    _decode(document.decode())


def _refuse(members: list[tuple[str, Any]]) -> None:
    if len(members) > 1 and len({name for name, _ in members}) < len(members):
        names = [name for name, _ in members]
        repeated = next(name for name in names if names.count(name) > 1)
        raise RepeatedNameError(f"an object has the name {repeated[:80]!r} twice: leave one of them out")


_decode = JSONDecoder(object_pairs_hook=_refuse, parse_int=len, parse_float=len).decode
"""Decoder that keeps nothing. It converts no numbers: Python refuses those of thousands of digits."""
