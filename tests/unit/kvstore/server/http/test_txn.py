"""POST /txn."""

import asyncio
import json
import re
from typing import Any

import pytest

from kvstore.api.commands import Compare, Delete, DeleteSpan, Get, List, Put, Relation, Target, Transact
from kvstore.api.json.transaction_parsing import InvalidTransactionError, transaction_of
from kvstore.api.key_range import Span, starting_with
from kvstore.api.limits import MAX_OPERATIONS
from kvstore.server.http import transactions
from kvstore.server.http.limits import HttpLimits
from tests.unit.kvstore.server.http.fake import Reply, Store, request, run


async def post(store: Store, body: Any) -> Reply:
    return await store.call("POST", "/txn", body if isinstance(body, bytes) else json.dumps(body).encode())


def test_a_transaction_compares_and_does_and_tells_what_each_gave() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        await store.call("PUT", "/kv/c%ff", b"\xfe")
        body = {
            "compare": [{"key": "a", "value": "1", "version": 1}, {"prefix": "x/", "exists": False}],
            "then": [
                {"put": {"key": "b", "value": "2"}},
                {"get": {"key_base64": "Y/8="}},
                {"get": {"key": "none"}},
                {"delete": {"key": "a"}},
                {"delete": {"key": "none"}},
                {"delete": {"prefix": "none"}},
                {"list": {"prefix": "", "limit": 1}},
                {"txn": {"compare": [{"key": "b", "exists": False}], "else": [{"put": {"key": "b", "value": ""}}]}},
            ],
            "else": [{"get": {"key": "a"}}],
        }
        reply = await post(store, body)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert json.loads(reply.body) == {
            "succeeded": True,
            "revision": 3,
            "results": [
                {"put": {"revision": 3, "version": 1}},
                {
                    "get": {
                        "key_base64": "Y/8=",
                        "value_base64": "/g==",
                        "revision": 2,
                        "create_revision": 2,
                        "version": 1,
                    }
                },
                {"get": None},
                {"delete": {"revision": 3, "deleted": 1, "deleted_revision": 1, "version": 1}},
                {"delete": {"revision": 3, "deleted": 0}},
                {"delete": {"revision": 3, "deleted": 0}},
                {
                    "list": {
                        "records": [{"key": "b", "value": "2", "revision": 3, "create_revision": 3, "version": 1}],
                        "more": True,
                    }
                },
                {"txn": {"succeeded": False, "revision": 3, "results": [{"put": {"revision": 3, "version": 2}}]}},
            ],
        }
        again = json.loads((await post(store, body)).body)
        assert again == {"succeeded": False, "revision": 3, "results": [{"get": None}]}

    run(scenario)


@pytest.mark.parametrize(
    ("body", "command"),
    [
        ({}, Transact([], [], [])),
        ({"then": [{"put": {"key": "é", "value_base64": "/w=="}}]}, Transact([], [Put("é".encode(), b"\xff")], [])),
        (
            {"compare": [{"key": "a", "revision": {"gt": 3, "lt": 9}, "create_revision": 4}]},
            Transact(
                [
                    Compare(b"a", Target.REVISION, Relation.LESS, 9),
                    Compare(b"a", Target.REVISION, Relation.GREATER, 3),
                    Compare(b"a", Target.CREATE_REVISION, Relation.EQUAL, 4),
                ],
                [],
                [],
            ),
        ),
        (
            {"compare": [{"start": "a", "end": "b", "value": {"ne": "x"}}, {"start": "c", "value_base64": "/w=="}]},
            Transact(
                [
                    Compare(Span(b"a", b"b"), Target.VALUE, Relation.NOT_EQUAL, b"x"),
                    Compare(Span(b"c", None), Target.VALUE, Relation.EQUAL, b"\xff"),
                ],
                [],
                [],
            ),
        ),
        (
            {"else": [{"delete": {"prefix_base64": "/w=="}}, {"list": {"end": "z"}}, {"get": {"key": "a"}}]},
            Transact([], [], [DeleteSpan(starting_with(b"\xff")), List(Span(b"", b"z"), 100), Get(b"a")]),
        ),
        ({"then": [{"delete": {"key": "a"}}]}, Transact([], [Delete(b"a")], [])),
    ],
)
def test_what_a_body_means(body: Any, command: Transact) -> None:
    assert transaction_of(json.dumps(body).encode()) == command


def nested(depth: int) -> dict[str, Any]:
    return {"then": [{"txn": nested(depth - 1)}]} if depth > 1 else {}


PUT = {"put": {"key": "a", "value": ""}}


NO_TRANSACTIONS: list[tuple[Any, str]] = [
    (b"", "not that of a transaction"),
    (b"\xff", "not that of a transaction"),
    (b"[]", "Expected `object`"),
    ({"if": []}, "unknown field `if`"),
    ({"then": [{}]}, r"$.then[0] is not one of put, get, delete, list, txn"),
    ({"then": [{**PUT, "get": {"key": "a"}}]}, "is not one of"),
    ({"then": [PUT, {"put": {"key": "a"}}]}, "$.then[1].put has no value"),
    ({"then": [{"put": {"value": "a"}}]}, "$.then[0].put has no key"),
    ({"then": [{"put": {"key": 3, "value": "a"}}]}, "$.then[0].put.key"),
    ({"then": [{"put": {"key": "", "value": "a"}}]}, "$.then[0].put.key has 0 bytes"),
    ({"then": [{"put": {"key": "k" * 1025, "value": "a"}}]}, "has 1025 bytes"),
    ({"then": [{"put": {"key": "a", "key_base64": "YQ==", "value": ""}}]}, "has key and key_base64"),
    ({"then": [{"put": {"key_base64": "Y", "value": ""}}]}, "$.then[0].put.key_base64"),
    ({"else": [{"delete": {}}]}, "$.else[0].delete has to name its keys in one way"),
    ({"else": [{"delete": {"key": "a", "prefix": "b"}}]}, "in one way"),
    ({"else": [{"list": {"key": "a"}}]}, "get reads one key"),
    ({"else": [{"list": {"prefix": "a", "limit": 0}}]}, "$.else[0].list.limit is 0"),
    ({"compare": [{"key": "a"}]}, "$.compare[0] compares nothing"),
    ({"compare": [{"key": "a", "version": "x"}]}, "$.compare[0].version"),
    ({"compare": [{"key": "a", "version": {"ge": 1}}]}, "unknown field `ge`"),
    (nested(9), "nested more than 8 deep"),
    ({"then": [PUT] * (MAX_OPERATIONS + 1)}, "$ has 1001 compares and operations"),
    ({"then": [{"txn": {"then": [PUT] * 600}}], "compare": [{"key": "a", "exists": True}] * 401}, "$ has 1002"),
    ({"compare": [{"key": "a", "revision": 2**64}]}, "$.compare[0].revision"),
    ({"compare": [{"key": "a", "version": {"gt": -1}}]}, "$.compare[0].version.gt"),
    ({"then": [{"put": {"key": "a", "value": "1", "lease": None}}]}, "got `null` - at `$.then[0].put.lease`"),
    ({"then": [{"put": {"key": "a", "value": "1", "value_base64": None}}]}, "`$.then[0].put.value_base64`"),
    ({"then": [{**PUT, "get": None}]}, "got `null` - at `$.then[0].get`"),
    ({"else": [{"delete": {"start": "a", "end": None}}]}, "got `null` - at `$.else[0].delete.end`"),
    ({"compare": [{"key": "a", "exists": True, "value": None}]}, "got `null` - at `$.compare[0].value`"),
    ({"compare": [{"key": "a", "version": {"gt": 1, "lt": None}}]}, "got `null` - at `$.compare[0].version.lt`"),
    ({"compare": None}, "got `null` - at `$.compare`"),
]


def test_a_body_that_is_no_transaction_is_refused_with_the_place(subtests: pytest.Subtests) -> None:
    for body, says in NO_TRANSACTIONS:
        with subtests.test(says), pytest.raises(InvalidTransactionError, match=re.escape(says)):
            transaction_of(body if isinstance(body, bytes) else json.dumps(body).encode())


def test_as_many_operations_as_are_allowed() -> None:
    body = {"then": [PUT] * MAX_OPERATIONS, "else": [PUT] * MAX_OPERATIONS}
    assert len(transaction_of(json.dumps(body).encode()).then) == MAX_OPERATIONS
    transaction_of(json.dumps(nested(8)).encode())


def test_an_answer_that_would_be_too_large_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MAX_RESPONSE_BYTES", 8)

    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1234")
        get, listed = {"get": {"key": "a"}}, {"list": {"prefix": ""}}
        assert (await post(store, {"then": [get, listed]})).status == 200
        reply = await post(store, {"then": [{"put": {"key": "b", "value": ""}}, {"txn": {"then": [get, get, listed]}}]})
        assert (reply.status, reply.problem()["type"]) == (413, "urn:kvstore:problem:answer-too-large")
        assert "It was done, and the store is at revision 2," in reply.problem()["detail"]

    run(scenario)


def test_a_condition_in_a_header_is_not_for_transactions() -> None:
    async def scenario(store: Store) -> None:
        for method, target in (("POST", "/txn"), ("DELETE", "/kv/?prefix=a")):
            reply = await store.call(method, target, b"{}" if method == "POST" else None, headers={"If-Match": '"1"'})
            assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:unsupported-header")
        assert store.replica.arrived.empty()

    run(scenario)


def test_transactions_count_among_the_requests_in_progress() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        first = asyncio.create_task(post(store, {"then": [PUT]}))
        await store.replica.arrived.get()
        assert (await post(store, {})).status == 429
        store.replica.gate.set()
        assert (await first).status == 200

    run(scenario, HttpLimits(max_in_flight=1))


def test_only_a_post_without_parameters_is_taken() -> None:
    async def scenario(store: Store) -> None:
        assert (await store.call("GET", "/txn")).headers["allow"] == "POST"
        assert (await store.call("POST", "/txn?x=1", b"{}")).status == 400
        invalid = (await post(store, {"then": [{}]})).problem()
        assert (invalid["type"], invalid["outcome"]) == ("urn:kvstore:problem:invalid-transaction", "failed")
        assert invalid["detail"] == "$.then[0] is not one of put, get, delete, list, txn."
        assert store.replica.arrived.empty()
        async with await store.wire() as wire:
            assert (await wire.ask(request("POST", "/txn", "Content-Length: 9999999"))).status == 413

    run(scenario)
