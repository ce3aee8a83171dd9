"""Requests and answers as bytes."""

import msgspec
import pytest

from bench.load.options import Mix
from bench.load.wire import Requests, length
from tests.unit.bench.serving import response

MIX = Mix(keys=3, value_bytes=20, prefix="k")


def test_a_put_has_a_unique_value_of_the_given_length() -> None:
    assert Requests(MIX, "h:1").make(2, 0x1F) == (
        b"PUT /kv/k2 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 20\r\n\r\n000000000000001fvvvv"
    )


def test_a_get_reads_the_key_of_its_complement() -> None:
    assert Requests(MIX, "h:1").make(~1, 5) == b"GET /kv/k1 HTTP/1.1\r\nHost: h:1\r\n\r\n"


def test_a_batch_is_a_transaction_over_neighbouring_keys() -> None:
    requests = Requests(Mix(keys=5, value_bytes=18, prefix="k", batch=2), "h:1")
    head, _, body = requests.make(1, 0x1F).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /txn HTTP/1.1\r\nHost: h:1\r\nContent-Length: %d" % len(body))
    puts = [each["put"] for each in msgspec.json.decode(body)["then"]]
    assert puts == [{"key": key, "value": "000000000000001fvv"} for key in ("k2", "k3")]
    assert requests.make(0, 1) == requests.make(3, 1)
    assert b'"k4"' in requests.make(2, 1)


def test_impossible_mixes_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 10 keys"):
        Requests(Mix(keys=9, batch=10), "h:1")
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Requests(Mix(value_bytes=15), "h:1")


def test_an_answer_is_complete_with_its_body() -> None:
    text = response(200, b"body", 'ETag: "7"')
    assert length(text) == len(text)
    assert length(text[:-1]) == len(text)
    assert length(text + b"HTTP/1.1 200") == len(text)
    assert all(length(text[:end]) is None for end in range(len(text) - len(b"body")))


def test_an_answer_without_a_length_ends_with_its_head() -> None:
    assert length(b"HTTP/1.1 204 No Content\r\n\r\n") == 27
    text = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
    assert length(text + b"\r\nContent-Length: 9\r\n") == len(text)  # in the body
