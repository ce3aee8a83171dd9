"""Replicas that send scripted responses."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web
from tenacity import stop_after_attempt

from kvstore.client import caller


def value(body: bytes) -> web.Response:
    fields = {"KV-Revision": "7", "KV-Create-Revision": "3", "KV-Version": "2", "ETag": '"7"'}
    return web.Response(body=body, headers=fields)


def problem(status: int, outcome: str | None = None, name: str = "no-leader") -> web.Response:
    document = {"type": f"urn:kvstore:problem:{name}", "title": name, "detail": "what to do"}
    if outcome is not None:
        document["outcome"] = outcome
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/problem+json")


class ScriptedReplica:
    """A replica that sends its responses in order and records the requests. The response None closes the connection."""

    def __init__(self, *answers: web.Response | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, bytes]] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path, await request.read()))
        answer = self.answers.pop(0)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer


class SilentReplica(ScriptedReplica):
    """A replica that never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Semaphore(0)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.came.release()
        await asyncio.Event().wait()
        raise AssertionError("never set")


def end_after_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls give up after three rounds, not at their deadline: whether an attempt that is under way at the deadline
    is answered in time depends on the load of the machine."""
    monkeypatch.setattr(caller, "stop_before_delay", lambda _: stop_after_attempt(3))


@asynccontextmanager
async def serving(*replicas: ScriptedReplica) -> AsyncIterator[list[str]]:
    runners = []
    for replica in replicas:
        runner = web.ServerRunner(web.Server(replica.handle), shutdown_timeout=0.01)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        replica.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        runners.append(runner)
    try:
        yield [replica.url for replica in replicas]
    finally:
        for runner in runners:
            await runner.cleanup()
