"""The links between replicas: asyncio around `kvstore.handshake`.

Each replica dials every other one and sends on the connection that it dialled; on those that it accepted it only
receives. So two replicas share two one-way connections, and nobody has to agree on which of two crossing ones to keep.

Nothing here is reliable, and nothing has to be: the protocol repeats what is lost. A frame to a peer that is not
connected is dropped at once. To one that reads too slowly, frames wait in a queue bounded in bytes, and the oldest are
dropped first.
"""

import asyncio
import logging
import operator
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, cast

import msgspec
from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from kvstore.frames import FrameQueue, FrameReader, frame
from kvstore.handshake import MAX_HANDSHAKE_BYTES, NONCE_BYTES, Dialer, LinkRefused, Listener, Local, Reason, refusal
from paxos import wire
from paxos.messages import AnyMessage

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host and port."""

MAX_UNPROVED_LINKS = 64
"""Accepted connections that may be in their handshake at the same time."""

_WRITE_BYTES = 256 * 1024
"""What one write takes from the queue at most: a socket that is full is noticed before the whole queue sits in it."""

_LINGER_S = 1.0
"""How long a closing link may take to hand over its last bytes."""

_RETRY_MIN_S, _RETRY_MAX_S = 0.05, 0.5
"""Bounds of the pause between two attempts to dial. Short: a peer is back a second after it died."""

_REPEAT_S = 60.0
"""A complaint about the same peer, for the same reason, is logged once in this time."""

_SILENCE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""A peer's host that acknowledges nothing for ten seconds is gone (seconds, seconds, a count, milliseconds)."""


class Stats(msgspec.Struct):
    """Counts since the start of the transport."""

    dropped_frames: int = 0
    dropped_bytes: int = 0
    refused_by_peers: int = 0
    refused: Counter[Reason] = msgspec.field(default_factory=Counter)
    """Links that this replica refused."""


class Transport:
    """The peer links of one replica. All of it belongs to one event loop.

    `node`, `cluster` and `incarnation` say who we are, `secret` proves it, `terms` is what all must agree on; `peers`:
    each other member and its address. `on_message(sender, message)`: the sender is proved. `on_change(peer,
    connected)`: whether frames to it have a link. Both are called from the loop and must not raise. Raises ValueError
    on a cluster name that is too long.
    """

    def __init__(
        self,
        *,
        node: str,
        cluster: str,
        incarnation: int,
        secret: bytes,
        terms: str = "",
        listen: Address,
        peers: Mapping[str, Address],
        on_message: Callable[[str, AnyMessage], None],
        on_change: Callable[[str, bool], None],
        max_queue_bytes: int = 32 * 1024 * 1024,
        handshake_ms: int = 5_000,
    ) -> None:
        self.stats = Stats()
        self.address = listen
        """Where the transport listens: once it has started, with the port that it got for port 0."""
        self.local = Local(cluster, node, incarnation, secret, frozenset(peers), terms)
        self.on_message = on_message
        self.max_queue_bytes = max_queue_bytes
        self.handshake_s = handshake_ms / 1000
        self._peers = dict(peers)
        self._on_change = on_change
        self._server: asyncio.Server | None = None
        self._dialers: list[asyncio.Task[None]] = []
        self._links: set[_Link] = set()
        self._outgoing: dict[str, _Outgoing] = {}
        self._incoming: dict[str, _Incoming] = {}
        self._returned = {peer: asyncio.Event() for peer in peers}
        self._complained: dict[tuple[str, str], float] = {}

    async def start(self) -> None:
        """Listen, and begin to dial. Raises OSError when the address cannot be listened on."""
        host, port = self.address
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Incoming(self), host, port)
        except OSError as error:
            why = f"cannot listen for peers on {host}:{port} ({error.strerror})"
            advice = "stop the process that uses the port, or give this replica another peer address"
            raise OSError(error.errno, f"{why}: {advice}") from error
        self.address = self._server.sockets[0].getsockname()[:2]
        self._dialers = [loop.create_task(self._keep_dialled(peer)) for peer in self._peers]

    async def stop(self) -> None:
        """End all links, after handing to the network what was sent. Frames are dropped from now on."""
        for dialer in self._dialers:
            dialer.cancel()
        await asyncio.gather(*self._dialers, return_exceptions=True)  # a turn of the loop: what was just sent leaves
        if self._server is None:
            return
        self._server.close()
        for link in tuple(self._links):
            link.finish()
        patience = asyncio.get_running_loop().call_later(_LINGER_S, self._drop_all)
        while self._links:
            await next(iter(self._links)).closed.wait()
        patience.cancel()
        await self._server.wait_closed()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for slow peers."""
        return sum(link.queue.waiting_bytes for link in self._outgoing.values())

    def connected(self, peer: str) -> bool:
        """Whether a frame to `peer` has a link to take."""
        return peer in self._outgoing

    def send(self, to: str, frame: bytes) -> None:
        """Send an encoded message. Never blocks and never raises: what cannot be sent is dropped and counted."""
        link = self._outgoing.get(to)
        if link is None:
            self.dropped(frame)
        elif len(frame) > wire.MAX_MESSAGE_BYTES:
            self.dropped(frame)
            text = (
                f"dropped a message of {len(frame)} bytes to {to}: no replica takes more than {wire.MAX_MESSAGE_BYTES}"
            )
            self.complain(to, "sent too long", text)
        else:
            link.send(frame)

    # From here on: what the links tell.

    def dropped(self, frame: bytes) -> None:
        """Count a frame that will not be sent."""
        self.stats.dropped_frames += 1
        self.stats.dropped_bytes += len(frame)

    def complain(self, peer: str, reason: str, text: str) -> None:
        """Warn, unless the same was said of the same peer a short while ago."""
        now = asyncio.get_running_loop().time()
        key = (peer if peer in self._peers else "", reason)  # a stranger can make up names without end
        if now - self._complained.get(key, -_REPEAT_S) >= _REPEAT_S:
            self._complained[key] = now
            log.warning("%s", text)

    def opened(self, link: "_Link") -> None:
        """A connection was made. Raises LinkRefused when too many strangers are connected."""
        self._links.add(link)
        strangers = sum(isinstance(other, _Incoming) and not other.handshake.done for other in self._links)
        if isinstance(link, _Incoming) and strangers > MAX_UNPROVED_LINKS:
            text = f"{strangers} connections have proved nothing yet: find out who else connects to this port"
            raise LinkRefused(Reason.BUSY, text)

    def welcomed(self, link: "_Outgoing") -> None:
        """A link that we dialled can take frames."""
        peer = link.handshake.peer
        self._outgoing[peer] = link
        log.debug("link to %s is up", peer)
        self._on_change(peer, True)

    def admitted(self, link: "_Incoming") -> None:
        """The other end of a connection that we accepted has proved who it is."""
        peer = link.handshake.peer
        older = self._incoming.get(peer)
        self._incoming[peer] = link
        if older is not None:
            older.drop()  # a peer keeps one link to us: it has given the older one up
        self._returned[peer].set()  # whoever can dial us can be dialled

    def lost(self, link: "_Link", cause: Exception | None) -> None:
        """A connection is gone."""
        peer = link.handshake.peer
        self._links.discard(link)
        if self._incoming.get(peer) is link:
            del self._incoming[peer]
        if self._outgoing.get(peer) is link:
            del self._outgoing[peer]
            log.debug("link to %s is down (%s)", peer, cause or "closed")
            self._on_change(peer, False)

    def _drop_all(self) -> None:
        for link in tuple(self._links):
            link.drop()

    async def _keep_dialled(self, peer: str) -> None:
        """Dial, for ever, whenever there is no link to `peer`."""
        attempts = AsyncRetrying(
            retry=retry_if_result(operator.not_),
            wait=wait_random_exponential(multiplier=_RETRY_MIN_S, min=_RETRY_MIN_S, max=_RETRY_MAX_S),
            sleep=partial(self._await_return, peer),
        )
        while True:
            await attempts(self._dial_once, peer)
            await asyncio.sleep(_RETRY_MIN_S)  # a link that is lost as soon as it is made must not make a busy loop

    async def _dial_once(self, peer: str) -> bool:
        """Dial, and outlive the link. Answers whether it ever was one."""
        self._returned[peer].clear()
        host, port = self._peers[peer]
        link = _Outgoing(self, peer)
        try:
            await self._connect(link, host, port)
        except (OSError, ValueError, OverflowError) as error:  # the last two: no host or port is spelt like this
            why = f"cannot reach {peer} at {host}:{port} ({str(error) or 'no answer'})"
            self.complain(peer, "unreachable", f"{why}: start it, or correct its address; trying on")
            return False
        await link.closed.wait()
        return link.handshake.done

    async def _connect(self, link: "_Outgoing", host: str, port: int) -> None:
        connected = False
        try:
            async with asyncio.timeout(self.handshake_s):
                await asyncio.get_running_loop().create_connection(lambda: link, host, port)
            connected = True
        finally:
            if not connected and link in self._links:  # given up half-way, and not every loop tells the protocol so
                link.connection_lost(None)

    async def _await_return(self, peer: str, pause_s: float) -> None:
        """Pause, but not once `peer` has dialled us: then it is back."""
        try:
            async with asyncio.timeout(pause_s):
                await self._returned[peer].wait()
        except TimeoutError:
            pass


class _Link(asyncio.Protocol):
    """What both ends have in common: frames, a bound on the time of the handshake, and an end with a reason."""

    way: ClassVar[str]
    handshake: Dialer | Listener
    transport: asyncio.Transport

    def __init__(self, hub: Transport) -> None:
        self.hub = hub
        self.closed = asyncio.Event()
        self.reader = FrameReader(MAX_HANDSHAKE_BYTES)
        self.ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        _tune(transport.get_extra_info("socket"))
        seconds = self.hub.handshake_s
        text = f"no complete handshake within {seconds:g} s: only replicas may connect here, and one may be overloaded"
        late = LinkRefused(Reason.TIMEOUT, text)
        self.timer = asyncio.get_running_loop().call_later(seconds, self.refuse, late)
        try:
            self.hub.opened(self)
        except LinkRefused as refused:
            self.refuse(refused)
            self.transport.close()  # at once: a flood of connections must not pile up

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        try:
            for payload in self.reader.feed(data):
                self.take(payload)
        except LinkRefused as refused:
            self.refuse(refused)
        except wire.WireError as error:
            self.refuse(LinkRefused(Reason.GARBAGE, f"{error}: run the same release on all replicas"))

    def take(self, payload: bytes) -> None:
        """Act on one frame. Raises LinkRefused or WireError."""
        raise NotImplementedError

    def refuse(self, refused: LinkRefused) -> None:
        """End the link, with the reason in the logs of both sides."""
        if self.ending:
            return
        self.ending = True
        self.timer.cancel()
        host, port = (self.transport.get_extra_info("peername") or ("?", 0))[:2]
        peer = self.handshake.peer
        name = f"link {self.way} {peer or 'a stranger'!r} at {host}:{port}"
        if refused.by_peer:
            self.hub.stats.refused_by_peers += 1
            self.hub.complain(peer, f"there: {refused.reason}", f"{name} was refused there: {refused.text}")
            self.transport.close()
            return
        self.hub.stats.refused[refused.reason] += 1
        self.hub.complain(peer, f"here: {refused.reason}", f"{name} was refused here: {refused.text}")
        # Closing while the peer still sends resets the connection, and may take the reason from it. So: half-close,
        # read on without looking, and let the peer close.
        self.transport.write(frame(refusal(refused)))
        self.transport.write_eof()
        self.timer = asyncio.get_running_loop().call_later(_LINGER_S, self.drop)

    def finish(self) -> None:
        """Close, once what was written has left."""
        self.ending = True
        self.transport.close()

    def drop(self) -> None:
        """Close now."""
        self.ending = True
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ending = True
        self.timer.cancel()
        self.hub.lost(self, exc)
        self.closed.set()


class _Incoming(_Link):
    """A connection that we accepted: a handshake, then messages."""

    way = "from"
    handshake: Listener

    def __init__(self, hub: Transport) -> None:
        self.handshake = Listener(hub.local, secrets.token_bytes(NONCE_BYTES))
        super().__init__(hub)

    def take(self, payload: bytes) -> None:
        if self.handshake.done:
            self.hub.on_message(self.handshake.peer, wire.decode(payload))
            return
        self.transport.write(frame(self.handshake.receive(payload)))
        if self.handshake.done:
            self.timer.cancel()
            self.reader.max_bytes = wire.MAX_MESSAGE_BYTES
            self.hub.admitted(self)


class _Outgoing(_Link):
    """A connection that we dialled: a handshake, then what we send."""

    way = "to"
    handshake: Dialer

    def __init__(self, hub: Transport, peer: str) -> None:
        self.handshake = Dialer(hub.local, peer, secrets.token_bytes(NONCE_BYTES))
        super().__init__(hub)
        self.queue = FrameQueue(hub.max_queue_bytes)
        self._paused = False
        self._flush_due = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(frame(self.handshake.hello()))

    def take(self, payload: bytes) -> None:
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
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
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
