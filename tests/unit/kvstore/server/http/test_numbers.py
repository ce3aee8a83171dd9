"""Numbers in paths, queries and headers: one spelling, and bounds that the error names."""

from urllib.parse import quote

import pytest

from tests.unit.kvstore.server.http.fake import Store, request, run

SPELLINGS = ["1_0", " 5", "5 ", "+5", "-5", "-0", "05", "٣", "1e1", "0x5", "nan", "inf", "", "5.", "9" * 5000]

QUERIES = {
    "a time to live": ("PUT", "/kv/a?ttl_s=", "ttl_s"),
    "a lease": ("PUT", "/kv/a?lease=", "lease"),
    "a fencing token": ("PUT", "/kv/a?lock=l&fence=", "fence"),
    "a revision": ("GET", "/kv/a?revision=", "revision"),
    "a limit": ("GET", "/kv/?limit=", "limit"),
    "a first revision": ("GET", "/watch?prefix=&from_revision=", "from_revision"),
    "a lease to list after": ("GET", "/leases?after=", "after"),
    "a lease to release": ("DELETE", "/locks/l?lease=", "lease"),
}


@pytest.mark.parametrize("case", QUERIES.values(), ids=QUERIES)
def test_a_number_in_a_query_has_one_spelling(case: tuple[str, str, str], subtests: pytest.Subtests) -> None:
    method, target, name = case

    async def scenario(store: Store) -> None:
        for spelling in SPELLINGS:
            with subtests.test(spelling[:20]):
                reply = await store.call(method, target + quote(spelling))
                assert reply.status == 400
                problem = reply.problem()
                assert problem["type"] == "urn:kvstore:problem:invalid-query"
                assert problem["detail"].startswith(f"{name}=")
                assert " to " in problem["detail"]  # the bounds
                assert len(problem["detail"]) < 300
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_lease_in_a_path_has_one_name(subtests: pytest.Subtests) -> None:
    async def scenario(store: Store) -> None:
        for spelling in [each for each in SPELLINGS if each]:
            with subtests.test(spelling[:20]):
                reply = await store.call("DELETE", f"/leases/{quote(spelling)}")
                assert reply.status == 404
                assert reply.problem()["type"] == "urn:kvstore:problem:no-such-resource"
        assert store.replica.arrived.empty()

    run(scenario)


HEADERS = {
    "an id of an event": ("GET", "/watch?prefix=", "Last-Event-ID", "{}"),
    "a lease of an idempotency key": ("PUT", "/kv/a", "Idempotency-Key", "{}.1"),
    "a number of an idempotency key": ("PUT", "/kv/a", "Idempotency-Key", "1.{}"),
}


@pytest.mark.parametrize("case", HEADERS.values(), ids=HEADERS)
def test_a_number_in_a_header_has_one_spelling(case: tuple[str, str, str, str], subtests: pytest.Subtests) -> None:
    method, target, name, form = case

    async def scenario(store: Store) -> None:
        for spelling in ("1_0", "+5", "-5", "05", "1e1", "0x5", "nan", "9" * 5000):
            with subtests.test(spelling[:20]):
                reply = await store.call(method, target, headers={name: form.format(spelling)})
                assert reply.status == 400
                assert name in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_revision_in_a_condition_has_one_spelling() -> None:
    """Any other text in quotes is a valid entity tag, which no key has (RFC 9110, 8.8.3)."""

    async def scenario(store: Store) -> None:
        assert (await store.call("PUT", "/kv/a", b"v")).status == 201
        for spelling in ("0_1", "+1", "-1", "01", "1e0", "0x1", "nan", "1" * 5000):
            assert (await store.call("PUT", "/kv/a", headers={"If-Match": f'"{spelling}"'})).status == 412
            assert (await store.call("GET", "/kv/a", headers={"If-None-Match": f'"{spelling}"'})).status == 200
        assert (await store.call("PUT", "/kv/a", headers={"If-Match": '"1"'})).status == 200

    run(scenario)


@pytest.mark.parametrize("key", ['"1.1', '1.1"', '""1.1""', "1.1.1", "1", ".", "1.", ".1"])
def test_an_idempotency_key_of_another_form_is_refused(key: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("PUT", "/kv/a", headers={"Idempotency-Key": key})
        assert reply.problem()["type"] == "urn:kvstore:problem:invalid-idempotency-key"

    run(scenario)


@pytest.mark.parametrize(("length", "status"), [("0" * 5000 + "3", 201), ("0" * 5000 + "9" * 9, 413), ("0003", 201)])
def test_leading_zeros_of_a_length_have_no_meaning(length: str, status: int) -> None:
    """RFC 9110, 8.6: a length is any number of digits. A replica answered 5,000 of them with status 500."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await wire.ask(request("PUT", "/kv/a", f"Content-Length: {length}") + b"abc")).status == status

    run(scenario)


BODIES = [
    ("/leases", '{"ttl_s": "10"}'),
    ("/leases", '{"ttl_s": true}'),
    ("/leases", '{"ttl_s": 1e999}'),
    ("/leases", '{"ttl_s": NaN}'),
    ("/leases", '{"ttl_s": -1}'),
    ("/locks/l", '{"lease": 5.0}'),
    ("/locks/l", '{"lease": 1e2}'),
    ("/locks/l", '{"lease": true}'),
    ("/locks/l", '{"lease": 05}'),
    ("/locks/l", '{"lease": 9007199254740993}'),
    ("/locks/l", '{"lease": ' + "9" * 5000 + "}"),
    ("/locks/l", '{"ttl_s": 10, "wait_s": 1e99}'),
    ("/txn", '{"then": [{"list": {"prefix": "", "limit": 1e2}}]}'),
    ("/txn", '{"then": [{"put": {"key": "a", "value": "", "lease": 5.0}}]}'),
    ("/txn", '{"compare": [{"key": "a", "revision": true}]}'),
    ("/txn", '{"compare": [{"key": "a", "revision": 9223372036854775808}]}'),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_number_in_a_body_has_its_type_and_bounds(path: str, body: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("POST", path, body.encode())
        assert reply.status == 400
        assert store.replica.arrived.empty()

    run(scenario)
