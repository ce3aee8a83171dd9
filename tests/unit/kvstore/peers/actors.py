"""Who takes part in the tests of the peer links: transports that record, and strangers with raw sockets."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest

from kvstore.api.framing import FrameReader, frame
from kvstore.peers.handshake import Dialer, Listener, LocalEnd
from kvstore.peers.handshake_messages import NONCE_BYTES, Channel, LinkRefused, ProcessIdentity
from kvstore.peers.transport import Address, Transport
from kvstore.testing.machine import free_ports
from paxos import wire
from paxos.messages import AnyMessage, Fetch

SECRET = b"a long and random secret"
IDENTITY = ProcessIdentity(incarnation=7, boot=5, life=55)
HOST = "127.0.0.1"
PATIENCE_S = 300
"""A test that waits so long has failed."""
HANDSHAKE_MS = 300_000
"""A link is not given up because the machine is busy: some tests dial once only."""

Story = Coroutine[Any, Any, None]
Run = Callable[[Story], None]
"""Plays a story on one of the loops."""


def free_port() -> int:
    """Return a port that nobody else takes before the test listens on it."""
    return free_ports(HOST, 1)[0]


class Lines(logging.Handler):
    """The warnings of the transports; a story can wait for one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._came.set()

    async def wait_for(self, *parts: str) -> None:
        while not any(all(part in line for part in parts) for line in self.lines):
            self._came.clear()
            await self._came.wait()


class PeerNode:
    """A transport, with what it received and the changes of its links as queues."""

    def __init__(self, node: str, peers: dict[str, Address], port: int = 0, **settings: Any) -> None:
        self.inbox: asyncio.Queue[tuple[str, AnyMessage]] = asyncio.Queue()
        self.changes: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        defaults: dict[str, Any] = {
            "cluster": "c",
            "identity": IDENTITY,
            "secret": SECRET,
            "handshake_ms": HANDSHAKE_MS,
            "seen": {},
            "includes": lambda _boot, _life: True,
            "remember": lambda _identity, done: done(),
        }
        self.transport = Transport(
            node=node,
            listen=(HOST, port),
            peers=peers,
            on_message=lambda *received: self.inbox.put_nowait(received),
            on_change=lambda *change: self.changes.put_nowait(change),
            **defaults | settings,
        )

    @property
    def address(self) -> Address:
        return self.transport.address

    async def __aenter__(self) -> Self:
        await self.transport.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.stop()


async def works(sender: PeerNode, name: str, receiver: PeerNode, to: str) -> None:
    """A message from one gets through to the other."""
    message = Fetch(secrets.randbits(40))
    sender.transport.send(to, wire.encode(message))
    assert await receiver.inbox.get() == (name, message)


@asynccontextmanager
async def good_link(nowhere: Address, **settings: Any) -> AsyncIterator[tuple[PeerNode, Callable[[], Awaitable[None]]]]:
    """n2, with a link from n1; and a check that the link is unharmed. n3 is a member that is away."""
    async with (
        PeerNode("n2", {"n1": nowhere, "n3": nowhere}, **settings) as n2,
        PeerNode("n1", {"n2": n2.address, "n3": nowhere}) as n1,
    ):
        assert await n1.changes.get() == ("n2", True)

        async def unharmed() -> None:
            await works(n1, "n1", n2, "n2")
            assert n1.changes.empty()

        yield n2, unharmed


class Stranger:
    """A raw connection that speaks frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameReader(wire.MAX_MESSAGE_BYTES)
        self.received: list[bytes] = []

    async def read(self) -> bytes | None:
        """The next payload; None when the connection ended, in whatever way."""
        while not self.received:
            try:
                data = await self.reader.read(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.received += self.frames.feed(data)
        return self.received.pop(0)

    def write(self, payload: bytes) -> None:
        self.writer.write(frame(payload))

    async def refusal(self) -> LinkRefused:
        """The refusal that comes next, and after it the end."""
        payload = await self.read()
        assert payload is not None
        with pytest.raises(LinkRefused) as caught:
            Dialer(who("n3"), "n2", Channel.MESSAGES, bytes(NONCE_BYTES)).receive(payload)
        assert await self.read() is None
        return caught.value

    async def pose_as(self, local: LocalEnd, peer: str, channel: Channel = Channel.MESSAGES) -> None:
        """Go through the handshake as a dialer."""
        dialer = Dialer(local, peer, channel, secrets.token_bytes(NONCE_BYTES))
        self.write(dialer.hello())
        while not dialer.done:
            payload = await self.read()
            assert payload is not None
            if answer := dialer.receive(payload):
                self.write(answer)

    async def welcome(self, local: LocalEnd) -> Channel:
        """Go through the handshake as a listener; what the link is for."""
        listener = Listener(local, secrets.token_bytes(NONCE_BYTES))
        while not listener.done:
            payload = await self.read()
            assert payload is not None
            self.write(listener.receive(payload))
        return listener.channel


async def welcome_both(callers: "asyncio.Queue[Stranger]", local: LocalEnd) -> dict[Channel, Stranger]:
    """Welcome the next two callers, which are one transport; each by what its link is for."""
    both = [await callers.get(), await callers.get()]
    links = {await caller.welcome(local): caller for caller in both}
    assert links.keys() == set(Channel)
    return links


@asynccontextmanager
async def stranger(to: Address) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection(*to)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def strange_listener() -> AsyncIterator[tuple[Address, asyncio.Queue[Stranger]]]:
    """A raw listener with small buffers, and those who have connected to it."""
    callers: asyncio.Queue[Stranger] = asyncio.Queue()
    held: list[Stranger] = []

    def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(Stranger(reader, writer))
        callers.put_nowait(held[-1])

    server = await asyncio.start_server(called, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[:2], callers
    finally:
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        await asyncio.sleep(0)  # see Transport.stop
        server.close()
        await asyncio.sleep(0)
        for caller in held:
            caller.writer.close()
        await server.wait_closed()


def who(node: str, **changes: Any) -> LocalEnd:
    members = {"n1", "n2", "n3"}
    identity: dict[str, Any] = {
        "cluster": "c",
        "identity": IDENTITY,
        "secret": SECRET,
        "peers": frozenset(members - {node}),
    }
    return LocalEnd(node=node, **identity | changes)
