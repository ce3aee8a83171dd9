"""`kvstore lease`: its requests, and the output that it makes of the answers."""

import json
from collections.abc import Callable

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from kvstore import __version__
from kvstore.api.status import Status
from kvstore.client import Client, NoSuchLease, Unavailable
from kvstore.client.caller import Request
from kvstore.client.errors import Response
from tests.unit.kvstore.cli.command_line import run as run_command

LEADER = Status("n2", "c", "leader", True, "3.n2", "3.n2", "n2", 400.0, 5, 5, 3, 2, [], __version__, 1)
A, B = "http://a:1", "http://b:2"
LEASE = {"id": 17, "ttl_s": 60.0, "left_s": 41.5, "key_count": 2}
KEYS = [{"key": "[red]x"}, {"key_base64": "/w=="}]


def run(*arguments: str) -> tuple[int, str, str]:
    return run_command("lease", *arguments, "--endpoints", f"{A},{B}", columns=80)


Answering = Callable[[dict[str, object]], list[tuple[str, str, str | None]]]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Two replicas, of which the second leads. They answer each path with its document; the list has the requests."""

    def answer(documents: dict[str, object]) -> list[tuple[str, str, str | None]]:
        asked: list[tuple[str, str, str | None]] = []

        async def ask(_: Client, request: Request, endpoint: str | None = None) -> Response:
            asked.append((request.method, request.path, endpoint))
            if request.path not in documents:
                raise NoSuchLease("lease 99 is over: make another one")
            return Response(200, CIMultiDictProxy(CIMultiDict()), json.dumps(documents[request.path]).encode())

        async def status(_: Client, endpoint: str) -> Status:
            if endpoint == A:
                raise Unavailable("down")
            return LEADER

        monkeypatch.setattr(Client, "ask", ask)
        monkeypatch.setattr(Client, "status", status)
        return asked

    return answer


def test_a_list_has_all_pages_of_the_leader(answering: Answering) -> None:
    second = {**LEASE, "id": 18, "left_s": None}
    asked = answering(
        {
            "/leases?after=0": {"revision": 9, "leases": [LEASE], "more": True},
            "/leases?after=17": {"revision": 9, "leases": [second], "more": False},
        }
    )
    code, out, _ = run("list")
    assert code == 0
    assert [line.split() for line in out.splitlines() if "60 s" in line] == [
        ["17", "60", "s", "41.5", "s", "2"],
        ["18", "60", "s", "2"],
    ]
    assert asked == [("GET", "/leases?after=0", B), ("GET", "/leases?after=17", B)]
    _, out, _ = run("list", "--json")
    assert json.loads(out) == {"leases": [LEASE, second]}


def test_a_lease_is_shown_with_its_keys(answering: Answering) -> None:
    answering({"/leases/17": {**LEASE, "keys": KEYS}})
    assert run("show", "17") == (0, "lease 17 of 60 s, 41.5 s left\n  [red]x\n  \\xff\n", "")
    _, out, _ = run("show", "17", "--json")
    assert json.loads(out) == {**LEASE, "keys": KEYS}


def test_a_lease_is_renewed_and_revoked(answering: Answering) -> None:
    asked = answering({"/leases/17/keepalive": {"id": 17, "ttl_s": 60.0}, "/leases/17": {"revision": 9, "deleted": 2}})
    assert run("keepalive", "17")[:2] == (0, "lease 17 renewed for 60 s\n")
    assert run("revoke", "17")[:2] == (0, "revision 9, deleted 2 keys\n")
    assert [each[:2] for each in asked] == [("POST", "/leases/17/keepalive"), ("DELETE", "/leases/17")]


@pytest.mark.parametrize("command", [["show"], ["revoke"], ["keepalive"], ["keepalive", "--every"]])
def test_an_absent_lease_ends_with_1(answering: Answering, command: list[str]) -> None:
    answering({})
    assert run(*command, "99") == (
        1,
        "",
        "kvstore: lease 99 does not exist or has expired: grant one with `kvstore lease grant`\n",
    )
