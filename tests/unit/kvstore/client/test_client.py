"""The client against scripted replicas: requests that it repeats, requests that it never repeats, and its errors."""

import asyncio
import math
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import pytest
from aiohttp import web

from kvstore.api.commands import DeleteResult, PutResult, Record
from kvstore.api.membership import MemberRole
from kvstore.api.queries import Consistency
from kvstore.api.status import MembersStatus, MemberStatus, Status
from kvstore.client import Client, FencingToken, NoSuchMember, Rejected, Unavailable, UnknownOutcome, caller
from kvstore.client.endpoints import TRIAL_EVERY
from tests.unit.kvstore.client.scripted import ScriptedReplica, SilentReplica, problem, serving, value

T = TypeVar("T")


def free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def talk(*replicas: ScriptedReplica, call: Callable[[Client], Coroutine[Any, Any, T]], attempt_ms: int = 4_000) -> T:
    async def run() -> T:
        async with serving(*replicas) as urls, Client(urls, attempt_ms=attempt_ms, exactly_once=False) as client:
            return await call(client)

    return asyncio.run(run())


def test_get_returns_the_exact_bytes_with_the_revisions() -> None:
    replica = ScriptedReplica(value(b"\x00\xff\r\n"))
    assert talk(replica, call=lambda client: client.get("k")) == Record(b"\x00\xff\r\n", 7, 3, 2)
    assert replica.asked == [("GET", "/kv/k?consistency=linearizable", b"")]


def test_an_absent_key_is_none_but_the_404_of_another_server_is_an_error() -> None:
    assert talk(ScriptedReplica(problem(404, name="no-such-key")), call=lambda client: client.get("k")) is None
    with pytest.raises(Rejected):
        talk(ScriptedReplica(web.Response(status=404)), call=lambda client: client.get("k"))


def test_the_path_contains_the_exact_bytes_of_the_key() -> None:
    paths: dict[bytes | str, str] = {
        b"a/b": "/kv/a%2Fb",
        b"..": "/kv/..",
        b"a/../b": "/kv/a%2F..%2Fb",
        b"//": "/kv/%2F%2F",
        b"%2F": "/kv/%252F",
        b"\xff\x00": "/kv/%FF%00",
        b"?q#f +&": "/kv/%3Fq%23f%20%2B%26",
        "é": "/kv/%C3%A9",
    }
    replica = ScriptedReplica(*[web.json_response({"revision": 1, "version": 1}, status=201) for _ in paths])

    async def call(client: Client) -> None:
        for key in paths:
            assert await client.put(key, b"") == PutResult(1, 1)

    talk(replica, call=call)
    assert replica.asked == [("PUT", path, b"") for path in paths.values()]


def test_delete_returns_the_deleted_version_or_none() -> None:
    deleted = ScriptedReplica(web.json_response({"key": "k", "revision": 9, "version": 2, "deleted_revision": 7}))
    assert talk(deleted, call=lambda client: client.delete("k")) == DeleteResult(9, 2, 7)
    assert talk(ScriptedReplica(problem(404, "failed", "no-such-key")), call=lambda client: client.delete("k")) is None


@pytest.mark.parametrize("status", [503, 429, 408])
def test_a_write_that_certainly_failed_goes_to_the_next_replica(status: int) -> None:
    first = ScriptedReplica(problem(status, "failed"))
    second = ScriptedReplica(web.json_response({"revision": 5, "version": 2}))
    assert talk(first, second, call=lambda client: client.put("k", b"v")) == PutResult(5, 2)
    assert first.asked == second.asked == [("PUT", "/kv/k", b"v")]


def test_a_replica_that_is_down_is_skipped_and_asked_last_from_then_on() -> None:
    async def run() -> None:
        up = ScriptedReplica(value(b"1"), value(b"2"))
        async with serving(up) as urls, Client([free_url(), *urls]) as client:
            first, second = await client.get("k"), await client.get("k")
            assert first is not None
            assert second is not None
            assert (first.value, second.value) == (b"1", b"2")

    asyncio.run(run())


@pytest.mark.parametrize("answer", [problem(503, "unknown"), problem(500), web.Response(status=502), None])
def test_a_write_that_may_have_been_done_is_never_sent_again(answer: web.Response | None) -> None:
    replica, other = ScriptedReplica(answer), ScriptedReplica()
    with pytest.raises(UnknownOutcome, match="may or may not have been executed"):
        talk(replica, other, call=lambda client: client.put("k", b"v"))
    assert len(replica.asked) == 1
    assert not other.asked


def test_a_write_on_a_reused_connection_is_not_sent_again_either() -> None:
    replica = ScriptedReplica(value(b"v"), None)

    async def call(client: Client) -> None:
        await client.get("k")
        with pytest.raises(UnknownOutcome):
            await client.put("k", b"v")

    talk(replica, call=call)
    assert [method for method, _, _ in replica.asked] == ["GET", "PUT"]


def test_a_write_without_an_answer_has_an_unknown_outcome() -> None:
    with pytest.raises(UnknownOutcome):
        talk(SilentReplica(), call=lambda client: client.put("k", b"v"), attempt_ms=50)


@pytest.mark.parametrize("answer", [problem(503), web.Response(status=500), None])
def test_a_read_is_always_repeated(answer: web.Response | None) -> None:
    first, second = ScriptedReplica(answer), ScriptedReplica(value(b"v"))
    record = talk(first, second, call=lambda client: client.get("k", Consistency.QUORUM))
    assert record is not None
    assert record.value == b"v"
    assert second.asked == [("GET", "/kv/k?consistency=quorum", b"")]


def test_a_round_without_success_is_followed_by_another_round() -> None:
    replica = ScriptedReplica(
        problem(503, "failed"), problem(503, "failed"), web.json_response({"revision": 1, "version": 1})
    )
    assert talk(replica, call=lambda client: client.put("k", b"v")) == PutResult(1, 1)
    assert len(replica.asked) == 3


def test_a_replica_that_cannot_be_reached_is_named_with_the_reason() -> None:
    async def run() -> None:
        down = [free_url(), free_url()]
        async with Client(down) as client:
            for url in down:
                with pytest.raises(Unavailable, match=f"cannot connect to {url}: Connection refused"):
                    await client.status(url)

    asyncio.run(run())


def test_a_write_that_was_not_sent_before_the_deadline_is_not_done() -> None:
    async def run() -> None:
        async with Client([free_url(), free_url()], timeout_ms=1, exactly_once=False) as client:
            with pytest.raises(Unavailable, match=r"cannot connect to|timeout of 0.001 s reached"):
                await client.put("k", b"v")

    asyncio.run(run())


def test_a_write_to_a_replica_that_accepts_no_connection_is_not_done() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        address = full.getsockname()
        for _ in range(3):  # without accept(), the system ignores connections once the backlog is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)

        async def run() -> None:
            async with Client([f"http://127.0.0.1:{address[1]}"], timeout_ms=100, exactly_once=False) as client:
                with pytest.raises(Unavailable):
                    await client.put("k", b"v")

        asyncio.run(run())


@pytest.mark.parametrize("status", [400, 413])
def test_a_rejected_request_is_not_repeated(status: int) -> None:
    replica, other = ScriptedReplica(problem(status, "failed")), ScriptedReplica()
    with pytest.raises(Rejected, match="what to do"):
        talk(replica, other, call=lambda client: client.put("k", b"v"))
    assert not other.asked


def test_status_is_asked_of_one_replica_once() -> None:
    status = Status("n1", "c", "leader", True, "1.n1", "1.n1", "n1", 400.0, 5, 5, 3, 2, [], "0.1.0", 1)
    replica = ScriptedReplica(web.Response(body=msgspec.json.encode(status)), web.Response(body=b"hello"), problem(503))

    async def call(client: Client) -> None:
        assert await client.status(replica.url) == status
        with pytest.raises(Unavailable, match="not as a replica of this release"):
            await client.status(replica.url)
        with pytest.raises(Unavailable):
            await client.status(replica.url)

    talk(replica, call=call)


MEMBERS = MembersStatus("n1", 4, True, "n1", [MemberStatus("n1", "h:1", connected=True, heard_ms_ago=0.0)])


def members(status: MembersStatus = MEMBERS, code: int = 200) -> web.Response:
    return web.Response(status=code, body=msgspec.json.encode(status))


def test_members_are_shown_and_changed() -> None:
    replica = ScriptedReplica(*[members() for _ in range(6)])

    async def call(client: Client) -> None:
        assert await client.members() == await client.members_at(replica.url) == MEMBERS
        assert await client.add_member("n4", "h:4", MemberRole.WITNESS) == MEMBERS
        await client.promote_member("n4")
        await client.replace_member("n4", "h:5", force=True)
        await client.remove_member("n4", force=True)

    talk(replica, call=call)
    assert replica.asked[2:] == [
        ("POST", "/members", b'{"name":"n4","address":"h:4","role":"witness"}'),
        ("POST", "/members/n4/promote", b""),
        ("POST", "/members/n4/replace?force=true", b'{"address":"h:5"}'),
        ("DELETE", "/members/n4?force=true", b""),
    ]


@pytest.mark.parametrize(
    "first",
    [problem(503, "unknown", "timeout"), problem(503, "failed"), problem(409, "failed", "members-changed"), None],
)
def test_a_membership_change_is_repeated_after_any_outcome(first: web.Response | None) -> None:
    replica = ScriptedReplica(first, members())
    assert talk(replica, call=lambda client: client.add_member("n4", "h:4")) == MEMBERS
    assert [method for method, _, _ in replica.asked] == ["POST", "POST"]


def test_a_repeated_removal_that_finds_no_member_succeeded_earlier() -> None:
    gone = problem(404, "failed", "no-such-member")
    replica = ScriptedReplica(problem(503, "unknown", "timeout"), gone, members())
    assert talk(replica, call=lambda client: client.remove_member("n4")) == MEMBERS
    with pytest.raises(NoSuchMember):
        talk(ScriptedReplica(problem(404, "failed", "no-such-member")), call=lambda client: client.remove_member("n4"))


def test_a_refused_membership_change_is_not_repeated() -> None:
    replica = ScriptedReplica(problem(409, "failed", "unsafe-change"))
    with pytest.raises(Rejected, match="what to do"):
        talk(replica, call=lambda client: client.remove_member("n4"))


def test_a_pending_membership_change_is_polled_at_all_replicas() -> None:
    pending = msgspec.structs.replace(MEMBERS, in_force=False)
    leaver, stayer = (
        ScriptedReplica(members(pending), members(pending), members(pending)),
        ScriptedReplica(members(pending), members()),
    )
    assert talk(leaver, stayer, call=lambda client: client.remove_member("n4")).in_force
    assert [path for _, path, _ in stayer.asked] == ["/members", "/members"]


def test_misuse_raises_at_once() -> None:
    with pytest.raises(ValueError, match="at least one endpoint"):
        Client([])
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(Client().get("k"))


class PacedReplica(ScriptedReplica):
    """A replica whose responses take `took_s` on a shared clock."""

    def __init__(self, clock: list[float], took_s: float) -> None:
        super().__init__(*[value(b"v") for _ in range(2 * TRIAL_EVERY)])
        self._clock = clock
        self._took_s = took_s

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._clock[0] += self._took_s
        return await super().handle(request)


def test_the_fastest_replica_is_found_and_asked_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(caller, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    slow, fast = PacedReplica(clock, 0.2), PacedReplica(clock, 0.1)

    async def run() -> None:
        async with serving(slow, fast) as urls, Client(urls) as client:
            for _ in range(TRIAL_EVERY + 10):
                await client.get("k")

    asyncio.run(run())
    assert (len(slow.asked), len(fast.asked)) == (TRIAL_EVERY - 1, 11)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get("k", revision=True),
        lambda client: client.get("k", revision=0),
        lambda client: client.put("k", b"", if_revision=1.0),
        lambda client: client.put("k", b"", lease=2**43 + 1),
        lambda client: client.put("k", b"", ttl_s=math.nan),
        lambda client: client.put("k", b"", ttl_s=math.inf),
        lambda client: client.put("k", b"", ttl_s=0),
        lambda client: client.put("k", b"", fence=FencingToken(b"l", 0)),
        lambda client: client.delete("k", if_revision=-1),
        lambda client: anext(client.watch(from_revision=0)),
        lambda client: anext(client.list(page=0)),
        lambda client: client.lease(math.nan),
        lambda client: client.lock("l", wait_s=math.nan).__aenter__(),
        lambda client: client.lock("l", ttl_s=-1).__aenter__(),
    ],
)
def test_a_number_out_of_bounds_is_refused_before_anything_is_sent(call: Callable[[Client], Any]) -> None:
    async def scenario() -> None:
        async with Client([free_url()], exactly_once=False) as client:
            with pytest.raises(ValueError, match=r"=.* is not a (whole number|number of seconds) from"):
                await call(client)

    asyncio.run(scenario())


@pytest.mark.parametrize("timeout", [0, -1, 1.5, True, math.inf, 10**12])
def test_a_timeout_out_of_bounds_is_refused(timeout: Any) -> None:
    for name in ("timeout_ms", "attempt_ms"):
        with pytest.raises(ValueError, match=f"{name}="):
            Client(**{name: timeout})


@pytest.mark.parametrize(
    ("answer", "call"),
    [
        (web.Response(body=b"<html>"), lambda client: client.get("k")),
        (web.Response(headers={"KV-Revision": "x"}), lambda client: client.get("k")),
        (web.Response(headers={"KV-Revision": "9" * 5000}), lambda client: client.revision()),
        (web.Response(body=b"<html>"), lambda client: anext(client.list())),
        (web.Response(body=b"<html>"), lambda client: client.members()),
        (web.Response(body=b"<html>"), lambda client: client.holder("l")),
    ],
)
def test_another_program_than_a_replica_is_named_with_its_address(
    answer: web.Response, call: Callable[[Client], Any]
) -> None:
    with pytest.raises(
        Unavailable, match=r"http://127.0.0.1:\d+ answered 200, but not as a replica .*check the endpoint"
    ):
        talk(ScriptedReplica(answer), call=call)
