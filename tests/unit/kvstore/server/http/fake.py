"""A replica in memory, a front end before it, and a client that sees every byte."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

import aiohttp
import msgspec
import uvloop
from yarl import URL

from kvstore.api.commands import (
    Command,
    CommandBatch,
    Delete,
    KeyCommand,
    NotReconfigured,
    Put,
    Reconfigure,
    Reconfigured,
    Result,
)
from kvstore.api.errors import Refused
from kvstore.api.membership import Member, Membership, MembershipVersion, refusal
from kvstore.api.queries import Consistency, LeaseLookup, LeaseScan, LockLookup, Lookup, Query
from kvstore.api.results import QueryAnswer, ReadAnswer
from kvstore.api.status import MembersStatus, MemberStatus, Status
from kvstore.server.http.cross_site import HostNames
from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.server import Frontend
from kvstore.server.metrics import Metrics
from kvstore.server.pacer import Pacer
from kvstore.server.trace import Trace
from kvstore.state_machine.history import History
from kvstore.state_machine.lease_index import LeaseIndex
from kvstore.state_machine.reads import look_up, look_up_lease
from kvstore.state_machine.state_machine import StateMachine
from storage.base import StatePage

HANGS_S = 300.0

STATUS = Status(
    id="n1",
    cluster="c",
    role="follower",
    ready=True,
    ballot="3.n2",
    promised="3.n2",
    leader="n2",
    lease_left_ms=None,
    chosen=12,
    applied=11,
    revision=9,
    keys=4,
    members=[MemberStatus(name="n2", address="127.0.0.1:9002", connected=True, heard_ms_ago=3.5)],
    version="0.1.0",
    wire_version=1,
)


def _key_of(command: KeyCommand) -> bytes:
    return command.key if isinstance(command, Put | Delete) else b""


class FakeReplica:
    """`fails` is raised by every request; while `gate` is closed requests wait, and `arrived` gets each one's key."""

    def __init__(self) -> None:
        self.machine = StateMachine([])
        self.records = self.machine.records
        self._sequence = 0
        self.pacer = Pacer(lambda: 0)
        self.tapped: Trace | None = None
        self.hearers: list[Callable[[], None]] = []
        self.reads: list[tuple[bytes, Consistency]] = []
        self.pages: list[StatePage] = []
        self.readers: set[str] = set()
        self.age_ms: float | None = 4.4
        self.present = STATUS
        self.stopping = False
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.done: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting: set[asyncio.Task[Any]] = set()
        self.membership = Membership(
            3, tuple(Member(f"n{number}", f"127.0.0.1:900{number}", incarnation=number) for number in (1, 2, 3))
        )
        self.connected = {"n1", "n2", "n3"}
        self.leader: str | None = "n2"
        self.meanwhile: Membership | None = None
        """What the members become through somebody else, just before the next change of them is ordered."""

    def _later(self, key: bytes, act: Callable[[], Any], reply: Callable[[Any], None]) -> None:
        """Reply with what `act` gives, at once while the gate is open."""
        self.arrived.put_nowait(key)
        if self.fails is not None and not isinstance(self.fails, Refused):
            raise self.fails

        def replies() -> None:
            reply(self.fails if self.fails is not None else act())

        if self.gate.is_set():
            replies()
        else:
            task = asyncio.create_task(self.gate.wait())
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
            task.add_done_callback(lambda _: replies())

    def write(self, command: Command, reply: Callable[[Result | Refused], None]) -> None:
        if isinstance(command, Reconfigure):
            self._later(b"", lambda: self._reconfigure(command.membership), reply)
        else:
            self._later(_key_of(command), lambda: self._apply(command), reply)

    def _apply(self, command: KeyCommand) -> Result:
        self.done.put_nowait(_key_of(command))
        self._sequence += 1
        results = self.machine.apply(CommandBatch("fake", 1, self._sequence, self._sequence, [command]), 1)
        assert results is not None
        self.hear()
        return results[0]

    def read(self, query: Query, consistency: Consistency, reply: Callable[[Any], None]) -> None:
        key = query if isinstance(query, bytes) else query.key if isinstance(query, Lookup) else b""
        self.reads.append((key, consistency))

        def look() -> QueryAnswer:
            if isinstance(query, bytes):
                lease = self.machine.lease_index.lease_of.get(query, 0)
                return ReadAnswer(self.records.get(query), 11, self.machine.revision, self.age_ms, lease)
            if isinstance(query, LeaseLookup | LeaseScan | LockLookup):
                return look_up_lease(query, self.machine, lambda _: 2500.0)
            return look_up(query, self.machine, 11, self.age_ms)

        self._later(key, look, reply)

    @property
    def history(self) -> History:
        return self.machine.history

    @property
    def position(self) -> int:
        return self.machine.position

    @property
    def lease_index(self) -> LeaseIndex:
        return self.machine.lease_index

    def trace(self, trace: Trace | None) -> None:
        self.tapped = trace

    def on_change(self, hear: Callable[[], None]) -> None:
        self.hearers.append(hear)

    def hear(self) -> None:
        for hear in self.hearers:
            hear()

    async def read_state(self, reader: str, after: int) -> StatePage:
        self.readers.add(reader)
        self.arrived.put_nowait(b"%d" % after)
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return next(page for page in self.pages if not page.changes or page.changes[0].position > after)

    def end_state(self, reader: str) -> None:
        self.readers.discard(reader)

    def _reconfigure(self, membership: Membership) -> Result:
        if self.meanwhile is not None:
            self.membership, self.meanwhile = self.meanwhile, None
        why = refusal([MembershipVersion(1, self.membership)], membership, 1)
        if why is not None:
            return NotReconfigured(why)
        self.membership = membership
        return Reconfigured(membership, 33)

    def status(self) -> Status:
        return self.present

    def members(self) -> MembersStatus:
        return MembersStatus(
            "n1", self.membership.version, True, self.leader, [self._member(each) for each in self.membership.members]
        )

    def _member(self, each: Member) -> MemberStatus:
        becomes = each.becomes if each.joining else None
        connected, data = each.name in self.connected, f"{each.incarnation:x}"
        return MemberStatus(each.name, each.address, connected, None, each.role, each.joining, becomes, data)


class Reply(msgspec.Struct):
    """An answer off the wire; header names in lower case, as they are the same in any."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["type"].startswith("urn:kvstore:problem:")
        assert document["title"]
        assert document["detail"]
        assert "Traceback" not in self.body.decode()
        return document


class Wire:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head: bool = False) -> Reply:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(_field(line) for line in lines[1:-2])
        length = 0 if head else int(headers.get("content-length", 0))
        return Reply(lines[0], headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Reply:
        self.send(data)
        return await self.reply(head=data.startswith(b"HEAD "))

    async def closed(self) -> bytes:
        """What still comes before the end."""
        return await self.reader.read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()


def _field(line: str) -> tuple[str, str]:
    name, value = line.split(": ", 1)
    return name.lower(), value


class Store:
    """A running front end and all that a test needs around it."""

    def __init__(self, replica: FakeReplica, metrics: Metrics, frontend: Frontend, port: int) -> None:
        self.replica = replica
        self.metrics = metrics
        self.frontend = frontend
        self.port = port

    async def wire(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port, limit=4 * 1024 * 1024))

    def url(self, target: str) -> URL:
        return URL(f"http://127.0.0.1:{self.port}{target}", encoded=True)

    async def call(self, method: str, target: str, data: Any = None, **options: Any) -> Reply:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(method, self.url(target), data=data, **options) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Reply(f"HTTP/1.1 {response.status} {response.reason}", headers, await response.read())


Scenario = Callable[[Store], Awaitable[None]]


NAMES = HostNames(members=["a", "store"])
"""The names of the store in the requests of the tests."""


def run(
    scenario: Scenario,
    limits: HttpLimits | None = None,
    loops: Callable[[], Any] = uvloop.new_event_loop,
    names: HostNames = NAMES,
) -> None:
    """Run `scenario` against a fresh front end; a stall fails instead of hanging."""

    async def main() -> None:
        replica, metrics = FakeReplica(), Metrics()
        frontend = Frontend(replica, metrics, limits, names)
        port = await frontend.start("127.0.0.1", 0)
        try:
            async with asyncio.timeout(HANGS_S):
                await scenario(Store(replica, metrics, frontend, port))
        finally:
            replica.gate.set()
            await frontend.stop(0)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """The bytes of a request; with a body also its length."""
    lines = [f"{method} {target} HTTP/1.1", "Host: store", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
