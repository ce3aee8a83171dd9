"""Requests and answers as bytes."""

import msgspec
import pytest

from bench.load.order import Mix
from bench.load.wire import Answer, Requests, length, parse
from tests.unit.bench.serving import response

MIX = Mix(keys=3, value_bytes=20, prefix="k")


def test_a_put_has_a_value_of_its_own_and_the_length_asked_for() -> None:
    requests = Requests(MIX, worker=0xAB, host="h:1")
    assert requests.make(2, 0x1F) == (
        b"PUT /kv/k2 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 20\r\n\r\n00ab00000000001fvvvv"
    )
    assert requests.name(0x1F) == "00ab00000000001f"


def test_a_get_asks_for_the_key_of_its_complement() -> None:
    assert Requests(MIX, 0, "h:1").make(~1, 5) == b"GET /kv/k1 HTTP/1.1\r\nHost: h:1\r\n\r\n"


def test_a_batch_is_a_transaction_whose_values_all_have_the_name_of_the_request() -> None:
    requests = Requests(Mix(keys=5, value_bytes=18, prefix="k", batch=2), worker=1, host="h:1")
    head, _, body = requests.make(3, 0x1F).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /txn HTTP/1.1\r\nHost: h:1\r\nContent-Length: %d" % len(body))
    puts = [each["put"] for each in msgspec.json.decode(body)["then"]]
    assert puts == [{"key": key, "value": "000100000000001fvv"} for key in ("k2", "k3")]
    assert requests.make(0, 1) == requests.make(2, 1)


def test_fewer_keys_than_are_put_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="10 keys are put at once"):
        Requests(Mix(keys=9, batch=10), 0, "h:1")


def test_a_value_is_named_by_its_beginning_unless_its_rest_is_another() -> None:
    requests = Requests(MIX, 0, "h:1")
    assert requests.name_of(b"00ab00000000001fvvvv") == "00ab00000000001f"
    assert requests.name_of(b"00ab00000000001fvvvx") == "00ab00000000001fvvvx"
    assert requests.name_of(b"00ab00000000001f") == "00ab00000000001f"[:16]


def test_a_value_that_is_too_short_to_be_told_from_others_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes at least"):
        Requests(Mix(value_bytes=15), 0, "h:1")


def test_an_answer_is_whole_when_its_body_is() -> None:
    text = response(200, b"body", 'ETag: "7"')
    assert length(text) == len(text)
    assert length(text[:-1]) == len(text)
    assert length(text + b"HTTP/1.1 200") == len(text)
    assert all(length(text[:end]) is None for end in range(len(text) - len(b"body")))


def test_an_answer_without_a_length_ends_with_its_head() -> None:
    assert length(b"HTTP/1.1 204 No Content\r\n\r\n") == 27


def test_a_length_in_a_body_is_not_one() -> None:
    text = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
    assert length(text + b"\r\nContent-Length: 9\r\n") == len(text)


@pytest.mark.parametrize("name", ["ETag", "Etag", "etag"])
def test_an_answer_has_status_revision_and_body(name: str) -> None:
    assert parse(response(201, b"\r\n\r\n", f'{name}: "12"')) == Answer(201, 12, b"\r\n\r\n")
    assert parse(response(503, b"x")) == Answer(503, None, b"x")
