"""Public bug reports of other stores and HTTP servers, replayed. docs/field-reports.md has the whole list."""

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import pytest

from kvstore.api.key_range import starting_with
from kvstore.client import Compacted, Locked, SyncClient
from kvstore.testing import LocalCluster

pytestmark = pytest.mark.cluster

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, {"history_revisions": 50}) as running:
        yield running
        running.wait_ready()


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[SyncClient]:
    with SyncClient(cluster.endpoints, timeout_ms=PATIENCE_MS) as client:
        yield client


def ask(endpoint: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send one request and return the status and the JSON document of the response."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=PATIENCE_MS / 1000)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else text
    finally:
        connection.close()


def exchange(endpoint: str, request: bytes) -> bytes:
    """Send bytes, and return the bytes that arrive until the server closes the connection."""
    address = urlsplit(endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_MS / 1000) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# Watches and revisions


def test_a_watch_from_any_revision_has_every_change_or_is_refused(cluster: LocalCluster, client: SyncClient) -> None:
    """etcd 18089 and 19179: a watch from the revision of a compaction missed the deletion of that revision."""
    changes = []
    for number in range(60):
        changes.append((client.put("gone", b"%d" % number).revision, True))
        deleted = client.delete("gone")
        assert deleted is not None
        changes.append((deleted.revision, False))
    served = 0
    for first, (revision, _) in enumerate(changes):
        watch = islice(client.watch(starting_with(b"gone"), from_revision=revision), len(changes) - first)
        try:
            received = [(change.revision, change.record is not None) for change in watch]
        except Compacted:
            continue
        assert received == changes[first:]
        served += 1
    assert 20 < served < len(changes)


def test_the_revision_never_goes_back_from_one_replica_to_the_next(cluster: LocalCluster, client: SyncClient) -> None:
    """Consul 7939: the index of a query went back when another server answered."""
    with ThreadPoolExecutor(1) as writers, SyncClient(cluster.endpoints, timeout_ms=PATIENCE_MS) as writer:
        written = writers.submit(lambda: [writer.put("counter", b"%d" % number).revision for number in range(300)])
        seen = [0]
        while not written.done():
            for name in cluster.names:
                _, document = ask(cluster.endpoint(name), "GET", "/kv/?prefix=counter&limit=1")
                assert document["revision"] >= seen[-1]
                seen.append(document["revision"])
        assert ask(cluster.endpoint("n2"), "GET", "/kv/?limit=1")[1]["revision"] == written.result()[-1]


# Leases and locks


def test_a_lease_that_ends_while_there_is_no_majority_ends_when_there_is_one(cluster: LocalCluster) -> None:
    """etcd 9935: the revocation of an expired lease failed once, and its key stayed for ever."""
    client = cluster.client(timeout_ms=PATIENCE_MS)
    client.put("stale/registration", b"", lease=client.lease(ttl_s=1))
    revision = client.revision()
    leader = cluster.wait_ready()
    cluster.kill(*(name for name in cluster.names if name != leader))
    watch = cluster.client(leader, timeout_ms=PATIENCE_MS).watch(starting_with(b"stale/"), from_revision=revision)
    cluster.revive()
    assert next(change for change in watch if change.record is None).key == b"stale/registration"


def test_a_key_belongs_to_the_lease_of_its_last_put_only(client: SyncClient) -> None:
    """etcd 8185: a key that was put with one lease and then with another was expected to end with either."""
    first, second = client.lease(ttl_s=600), client.lease(ttl_s=600)
    with first as old, second as new:
        client.put("node", b"1", lease=old)
        client.put("node", b"2", lease=new)
        old.revoke()
        record = client.get("node")
        assert record is not None
        assert record.value == b"2"
    assert client.get("node") is None


def test_the_end_of_a_session_gives_the_lock_to_the_client_that_waits(
    cluster: LocalCluster, client: SyncClient
) -> None:
    """Consul 5205: a lock stayed with a destroyed session, and clients that waited heard nothing."""
    endpoint = cluster.endpoint("n1")
    _, held = ask(endpoint, "POST", "/locks/tank", {"ttl_s": 600})
    with ThreadPoolExecutor(1) as waiters:
        waiter = waiters.submit(ask, cluster.endpoint("n2"), "POST", "/locks/tank", {"ttl_s": 600, "wait_s": 60})
        while not ask(endpoint, "GET", "/locks/tank")[1]["waiting"]:
            assert not waiter.done()
        assert ask(endpoint, "DELETE", f"/leases/{held['lease']}")[0] == 200
        status, granted = waiter.result()
    assert status == 200
    assert granted["held"]
    assert granted["fence"] > held["fence"]
    assert ask(endpoint, "DELETE", f"/leases/{granted['lease']}")[0] == 200


def test_a_lock_that_was_lost_in_an_outage_can_be_acquired_again_by_the_same_client() -> None:
    """Consul 4902: after an outage of the whole cluster, the client took the lock for held for ever."""
    with LocalCluster() as failing:
        client = failing.client(timeout_ms=PATIENCE_MS)
        with client.lock("deploy", ttl_s=1) as held:
            failing.kill(*failing.names)
            held.lost.wait()
            failing.revive()
        with client.lock("deploy", ttl_s=60) as again:
            assert again.fence.token > held.fence.token


def test_a_client_that_waits_for_longer_than_its_lease_still_gets_the_lock(cluster: LocalCluster) -> None:
    """etcd 12334: a candidate that waited for longer than the TTL of its lease could never win."""
    endpoint = cluster.endpoint("n1")
    _, held = ask(endpoint, "POST", "/locks/campaign", {"ttl_s": 3})  # nobody renews this lease
    status, granted = ask(cluster.endpoint("n2"), "POST", "/locks/campaign", {"ttl_s": 1, "wait_s": 60})
    assert (status, granted["held"]) == (200, True)
    assert granted["fence"] > held["fence"]
    ask(endpoint, "DELETE", f"/leases/{granted['lease']}")


def test_a_request_for_a_held_lock_leaves_nothing_behind(cluster: LocalCluster, client: SyncClient) -> None:
    """kazoo 732: an attempt that did not wait left its entry in the queue, and later got the lock for nobody."""
    with client.lock("once", ttl_s=600):
        with pytest.raises(Locked), client.lock("once", ttl_s=600, wait_s=0):
            raise AssertionError("held twice")
        assert ask(cluster.endpoint("n1"), "GET", "/locks/once")[1]["waiting"] == []
    assert client.holder("once") is None


def test_a_closed_client_refuses_every_call(cluster: LocalCluster) -> None:
    """kazoo 482: acquiring a lock with a closed client never returned."""
    client = SyncClient(cluster.endpoints)
    with client:
        client.put("a", b"1")
    with pytest.raises(RuntimeError, match="not open"):
        client.get("a")
    with pytest.raises(RuntimeError, match="not open"), client.lock("deploy"):
        raise AssertionError("held without a client")


# Members


def test_a_member_that_was_added_with_a_wrong_address_stops_nothing_and_can_be_removed() -> None:
    """etcd 3505, 6420 and 3000: a member with a wrong address cost the majority, and could not be removed."""
    with LocalCluster(1) as single:
        client = single.client(timeout_ms=PATIENCE_MS)
        endpoint = single.endpoint("n1")
        assert ask(endpoint, "POST", "/members", {"name": "n9", "address": "127.0.0.1:1"})[0] == 201
        for number in range(40):
            client.put("a", b"%d" % number)
        assert ask(endpoint, "DELETE", "/members/n9")[0] == 200
        assert [member.name for member in client.members().members] == ["n1"]
        client.put("a", b"last")


def test_a_replica_that_is_not_ready_answers_every_call_or_says_why() -> None:
    """rqlite 1698: a request for the list of nodes ended a node that was still loading."""
    with LocalCluster() as starting:
        starting.client().put("a", b"1")
        starting.kill("n2", "n3")
        endpoint = starting.endpoint("n1")
        while ask(endpoint, "GET", "/readyz")[0] == 200:
            pass
        for path in ("/status", "/members", "/metrics", "/livez", "/kv/a?consistency=stale", "/"):
            assert ask(endpoint, "GET", path)[0] == 200
        for path in ("/readyz", "/leases", "/locks/deploy", "/kv/", "/kv/a"):
            status, problem = ask(endpoint, "GET", path)
            assert (status, problem["status"]) == (503, 503)
            assert problem["detail"]
        starting.revive()


# HTTP


def test_a_head_of_an_error_has_no_body_and_the_connection_goes_on(cluster: LocalCluster) -> None:
    """aiohttp 10322: the body in the answer to a HEAD was taken for the next answer."""
    answer = exchange(
        cluster.endpoint("n1"),
        b"HEAD /kv/absent HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"HEAD /absent HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    heads = answer.split(b"\r\n\r\n")
    assert [head[:12] for head in heads[:3]] == [b"HTTP/1.1 404", b"HTTP/1.1 404", b"HTTP/1.1 200"]
    assert heads[3:] == [b"ok\n"]


def test_the_unread_body_of_a_request_is_not_the_next_request(cluster: LocalCluster) -> None:
    """aiohttp 6566 and 5220: what was left of a body that nobody read was parsed as a request."""
    smuggled = b"PUT /kv/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    for path in (b"/kv/absent", b"/status", b"/nothing/here"):
        length = b"Content-Length: %d\r\n\r\n" % len(smuggled)
        answer = exchange(
            cluster.endpoint("n1"),
            b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + length + smuggled,
        )
        assert answer.count(b"HTTP/1.1 ") == 1
    assert cluster.client().get("smuggled") is None


def test_a_keep_alive_of_http_1_0_has_a_length_and_a_second_answer(cluster: LocalCluster) -> None:
    """aiohttp 526: `ab -k` waited for the end of an answer that named no length."""
    request = b"GET /livez HTTP/1.0\r\nHost: localhost\r\nConnection: %s\r\n\r\n"
    answer = exchange(cluster.endpoint("n1"), request % b"keep-alive" + request % b"close")
    assert answer.count(b" 200 OK\r\n") == 2
    assert answer.lower().count(b"content-length: 3\r\n") == 2
    assert b"connection: keep-alive" in answer.lower()
