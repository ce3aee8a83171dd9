"""One connection between two replicas, as an asyncio protocol around `kvstore.peers.handshake`.

The transport (`kvstore.peers.transport`) owns all links of a replica and decides when to dial.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Protocol, cast

from kvstore.api.framing import FrameReader, FrameTooLongError, frame
from kvstore.peers.handshake import Dialer, Listener, LocalEnd
from kvstore.peers.handshake_messages import (
    MAX_HANDSHAKE_BYTES,
    NONCE_BYTES,
    Channel,
    LinkRefusal,
    LinkRefused,
    ProcessIdentity,
    refusal,
)
from kvstore.peers.send_queue import FrameQueue
from paxos import wire
from paxos.messages import AnyMessage

LINGER_S = 1.0
"""Time after which a closing link is aborted, even if bytes are still unsent."""

_WRITE_BYTES = 256 * 1024
"""Bytes handed to the socket in one write: few enough for back-pressure to stop the rest of the queue."""

_KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""TCP options that end a connection after ten seconds without acknowledgement (seconds, seconds, count, ms)."""


class Hub(Protocol):
    """The interface of the transport for its links."""

    local: LocalEnd
    handshake_s: float
    on_message: Callable[[str, AnyMessage], None]

    def opened(self, link: "Link") -> None:
        """Register a new connection. Raises LinkRefused if too many connections have not proved their identity."""

    def refused(self, link: "Link", refused: LinkRefused) -> None:
        """Count and log a link that one of its ends refused."""

    def remember(self, identity: ProcessIdentity, done: Callable[[], None]) -> None:
        """Make the start of a peer's process durable, then call `done`."""

    def welcomed(self, link: "DialledLink") -> None:
        """Start to send on a dialled link: its handshake is complete."""

    def admitted(self, link: "AcceptedLink") -> None:
        """Start to receive on an accepted link: its dialer has proved its identity."""

    def dropped(self, payload: bytes) -> None:
        """Count an encoded message that will not be sent."""

    def lost(self, link: "Link", cause: Exception | None) -> None:
        """Forget a closed connection."""


class Link(asyncio.Protocol):
    """Base class of both ends of a link: framing, the timeout of the handshake, and refusal with a reason."""

    direction: ClassVar[str]
    handshake: Dialer | Listener
    transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.closed = asyncio.Event()
        self.reader = FrameReader(MAX_HANDSHAKE_BYTES)
        self.opened = False
        self.ending = False

    @property
    def key(self) -> tuple[str, Channel]:
        """Peer and channel. The transport uses at most one link for each key and direction."""
        return self.handshake.peer, self.handshake.channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.opened = True
        self.transport = cast("asyncio.Transport", transport)
        _tune(transport.get_extra_info("socket"))
        seconds = self.hub.handshake_s
        text = (
            f"no complete handshake within {seconds:g} s: only replicas may connect here, or the replica is overloaded"
        )
        timeout = LinkRefused(LinkRefusal.TIMEOUT, text)
        self.timer = asyncio.get_running_loop().call_later(seconds, self.refuse, timeout)
        try:
            self.hub.opened(self)
        except LinkRefused as refused:
            self.refuse(refused)
            self.transport.close()  # without waiting for the peer, so that a flood of connections does not accumulate

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.ending:
            return
        try:
            for payload in self.reader.feed(data):
                self.take(payload)
                if self.ending:
                    return
        except LinkRefused as refused:
            self.refuse(refused)
        except FrameTooLongError as error:
            self.refuse(LinkRefused(LinkRefusal.TOO_LONG, f"{error}: only replicas of one release may connect here"))
        except wire.WireError as error:
            self.refuse(LinkRefused(LinkRefusal.GARBAGE, f"{error}: run the same release on all replicas"))

    def take(self, payload: bytes) -> None:
        """Process one payload. Raises LinkRefused or WireError."""
        raise NotImplementedError

    def refuse(self, refused: LinkRefused) -> None:
        """End the link, log the reason, and send it to the peer unless the peer refused the link."""
        if self.ending:
            return
        self.ending = True
        self.timer.cancel()
        self.hub.refused(self, refused)
        if refused.by_peer:
            self.transport.close()
            return
        # If this end closed while the peer still sends, TCP would reset the connection and the peer could lose the
        # reason. Therefore half-close, discard all received bytes, and let the peer close.
        self.transport.write(frame(refusal(refused)))
        self.transport.write_eof()
        self.timer = asyncio.get_running_loop().call_later(LINGER_S, self.drop)

    def finish(self) -> None:
        """Close the connection once its buffered bytes are sent."""
        self.ending = True
        self.transport.close()

    def drop(self) -> None:
        """Close the connection at once."""
        self.ending = True
        self.transport.abort()

    def give_up(self) -> None:
        """Clean up after a cancelled connection attempt, for which some event loops do not call `connection_lost`."""
        if self.opened and not self.closed.is_set():
            self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.ending = True
        self.timer.cancel()
        self.hub.lost(self, exc)
        self.closed.set()


class AcceptedLink(Link):
    """An accepted connection: it receives a handshake, then messages."""

    direction = "from"
    handshake: Listener

    def __init__(self, hub: Hub) -> None:
        self.handshake = Listener(hub.local, secrets.token_bytes(NONCE_BYTES))
        super().__init__(hub)
        self._admitted = False

    def take(self, payload: bytes) -> None:
        """See Link."""
        if self._admitted:
            self.hub.on_message(self.handshake.peer, wire.decode(payload))
            return
        answer = self.handshake.receive(payload)
        if self.handshake.proved is None:
            self.transport.write(frame(answer))
        else:
            self.hub.remember(self.handshake.proved, partial(self._admit, answer))

    def _admit(self, welcome: bytes) -> None:
        if self.ending:
            return
        self.transport.write(frame(welcome))
        self.timer.cancel()
        self.reader.max_bytes = wire.MAX_MESSAGE_BYTES
        self._admitted = True
        self.hub.admitted(self)


class DialledLink(Link):
    """A dialled connection: it sends a handshake, then messages."""

    direction = "to"
    handshake: Dialer

    def __init__(self, hub: Hub, peer: str, channel: Channel, max_queue_bytes: int) -> None:
        self.handshake = Dialer(hub.local, peer, channel, secrets.token_bytes(NONCE_BYTES))
        super().__init__(hub)
        self.queue = FrameQueue(max_queue_bytes)
        self._paused = False
        self._flush_due = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.transport.write(frame(self.handshake.hello()))

    def take(self, payload: bytes) -> None:
        """See Link."""
        answer = self.handshake.receive(payload)
        if answer is not None:
            self.transport.write(frame(answer))
        if self.handshake.proved is not None:
            self.hub.remember(self.handshake.proved, self._begin)

    def _begin(self) -> None:
        if not self.ending:
            self.timer.cancel()
            self.hub.welcomed(self)

    def send(self, payload: bytes) -> None:
        """Queue an encoded message. All messages of one turn of the event loop leave together."""
        for dropped in self.queue.append(payload):
            self.hub.dropped(dropped)
        if not (self._flush_due or self._paused):
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        for dropped in self.queue.clear():
            self.hub.dropped(dropped)

    def _flush(self) -> None:
        self._flush_due = False
        while self.queue and not (self._paused or self.ending):
            self.transport.write(self.queue.take(_WRITE_BYTES))


def _tune(connection: socket.socket) -> None:
    """Set the options of a socket: small frames are sent without delay, and an unreachable host is detected."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # some systems lack some of the options
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
