"""The links between replicas, all together: whom to dial, which connection counts, and what goes over which.

Each replica dials every other one and sends on the connections that it dialled; on those that it accepted it only
receives. So nobody has to agree on which of two crossing ones to keep. It dials twice, for two channels:

      n1                                             n2
       |  messages: heartbeats, votes, requests ...   |
       |--------------------------------------------->|
       |  bulk: pages of the log and of snapshots     |
       |--------------------------------------------->|
       |                                              |      and as many the other way, dialled by n2

What fills one of them, its queue and the socket's buffers, does not stand before what takes the other.

Nothing here is reliable, and nothing has to be: the protocol repeats what is lost. A frame to a peer that is not
connected is dropped at once. To one that reads too slowly, frames wait in a queue bounded in bytes, and the oldest are
dropped first.

Who the peers are, and which data the cluster has enrolled for each, may change at any time. A link to one that is none
any more, to an address that is not the peer's any more, to other data than what is enrolled, or to an earlier life of
the peer, is dropped.
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
from kvstore.peers.handshake import Channel, Identity, LinkRefusal, LinkRefused, LocalEnd
from paxos import wire
from paxos.messages import AnyMessage

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host and port."""

_Key = tuple[str, Channel]
"""A peer, and what a link with it is for."""

MAX_UNPROVED_LINKS = 64
"""Accepted connections that may be in their handshake at the same time."""

MAX_BULK_BYTES = wire.MAX_MESSAGE_BYTES
"""What waits for one bulk link at most: a few pages, and any one message that there can be."""

_RETRY_MIN_S, _RETRY_MAX_S = 0.05, 0.5
"""Bounds of the pause between two attempts to dial. Short: a peer is back a second after it died."""

_REPEAT_S = 60.0
"""A complaint about the same peer, for the same reason, is logged once in this time."""


class Stats(msgspec.Struct):
    """Counts since the start of the transport."""

    dropped_frames: int = 0
    dropped_bytes: int = 0
    refused_by_peers: int = 0
    refused: Counter[LinkRefusal] = msgspec.field(default_factory=Counter)
    """Links that this replica refused."""


class Transport:
    """The peer links of one replica. All of it belongs to one event loop.

    `node`, `cluster` and `identity` say who we are, `secret` proves it, `terms` is what all must agree on; `peers`:
    each other member and its address. `on_message(sender, message)`: the sender is proved. `on_change(peer,
    connected)`: whether messages to it have a link. Both are called from the loop and must not raise.
    `max_queue_bytes`: of messages that wait for one peer. Raises ValueError on a cluster name that is too long.
    """

    def __init__(
        self,
        *,
        node: str,
        cluster: str,
        identity: Identity,
        secret: bytes,
        terms: str = "",
        replaces: int = 0,
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
        self.local = LocalEnd(cluster, node, identity, secret, frozenset(peers), terms, replaces)
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
        self._complained: dict[tuple[str, str], float] = {}
        self.strange_to: set[str] = set()
        """Peers to whom we are no member, by their last word."""

    async def start(self) -> None:
        """Listen, and begin to dial. Raises OSError when the address cannot be listened on."""
        host, port = self.address
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: AcceptedLink(self), host, port)
        except OSError as error:
            why = f"cannot listen for peers on {host}:{port} ({error.strerror})"
            advice = "stop the process that uses the port, or give this replica another peer address"
            raise OSError(error.errno, f"{why}: {advice}") from error
        self.address = self._server.sockets[0].getsockname()[:2]
        self._dials = True
        self._dial()

    async def stop(self) -> None:
        """End all links, after handing to the network what was sent. Frames are dropped from now on."""
        self._dials = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # a turn of the loop: what was just sent leaves
        if self._server is None:
            return
        self._server.close()
        await asyncio.sleep(0)  # a connection that was accepted a moment ago becomes a link now, or never
        for link in tuple(self._links):
            link.finish()
        patience = asyncio.get_running_loop().call_later(LINGER_S, self._drop, lambda _: True)
        while self._links:
            await next(iter(self._links)).closed.wait()
        patience.cancel()
        await self._server.wait_closed()

    def set_peers(self, peers: Mapping[str, Address]) -> None:
        """From now on these are the other members. Those that are new are dialled; links with those that are gone, or
        that have moved to another address, are dropped."""
        left = {peer for peer, address in self._peers.items() if peers.get(peer) != address}
        self._peers = dict(peers)
        self.local.set_peers(peers)
        for key in product(left, Channel):
            if key in self._dialers:
                self._dialers.pop(key).task.cancel()
        self._drop(lambda link: link.handshake.peer in left)
        self._complained = {key: at for key, at in self._complained.items() if key[0] not in left}
        self.strange_to &= self._peers.keys()
        if self._dials:
            self._dial()

    def enrol(self, incarnations: Mapping[str, int], newcomers: Collection[str] = ()) -> None:
        """From now on the cluster knows these peers by this data. Links with other data of theirs are dropped, and it
        is refused. Of a peer that is not among them, the data that proves itself first counts: for `newcomers`, first
        since they became that."""
        self.local.enrol(incarnations, newcomers)
        self._drop(
            lambda link: (
                (proved := link.handshake.proved) is not None
                and incarnations.get(link.handshake.peer, proved.incarnation) != proved.incarnation
            )
        )

    @property
    def incarnations(self) -> dict[str, int]:
        """Which data each peer runs on that has a link with us, in either direction: it has proved so."""
        return {
            link.handshake.peer: link.handshake.proved.incarnation
            for link in self._links
            if link.handshake.proved is not None and link.handshake.done and not link.ending
        }

    @property
    def replacement_requests(self) -> Mapping[str, int]:
        """Who has lost data to damage and asks for another place: the incarnation that was lost."""
        return self.local.replacement_requests

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for slow peers."""
        return sum(link.queue.waiting_bytes for link in self._outgoing.values())

    def connected(self, peer: str) -> bool:
        """Whether a message to `peer` has a link to take."""
        return (peer, Channel.MESSAGES) in self._outgoing

    def version(self, peer: str, channel: Channel = Channel.MESSAGES) -> int:
        """The version in which messages to `peer` are to be encoded; without a link they go nowhere in any."""
        link = self._outgoing.get((peer, channel))
        return wire.VERSION if link is None else link.handshake.version

    def send(self, to: str, frame: bytes, channel: Channel = Channel.MESSAGES) -> None:
        """Send a message, encoded in the link's `version`. Never blocks and never raises: what cannot be sent is
        dropped and counted."""
        link = self._outgoing.get((to, channel))
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

    def opened(self, link: Link) -> None:
        """A connection was made. Raises LinkRefused when too many strangers are connected."""
        self._links.add(link)
        strangers = sum(isinstance(other, AcceptedLink) and not other.handshake.done for other in self._links)
        if isinstance(link, AcceptedLink) and strangers > MAX_UNPROVED_LINKS:
            text = f"{strangers} connections have proved nothing yet: find out who else connects to this port"
            raise LinkRefused(LinkRefusal.BUSY, text)

    def refused(self, link: Link, refused: LinkRefused) -> None:
        """One of its ends has refused a link."""
        if refused.by_peer:
            self.stats.refused_by_peers += 1
            if refused.reason is LinkRefusal.UNKNOWN_NODE:
                self.strange_to.add(link.handshake.peer)
        else:
            self.stats.refused[refused.reason] += 1
        host, port = (link.transport.get_extra_info("peername") or ("?", 0))[:2]
        peer, where = link.handshake.peer, "there" if refused.by_peer else "here"
        name = f"link {link.way} {peer or 'a stranger'!r} at {host}:{port}"
        self.complain(peer, f"{where}: {refused.reason}", f"{name} was refused {where}: {refused.text}")

    def welcomed(self, link: DialledLink) -> None:
        """A link that we dialled can take frames."""
        peer, channel = link.key
        self.strange_to.discard(peer)
        self._outgoing[link.key] = link
        self._end_earlier_lives(link)
        log.debug("link to %s for %s is up", peer, channel)
        if channel is Channel.MESSAGES:
            self._on_change(peer, True)

    def admitted(self, link: AcceptedLink) -> None:
        """The other end of a connection that we accepted has proved who it is."""
        older = self._incoming.get(link.key)
        self._incoming[link.key] = link
        if older is not None:
            older.drop()  # a peer keeps one link of each kind to us: it has given the older one up
        self._end_earlier_lives(link)
        for channel in Channel:
            if dialling := self._dialers.get((link.handshake.peer, channel)):
                dialling.returned.set()  # whoever can dial us can be dialled

    def lost(self, link: Link, cause: Exception | None) -> None:
        """A connection is gone."""
        self._links.discard(link)
        if self._incoming.get(link.key) is link:
            del self._incoming[link.key]
        if self._outgoing.get(link.key) is link:
            del self._outgoing[link.key]
            peer, channel = link.key
            log.debug("link to %s for %s is down (%s)", peer, channel, cause or "closed")
            if channel is Channel.MESSAGES:
                self._on_change(peer, False)

    def _end_earlier_lives(self, newest: Link) -> None:
        peer, lives = newest.handshake.peer, (None, newest.handshake.proved)
        self._drop(lambda link: link.handshake.peer == peer and link.handshake.proved not in lives)

    def _drop(self, condemned: Callable[[Link], bool]) -> None:
        for link in tuple(filter(condemned, self._links)):
            link.drop()

    def _dial(self) -> None:
        """Dial every peer that is not dialled yet."""
        for peer, channel in product(self._peers, Channel):
            if (peer, channel) not in self._dialers:
                make = partial(DialledLink, self, peer, channel, self._max_queue_bytes[channel])
                dialling = _Dialling(self, peer, self._peers[peer], make)
                self._dialers[peer, channel] = dialling
                self._tasks.add(dialling.task)
                dialling.task.add_done_callback(self._tasks.discard)


class _Dialling:
    """Keeps one link to `peer` dialled until its `task` is cancelled."""

    def __init__(self, hub: Transport, peer: str, address: Address, make: Callable[[], DialledLink]) -> None:
        self.returned = asyncio.Event()
        """Set when the peer has dialled us: then it is back."""
        self._hub = hub
        self._peer = peer
        self._address = address
        self._make = make
        self.task = asyncio.get_running_loop().create_task(self._keep_dialled())

    async def _keep_dialled(self) -> None:
        """Dial, for ever, whenever there is no link."""
        attempts = AsyncRetrying(
            retry=retry_if_result(operator.not_),
            wait=wait_random_exponential(multiplier=_RETRY_MIN_S, min=_RETRY_MIN_S, max=_RETRY_MAX_S),
            sleep=self._await_return,
        )
        while True:
            await attempts(self._dial_once)
            await asyncio.sleep(_RETRY_MIN_S)  # a link that is lost as soon as it is made must not make a busy loop

    async def _dial_once(self) -> bool:
        """Dial, and outlive the link. Answers whether it ever was one."""
        self.returned.clear()
        link = self._make()
        try:
            await self._connect(link)
        except (OSError, ValueError, OverflowError) as error:  # the last two: no host or port is spelt like this
            host, port = self._address
            why = f"cannot reach {self._peer} at {host}:{port} ({str(error) or 'no answer'})"
            advice = "start it, or correct its address; trying on"
            self._hub.complain(self._peer, "unreachable", f"{why}: {advice}")
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
        """Pause, but not once the peer is back."""
        try:
            async with asyncio.timeout(pause_s):
                await self.returned.wait()
        except TimeoutError:
            pass
