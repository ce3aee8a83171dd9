"""The numbers of the command line: every option and argument that is a number is parsed here."""

from collections.abc import Callable

import typer

from kvstore.api.limits import MAX_REVISION, MAX_TTL_S, MIN_TTL_S
from kvstore.api.numbers import InvalidNumberError, parse_integer, parse_seconds


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return the parser of a whole number from `least` to `most`, for `parser=` of an option."""

    def parse(given: str | int) -> int:
        try:
            return given if isinstance(given, int) else parse_integer(given, least, most)  # typer parses defaults too
        except InvalidNumberError as error:
            raise typer.BadParameter(f"{error}.") from None

    return parse


def seconds(least: float, most: float) -> Callable[[str], float]:
    """Return the parser of a number of seconds from `least` to `most`, for `parser=` of an option."""

    def parse(given: str | float) -> float:
        try:
            return parse_seconds(given, least, most) if isinstance(given, str) else given
        except InvalidNumberError as error:
            raise typer.BadParameter(f"{error}.") from None

    return parse


revision_number = whole_number(1, MAX_REVISION)
"""Parser of revisions, leases and fencing tokens."""
ttl_seconds = seconds(MIN_TTL_S, MAX_TTL_S)
"""Parser of times to live."""
wait_seconds = seconds(0, MAX_TTL_S)
"""Parser of times to wait."""
