"""The strict parser of numbers that a person or a program gives: in a URL, a header, a flag, a setting, an argument.

A number has one spelling: decimal digits, with a point in a number of seconds. Python's `int` and `float` also take
`1_000`, ` 5 `, `+5`, `007`, `٣`, `1e3`, `nan` and thousands of digits, which is a typing error more often than it is
meant, and would give one object several names.
"""

import re

_INTEGER = re.compile("0|[1-9][0-9]*", re.ASCII)
_SECONDS = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,20})?", re.ASCII)
_SHOWN_CHARS = 40

_PLAIN_INTEGER = "write decimal digits only, without sign, point, space, separator, exponent and leading zeros"
_PLAIN_SECONDS = "write decimal digits, with at most one point between them, as in 10 or 2.5"


class InvalidNumberError(ValueError):
    """Error for a value that is no number, or out of bounds. The message begins with the value and names the bounds."""


def parse_integer(text: str, least: int, most: int) -> int:
    """Return the whole number that `text` spells. Raises InvalidNumberError unless it is from `least` to `most`."""
    if _INTEGER.fullmatch(text):
        if len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise InvalidNumberError(_not_whole(text, least, most))
    raise InvalidNumberError(f"{_not_whole(text, least, most)}: {_PLAIN_INTEGER}")


def parse_seconds(text: str, least: float, most: float) -> float:
    """Return the seconds that `text` spells. Raises InvalidNumberError unless they are from `least` to `most`."""
    if _SECONDS.fullmatch(text):
        return check_seconds(float(text), least, most)
    raise InvalidNumberError(f"{_not_seconds(text, least, most)}: {_PLAIN_SECONDS}")


def check_integer(value: object, least: int, most: int) -> int:
    """Return `value` if it is an `int` from `least` to `most`. Raises InvalidNumberError otherwise, for `True` too."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise InvalidNumberError(_not_whole(value, least, most))


def check_seconds(value: object, least: float, most: float) -> float:
    """Return `value` if it is a number from `least` to `most`. Raises InvalidNumberError otherwise, for NaN too."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise InvalidNumberError(_not_seconds(value, least, most))


def shown(value: object) -> str:
    """Return `value` for a message, shortened."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARS else f"{value[:_SHOWN_CHARS]!r}... ({len(value)} characters)"
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN_CHARS:
        return f"a number of {value.bit_length()} bits"  # Python refuses to print thousands of digits
    return repr(value)


def _not_whole(value: object, least: int, most: int) -> str:
    return f"{shown(value)} is not a whole number from {least} to {most}"


def _not_seconds(value: object, least: float, most: float) -> str:
    return f"{shown(value)} is not a number of seconds from {least} to {most}"
