"""The meaning of the answers of a load for its history."""

import pytest

from bench.load.connection import Connection
from bench.load.options import Mix
from tests.torture.load_history import LoadHistory
from tests.unit.bench.serving import response, served

MIX = Mix(keys=9, value_bytes=20, prefix="k")
ABSENT = b'{"type":"urn:kvstore:problem:no-such-key"}'


def told(operation: int, answer: bytes | None) -> tuple[str, str, str | None, int | None]:
    history = LoadHistory(MIX)
    with served(lambda *_: b"") as address:
        connection = Connection(address)
        connection.operation, connection.number, connection.sent_ns = operation, 5, 10
        if answer is None:
            history.lost(connection, 20)
        else:
            history.answered(connection, answer, 20)
        connection.socket.close()
    (call,) = history.calls
    assert (call.called_ns, call.returned_ns, call.key) == (10, 20, "k3")
    return call.kind, call.outcome, call.value, call.revision


OWN = "0000000000000005"


@pytest.mark.parametrize(
    ("answer", "outcome", "revision"),
    [
        (response(201, b"{}", 'ETag: "7"'), "answered", 7),
        (response(200, b"{}", 'ETag: "8"'), "answered", 8),
        (response(503, b'{"outcome":"failed"}'), "refused", None),
        (response(503, b'{"outcome":"unknown"}'), "unknown", None),
        (response(502, b"<html>"), "unknown", None),
        (None, "unknown", None),
    ],
)
def test_a_put(answer: bytes | None, outcome: str, revision: int | None) -> None:
    assert told(3, answer) == ("put", outcome, OWN, revision)


@pytest.mark.parametrize(
    ("answer", "outcome", "value", "revision"),
    [
        (response(200, b"0002000000000009vvvv", 'ETag: "7"'), "answered", "0002000000000009", 7),
        (response(200, b"something else", 'ETag: "7"'), "answered", "something else", 7),
        (response(404, ABSENT), "answered", None, None),
        (response(404, b""), "refused", None, None),
        (response(503, b"{}"), "refused", None, None),
        (None, "refused", None, None),
    ],
)
def test_a_get(answer: bytes | None, outcome: str, value: str | None, revision: int | None) -> None:
    assert told(~3, answer) == ("get", outcome, value, revision)
