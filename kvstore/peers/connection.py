"""One connection between two replicas, seen from either end: asyncio around `kvstore.peers.handshake`.

What all of them together are, and who dials when, is the business of `kvstore.peers.transport`, the hub of the links.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from typing import ClassVar, Protocol, cast

from kvstore.api.framing import FrameReader, FrameTooLongError, frame
from kvstore.peers.handshake import (
    MAX_HANDSHAKE_BYTES,
    NONCE_BYTES,
    Channel,
    Dialer,
    LinkRefusal,
    LinkRefused,
    Listener,
    LocalEnd,
    refusal,
)
from kvstore.peers.send_queue import FrameQueue
from paxos import wire
from paxos.messages import AnyMessage

LINGER_S = 1.0
"""How long a closing link may take to hand over its last bytes."""

_WRITE_BYTES = 256 * 1024
"""What one write takes from the queue at most: a socket that is full is noticed before the whole queue sits in it."""

_SILENCE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""A peer's host that acknowledges nothing for ten seconds is gone (seconds, seconds, a count, milliseconds)."""


class Hub(Protocol):
    """What a link must know, and to whom it tells what becomes of it."""

    local: LocalEnd
    handshake_s: float
    on_message: Callable[[str, AnyMessage], None]

    def opened(self, link: "Link") -> None:
        """A connection was made. Raises LinkRefused when too many strangers are connected."""

    def refused(self, link: "Link", refused: LinkRefused) -> None:
        """One of its ends has refused a link."""

    def welcomed(self, link: "DialledLink") -> None:
        """A link that we dialled can take frames."""

    def admitted(self, link: "AcceptedLink") -> None:
        """The other end of a connection that we accepted has proved who it is."""

    def dropped(self, frame: bytes) -> None:
        """A frame will not be sent."""

    def lost(self, link: "Link", cause: Exception | None) -> None:
        """A connection is gone."""


class Link(asyncio.Protocol):
    """What both ends have in common: frames, a bound on the time of the handshake, and an end with a reason."""

    way: ClassVar[str]
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
        """Between whom and what for: one link of each way has the same."""
        return self.handshake.peer, self.handshake.channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.opened = True
        self.transport = cast("asyncio.Transport", transport)
        _tune(transport.get_extra_info("socket"))
        seconds = self.hub.handshake_s
        text = f"no complete handshake within {seconds:g} s: only replicas may connect here, and one may be overloaded"
        late = LinkRefused(LinkRefusal.TIMEOUT, text)
        self.timer = asyncio.get_running_loop().call_later(seconds, self.refuse, late)
        try:
            self.hub.opened(self)
        except LinkRefused as refused:
            self.refuse(refused)
            self.transport.close()  # at once: a flood of connections must not pile up

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.ending:
            return
        try:
            for payload in self.reader.feed(data):
                self.take(payload)
                if self.ending:  # by what the payload led to
                    return
        except LinkRefused as refused:
            self.refuse(refused)
        except FrameTooLongError as error:
            self.refuse(LinkRefused(LinkRefusal.TOO_LONG, f"{error}: only replicas of one release may connect here"))
        except wire.WireError as error:
            self.refuse(LinkRefused(LinkRefusal.GARBAGE, f"{error}: run the same release on all replicas"))

    def take(self, payload: bytes) -> None:
        """Act on one frame. Raises LinkRefused or WireError."""
        raise NotImplementedError

    def refuse(self, refused: LinkRefused) -> None:
        """End the link, with the reason in the logs of both sides."""
        if self.ending:
            return
        self.ending = True
        self.timer.cancel()
        self.hub.refused(self, refused)
        if refused.by_peer:
            self.transport.close()
            return
        # Closing while the peer still sends resets the connection, and may take the reason from it. So: half-close,
        # read on without looking, and let the peer close.
        self.transport.write(frame(refusal(refused)))
        self.transport.write_eof()
        self.timer = asyncio.get_running_loop().call_later(LINGER_S, self.drop)

    def finish(self) -> None:
        """Close, once what was written has left."""
        self.ending = True
        self.transport.close()

    def drop(self) -> None:
        """Close now."""
        self.ending = True
        self.transport.abort()

    def give_up(self) -> None:
        """Its connection was given up half-way, and not every loop tells the protocol so."""
        if self.opened and not self.closed.is_set():
            self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.ending = True
        self.timer.cancel()
        self.hub.lost(self, exc)
        self.closed.set()


class AcceptedLink(Link):
    """A connection that we accepted: a handshake, then messages."""

    way = "from"
    handshake: Listener

    def __init__(self, hub: Hub) -> None:
        self.handshake = Listener(hub.local, secrets.token_bytes(NONCE_BYTES))
        super().__init__(hub)

    def take(self, payload: bytes) -> None:
        """See Link."""
        if self.handshake.done:
            self.hub.on_message(self.handshake.peer, wire.decode(payload))
            return
        self.transport.write(frame(self.handshake.receive(payload)))
        if self.handshake.done:
            self.timer.cancel()
            self.reader.max_bytes = wire.MAX_MESSAGE_BYTES
            self.hub.admitted(self)


class DialledLink(Link):
    """A connection that we dialled: a handshake, then what we send."""

    way = "to"
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
        if self.handshake.done:
            self.timer.cancel()
            self.hub.welcomed(self)

    def send(self, frame: bytes) -> None:
        """Queue a frame; what is sent in one turn of the loop leaves in one write."""
        for dropped in self.queue.append(frame):
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
    """No delay for small frames, and an end to a connection whose other host fell silent."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SILENCE.items():
        option = getattr(socket, name, None)  # not on every system
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
