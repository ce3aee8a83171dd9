"""`kvstore lock`: the command gets the fencing token, and its exit status is passed on."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from kvstore.client import Client, FencingToken, Locked, Unavailable
from kvstore.client.caller import Request
from kvstore.client.clock import boot_time_s
from kvstore.client.errors import Response
from tests.unit.kvstore.cli.command_line import run as run_command


def run(*arguments: str) -> tuple[int, str, str]:
    return run_command("lock", *arguments, columns=80)


class FakeLease:
    id = 17

    def __init__(self) -> None:
        self.ttl_s = 1000.0
        self.lives_until = boot_time_s() + self.ttl_s

    def on_renewed(self, _: Callable[[], None]) -> None:
        """It is never renewed."""

    def on_lost(self, _: Callable[[], None]) -> None:
        """It is lost from the start, or never."""


class FakeLock:
    """Records the calls of `Client.lock`, and whether the lock is held."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, locked: bool = False, lost: bool = False, outages: int = 0
    ) -> None:
        self.asked: list[tuple[bytes, dict[str, Any]]] = []
        self.held = False

        @asynccontextmanager
        async def lock(_: Client, name: bytes, **named: Any) -> AsyncGenerator[object, None]:
            self.asked.append((name, named))
            if len(self.asked) <= outages:
                raise Unavailable("cannot connect")
            if locked:
                raise Locked("others have it: wait")
            gone = asyncio.Event()
            if lost:
                gone.set()
            self.held = True
            try:
                yield SimpleNamespace(fence=FencingToken(name, 23), lease=FakeLease(), lost=gone)
            finally:
                self.held = False

        monkeypatch.setattr(Client, "lock", lock)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_exit_status_of_the_command_is_passed_on(monkeypatch: pytest.MonkeyPatch, script: str, code: int) -> None:
    lock = FakeLock(monkeypatch)
    assert run("deploy", "--ttl", "5", "--wait", "30", "--value", "me", "--", "sh", "-c", script)[0] == code
    assert lock.asked == [(b"deploy", {"ttl_s": 5.0, "wait_s": 30.0, "value": b"me"})]
    assert not lock.held


def test_the_command_finds_the_fencing_token_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeLock(monkeypatch)
    wanted = {"KVSTORE_LOCK": "deploy", "KVSTORE_FENCE": "23", "KVSTORE_LEASE": "17", "KVSTORE_ENDPOINTS": "http://a:1"}
    script = f"import os; raise SystemExit(not {wanted!r}.items() <= os.environ.items())"
    assert run("deploy", "--endpoints", "http://a:1", "--", sys.executable, "-c", script)[0] == 0


def test_put_takes_the_fencing_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    fences: list[FencingToken] = []

    async def put(_: Client, key: bytes, value: bytes, **named: Any) -> None:
        fences.append(named["fence"])
        raise Locked("enough: stop")

    monkeypatch.setattr(Client, "put", put)
    env = {"KVSTORE_LOCK": "deploy", "KVSTORE_FENCE": "23"}
    for name, text in env.items():
        monkeypatch.setenv(name, text)
    assert run_command("put", "k", "v")[0] == 5
    monkeypatch.delenv("KVSTORE_FENCE")
    assert run_command("put", "k", "v")[0] == 2
    assert fences == [FencingToken(b"deploy", 23)]


def test_a_lock_of_another_client_ends_with_5_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeLock(monkeypatch, locked=True)
    code, out, err = run("deploy", "--wait", "0", "--", "/absent")
    assert (code, out) == (5, "")
    assert err.startswith("kvstore: another client holds lock 'deploy': wait longer with --wait")


def test_a_lock_is_waited_for_through_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FakeLock(monkeypatch, outages=3)
    code, _, err = run("deploy", "--wait", "1000", "--", "true")
    assert (code, len(lock.asked)) == (0, 4)
    assert [line.split(",")[0].split(" after")[0] for line in err.splitlines()] == [
        "kvstore: no replica answers",
        "kvstore: a replica answers again",
    ]
    assert all(900 < asked["wait_s"] <= 1000 for _, asked in lock.asked)


def test_an_outage_ends_a_lock_that_is_not_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FakeLock(monkeypatch, outages=3)
    assert run("deploy", "--wait", "0", "--", "true")[0] == 3
    assert len(lock.asked) == 1


def test_a_command_whose_lock_is_lost_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FakeLock(monkeypatch, lost=True)
    code, _, err = run("deploy", "--", "sleep", "1000")
    assert (code, "was lost" in err, lock.held) == (5, True, False)


def test_a_command_that_does_not_start_ends_as_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FakeLock(monkeypatch)
    assert run("deploy", "--", "no-such-command")[0] == 127
    assert run("deploy", "--", "/")[0] == 126
    assert not lock.held


def test_wrong_usage_takes_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FakeLock(monkeypatch)
    assert [run(*arguments)[0] for arguments in (["deploy"], ["", "--", "true"], ["d", "--show", "--", "true"])] == [
        2
    ] * 3
    assert not lock.asked


def test_the_holder_and_the_waiters_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    holder, waiting = {"lease": 17, "fence": 23, "value": "[b]me"}, {"lease": 18, "fence": 24, "value_base64": "/w=="}
    document: dict[str, Any] = {"name": "a/b", "revision": 9, "holder": holder, "waiting": [waiting], "more": False}

    async def ask(_: Client, request: Request) -> Response:
        assert request == Request("GET", "/locks/a%2Fb")
        return Response(200, CIMultiDictProxy(CIMultiDict()), json.dumps(document).encode())

    monkeypatch.setattr(Client, "ask", ask)
    code, out, _ = run("a/b", "--show")
    assert code == 0
    assert [line.split() for line in out.splitlines() if "1" in line] == [
        ["holder", "17", "23", "[b]me"],
        ["waiting", "18", "24", "\\xff"],
    ]
    assert json.loads(run("a/b", "--show", "--json")[1]) == document
    document |= {"holder": None, "waiting": []}
    assert run("a/b", "--show") == (1, "", "kvstore: nobody holds lock 'a/b'\n")
