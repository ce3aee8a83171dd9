"""All links of one replica: it dials the peers, accepts their connections, and sends and receives messages.

Each replica dials every peer. It sends on the connections that it dialled and receives on the connections that it
accepted, so two replicas need not agree on which of two crossing connections to keep. It dials each peer twice, once
for each channel:

      n1                                             n2
       |  messages: heartbeats, votes, requests ...   |
       |--------------------------------------------->|
       |  bulk: pages of the log and of snapshots     |
       |--------------------------------------------->|
       |                                              |      n2 dials two more in the other direction

A page that fills the queue and the socket buffers of one channel does not delay messages on the other.

Delivery is unreliable: the protocol repeats lost messages. A frame to a disconnected peer is dropped at once. Frames to
a slow peer wait in a queue that is bounded in bytes; the oldest frames are dropped first.

The peers and their enrolled incarnations may change at any time. The transport drops each link to a removed peer, to a
former address of a peer, to an incarnation other than the enrolled one, and to an earlier process of a peer.
"""

import asyncio
import logging
import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import product

import msgspec
from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from kvstore.peers.connection import LINGER_S, AcceptedLink, DialledLink, Link
from kvstore.peers.handshake import LocalEnd
from kvstore.peers.handshake_messages import Channel, LinkRefusal, LinkRefused, ProcessIdentity, Start
from kvstore.peers.listener import listening_socket
from paxos import wire
from paxos.messages import AnyMessage

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host and port."""

_Key = tuple[str, Channel]
"""Peer and channel."""

MAX_UNPROVED_LINKS = 64
"""Limit of the accepted connections whose handshake is not complete."""

MAX_BULK_BYTES = wire.MAX_MESSAGE_BYTES
"""Limit of the queue of one bulk link: a few pages, or one message of the maximum length."""

_RETRY_MIN_S, _RETRY_MAX_S = 0.05, 0.5
"""Bounds of the back-off between two attempts to dial: short, because a peer restarts within a second."""

_REPEAT_S = 60.0
"""Interval in which a warning about the same peer for the same reason is logged only once."""


class TransportStats(msgspec.Struct):
    """Counts since the start of the transport."""

    dropped_frames: int = 0
    dropped_bytes: int = 0
    refused_by_peers: int = 0
    refused: Counter[LinkRefusal] = msgspec.field(default_factory=Counter)
    """Links that this replica refused."""


class Transport:
    """The peer links of one replica. All methods must be called on its event loop.

    The transport proves `identity` with `secret`. `compatibility` must be equal on all replicas. `replaces` is the
    incarnation of this replica's former, damaged data (0 for none). `peers` maps each other member to its address.
    `seen` is the newest start of the data of each incarnation as it was recorded by `remember(identity, done)`, which
    must call `done` once the start of `identity` is durable. `includes` returns False if the data of this replica does
    not come from the start of a given boot and life.
    `on_message(sender, message)` gets the messages of authenticated peers. `on_change(peer, connected)` is called when
    the message link to a peer comes up or goes down. Neither callback may raise. `max_queue_bytes` bounds the messages
    that wait for one peer. Raises ValueError if `cluster` or `compatibility` is too long for a handshake.
    """

    def __init__(
        self,
        *,
        node: str,
        cluster: str,
        identity: ProcessIdentity,
        secret: bytes,
        compatibility: str = "",
        replaces: int = 0,
        seen: Mapping[int, Start],
        includes: Callable[[int, int], bool],
        remember: Callable[[ProcessIdentity, Callable[[], None]], None],
        listen: Address,
        peers: Mapping[str, Address],
        on_message: Callable[[str, AnyMessage], None],
        on_change: Callable[[str, bool], None],
        max_queue_bytes: int = 32 * 1024 * 1024,
        handshake_ms: int = 5_000,
    ) -> None:
        self.stats = TransportStats()
        self.address = listen
        """Address of the peer listener. If its port is 0, `start` replaces the port by the actual one."""
        self.local = LocalEnd(
            cluster,
            node,
            identity,
            secret,
            frozenset(peers),
            compatibility,
            replaces,
            seen=dict(seen),
            includes=includes,
        )
        self._remember = remember
        self._durable = dict(seen)
        self.on_message = on_message
        self.handshake_s = handshake_ms / 1000
        self._max_queue_bytes = {Channel.MESSAGES: max_queue_bytes, Channel.BULK: MAX_BULK_BYTES}
        self._peers = dict(peers)
        self._on_change = on_change
        self._server: asyncio.Server | None = None
        self._dials = False
        self._dialers: dict[_Key, _Dialling] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[Link] = set()
        self._outgoing: dict[_Key, DialledLink] = {}
        self._incoming: dict[_Key, AcceptedLink] = {}
        self._warned: dict[tuple[str, str], float] = {}
        self.refused_by: dict[str, LinkRefusal] = {}
        """Reason of the last refusal of each peer, until the peer accepts a link."""

    async def start(self) -> None:
        """Listen and begin to dial. Raises OSError if it cannot listen on the address."""
        host, port = self.address
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: AcceptedLink(self), sock=listening_socket(host, port))
        except OSError as error:
            why = f"cannot listen for peers on {host}:{port} ({error.strerror})"
            advice = "stop the process that uses the port, or give this replica another peer address"
            raise OSError(error.errno, f"{why}: {advice}") from error
        self.address = self._server.sockets[0].getsockname()[:2]
        self._dials = True
        self._dial()

    async def stop(self) -> None:
        """Send the queued frames, then close all links. Later frames are dropped."""
        self._dials = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # also lets the event loop flush the queues
        if self._server is None:
            return
        # asyncio accepts a connection in a reader and makes its transport in a task. The task fails, and the connection
        # is never closed, once the server is closed (CPython issue 109564): accept no more, and let such tasks finish.
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        await asyncio.sleep(0)
        self._server.close()
        await asyncio.sleep(0)  # the transports that were just made become links
        for link in tuple(self._links):
            link.finish()
        timeout = asyncio.get_running_loop().call_later(LINGER_S, self._drop, lambda _: True)
        while self._links:
            await next(iter(self._links)).closed.wait()
        timeout.cancel()
        await self._server.wait_closed()

    def set_peers(self, peers: Mapping[str, Address]) -> None:
        """Replace the peers: dial new peers, and drop the links to removed peers and to former addresses."""
        obsolete = {peer for peer, address in self._peers.items() if peers.get(peer) != address}
        self._peers = dict(peers)
        self.local.set_peers(peers)
        for key in product(obsolete, Channel):
            if key in self._dialers:
                self._dialers.pop(key).task.cancel()
        self._drop(lambda link: link.handshake.peer in obsolete)
        self._warned = {key: at for key, at in self._warned.items() if key[0] not in obsolete}
        self.refused_by = {peer: reason for peer, reason in self.refused_by.items() if peer in self._peers}
        if self._dials:
            self._dial()

    def enrol(self, incarnations: Mapping[str, int], unverified: Collection[str] = (), *, binds: bool = True) -> None:
        """Replace the enrolled incarnation of each peer, and drop links to other incarnations.

        A peer without an enrolled incarnation is bound to the first incarnation that it proves, unless `binds` is
        False. For a peer in `unverified`, this is the first incarnation that it proves after it became unverified.
        """
        self.local.enrol(incarnations, unverified)
        self.local.binds = binds
        self._drop(
            lambda link: (
                (proved := link.handshake.proved) is not None
                and incarnations.get(link.handshake.peer, proved.incarnation) != proved.incarnation
            )
        )

    @property
    def incarnations(self) -> dict[str, int]:
        """Incarnation that each linked peer has proved, whichever end dialled."""
        return {
            link.handshake.peer: link.handshake.proved.incarnation
            for link in self._links
            if link.handshake.proved is not None and link.handshake.done and not link.ending
        }

    @property
    def replacement_requests(self) -> Mapping[str, int]:
        """Former, damaged incarnation of each peer that asks to be replaced."""
        return self.local.replacement_requests

    @property
    def queued_bytes(self) -> int:
        """Bytes queued for slow peers."""
        return sum(link.queue.waiting_bytes for link in self._outgoing.values())

    def connected(self, peer: str) -> bool:
        """Return whether the message link to `peer` is up."""
        return (peer, Channel.MESSAGES) in self._outgoing

    def version(self, peer: str, channel: Channel = Channel.MESSAGES) -> int:
        """Return the version in which to encode messages to `peer`; the newest one while there is no link."""
        link = self._outgoing.get((peer, channel))
        return wire.VERSION if link is None else link.handshake.version

    def send(self, to: str, payload: bytes, channel: Channel = Channel.MESSAGES) -> None:
        """Send a message, encoded in the `version` of the peer.

        Never blocks and never raises: a message that cannot be sent is dropped and counted.
        """
        link = self._outgoing.get((to, channel))
        if link is None:
            self.dropped(payload)
        elif len(payload) > wire.MAX_MESSAGE_BYTES:
            self.dropped(payload)
            limit = f"replicas accept at most {wire.MAX_MESSAGE_BYTES} bytes"
            self.warn(to, "message too long", f"dropped a message of {len(payload)} bytes to {to}: {limit}")
        else:
            link.send(payload)

    # Callbacks of the links (`kvstore.peers.connection.Hub`)

    def dropped(self, payload: bytes) -> None:
        """See Hub."""
        self.stats.dropped_frames += 1
        self.stats.dropped_bytes += len(payload)

    def warn(self, peer: str, reason: str, text: str) -> None:
        """Log a warning, unless the same warning about the same peer was logged within `_REPEAT_S`."""
        now = asyncio.get_running_loop().time()
        key = (peer if peer in self._peers else "", reason)  # a stranger can claim any number of names
        if now - self._warned.get(key, -_REPEAT_S) >= _REPEAT_S:
            self._warned[key] = now
            log.warning("%s", text)

    def opened(self, link: Link) -> None:
        """See Hub."""
        self._links.add(link)
        unproved = sum(isinstance(other, AcceptedLink) and not other.handshake.done for other in self._links)
        if isinstance(link, AcceptedLink) and unproved > MAX_UNPROVED_LINKS:
            text = f"{unproved} connections have not proved their identity: find the program that connects to this port"
            raise LinkRefused(LinkRefusal.BUSY, text)

    def refused(self, link: Link, refused: LinkRefused) -> None:
        """See Hub."""
        if refused.by_peer:
            self.stats.refused_by_peers += 1
            self.refused_by[link.handshake.peer] = refused.reason
        else:
            self.stats.refused[refused.reason] += 1
        host, port = (link.transport.get_extra_info("peername") or ("?", 0))[:2]
        peer, side = link.handshake.peer, "the peer" if refused.by_peer else "this replica"
        name = f"link {link.direction} {peer or 'an unknown node'!r} at {host}:{port}"
        self.warn(peer, f"{side}: {refused.reason}", f"{side} refused the {name}: {refused.text}")

    def remember(self, identity: ProcessIdentity, done: Callable[[], None]) -> None:
        """See Hub."""
        if self._durable.get(identity.incarnation) == identity.start:
            done()
        else:
            self._remember(identity, partial(self._remembered, identity, done))

    def _remembered(self, identity: ProcessIdentity, done: Callable[[], None]) -> None:
        self._durable[identity.incarnation] = identity.start
        done()

    def welcomed(self, link: DialledLink) -> None:
        """See Hub."""
        peer, channel = link.key
        self.refused_by.pop(peer, None)
        self._outgoing[link.key] = link
        self._end_earlier_processes(link)
        log.debug("link to %s for %s is up", peer, channel)
        if channel is Channel.MESSAGES:
            self._on_change(peer, True)

    def admitted(self, link: AcceptedLink) -> None:
        """See Hub."""
        older = self._incoming.get(link.key)
        self._incoming[link.key] = link
        if older is not None:
            older.drop()  # the peer has given up the older link: it keeps one for each channel
        self._end_earlier_processes(link)
        for channel in Channel:
            if dialling := self._dialers.get((link.handshake.peer, channel)):
                dialling.returned.set()

    def lost(self, link: Link, cause: Exception | None) -> None:
        """See Hub."""
        self._links.discard(link)
        if self._incoming.get(link.key) is link:
            del self._incoming[link.key]
        if self._outgoing.get(link.key) is link:
            del self._outgoing[link.key]
            peer, channel = link.key
            log.debug("link to %s for %s is down (%s)", peer, channel, cause or "closed")
            if channel is Channel.MESSAGES:
                self._on_change(peer, False)

    def _end_earlier_processes(self, newest: Link) -> None:
        peer, current = newest.handshake.peer, (None, newest.handshake.proved)
        self._drop(lambda link: link.handshake.peer == peer and link.handshake.proved not in current)

    def _drop(self, obsolete: Callable[[Link], bool]) -> None:
        for link in tuple(filter(obsolete, self._links)):
            link.drop()

    def _dial(self) -> None:
        """Start a dialling task for every peer and channel that has none."""
        for peer, channel in product(self._peers, Channel):
            if (peer, channel) not in self._dialers:
                make = partial(DialledLink, self, peer, channel, self._max_queue_bytes[channel])
                dialling = _Dialling(self, peer, self._peers[peer], make)
                self._dialers[peer, channel] = dialling
                self._tasks.add(dialling.task)
                dialling.task.add_done_callback(self._tasks.discard)


class _Dialling:
    """A task that dials `peer` again whenever the link is lost, until the task is cancelled."""

    def __init__(self, hub: Transport, peer: str, address: Address, make: Callable[[], DialledLink]) -> None:
        self.returned = asyncio.Event()
        """Set when the peer has dialled this replica: the peer is up, and is dialled without further back-off."""
        self._hub = hub
        self._peer = peer
        self._address = address
        self._make = make
        self.task = asyncio.get_running_loop().create_task(self._keep_dialled())

    async def _keep_dialled(self) -> None:
        attempts = AsyncRetrying(
            retry=retry_if_result(operator.not_),
            wait=wait_random_exponential(multiplier=_RETRY_MIN_S, min=_RETRY_MIN_S, max=_RETRY_MAX_S),
            sleep=self._await_return,
        )
        while True:
            await attempts(self._dial_once)
            await asyncio.sleep(_RETRY_MIN_S)  # no busy loop if each link is lost at once

    async def _dial_once(self) -> bool:
        """Dial, wait until the link is closed, and return whether its handshake succeeded."""
        self.returned.clear()
        link = self._make()
        try:
            await self._connect(link)
        except (OSError, ValueError, OverflowError) as error:  # ValueError, OverflowError: invalid host or port
            host, port = self._address
            why = f"cannot reach {self._peer} at {host}:{port} ({str(error) or 'no answer'})"
            advice = "start it or correct its address; dialling continues"
            self._hub.warn(self._peer, "unreachable", f"{why}: {advice}")
            return False
        await link.closed.wait()
        return link.handshake.done

    async def _connect(self, link: DialledLink) -> None:
        connected = False
        try:
            async with asyncio.timeout(self._hub.handshake_s):
                await asyncio.get_running_loop().create_connection(lambda: link, *self._address)
            connected = True
        finally:
            if not connected:
                link.give_up()

    async def _await_return(self, pause_s: float) -> None:
        """Wait for `pause_s`, or until the peer dials this replica."""
        try:
            async with asyncio.timeout(pause_s):
                await self.returned.wait()
        except TimeoutError:
            pass
