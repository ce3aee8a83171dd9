"""The numbers that callers give to a client, checked before anything is sent. Each function raises ValueError."""

from kvstore.api.limits import MAX_REVISION, MAX_TTL_S, MIN_TTL_S
from kvstore.api.numbers import InvalidNumberError, check_integer, check_seconds

_MAX_MS = 1000 * MAX_TTL_S


def check_positive(name: str, value: int | None) -> None:
    """Check an integer that is at least 1: a revision, a lease, a fencing token, or a number of keys."""
    _check_integer(name, value, MAX_REVISION)


def check_timeout_ms(name: str, value: int) -> None:
    """Check a timeout in milliseconds."""
    _check_integer(name, value, _MAX_MS)


def check_ttl_s(value: float | None) -> None:
    """Check the time to live of a lease."""
    _check_seconds("ttl_s", value, MIN_TTL_S)


def check_wait_s(value: float | None) -> None:
    """Check a time to wait for a lock."""
    _check_seconds("wait_s", value, 0)


def _check_integer(name: str, value: int | None, most: int) -> None:
    try:
        if value is not None:
            check_integer(value, 1, most)
    except InvalidNumberError as error:
        raise ValueError(f"{name}={error}") from None


def _check_seconds(name: str, value: float | None, least: float) -> None:
    try:
        if value is not None:
            check_seconds(value, least, MAX_TTL_S)
    except InvalidNumberError as error:
        raise ValueError(f"{name}={error}") from None
