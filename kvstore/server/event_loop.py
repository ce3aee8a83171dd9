"""The asyncio driver of a node: an inbox, one timer, the storage thread, the peer links and the front end.

All that arrives within one turn of the event loop is handed to the node first, then the node takes one step: so
whatever comes together travels together, and nothing waits for company that is not there.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from random import Random

from kvstore import __version__
from kvstore.api.commands import Command, Result
from kvstore.api.errors import Refused
from kvstore.api.membership import Member, Membership, genesis
from kvstore.api.queries import Consistency, Query
from kvstore.api.status import MembersStatus, MemberStatus, Standing, Status
from kvstore.peers.compatibility import compatibility_of
from kvstore.peers.handshake_messages import LIFE_BITS, Channel, ProcessIdentity
from kvstore.peers.transport import Transport
from kvstore.replica.node import Node
from kvstore.replica.read_queue import ReadReply
from kvstore.replica.snapshot_send import MOST_PAGE_BYTES
from kvstore.server.config import Address, Settings, parse_address
from kvstore.server.http.asking import reply_of
from kvstore.server.http.server import Frontend
from kvstore.server.metrics import Metrics, Snapshot
from kvstore.server.startup import limits_of, options_of, refuse_other_founders, retention_of
from kvstore.server.trace import Trace
from kvstore.state_machine.history import History
from kvstore.state_machine.lease_index import LeaseIndex
from paxos import wire
from paxos.errors import ForgottenVotesError
from paxos.messages import AnyMessage, Fetch, FetchSnapshot, Learn, SnapshotPage
from paxos.ready import Envelope, ServeFetch, ServeSnapshot, Write
from paxos.replica import Role
from paxos.types import MS, Ballot, NodeId, PValue, Time
from storage.base import DamagedError, StatePage, StorageError
from storage.sqlite import SqliteStorage
from storage.writer import Writer

log = logging.getLogger(__name__)

TIDYING_S = 0.02
"""Until the storage thread has dropped what may go, its progress with that is looked at so often."""

BULK: frozenset[type[AnyMessage]] = frozenset({Fetch, FetchSnapshot, Learn, SnapshotPage})
"""Types of the messages that go by the bulk links."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> Time:
    """Nanoseconds on a clock that nobody sets, and that goes on while the machine sleeps where the system has one."""
    return time.clock_gettime_ns(_CLOCK)


class Runtime:
    """One running replica. Everything but the storage thread happens in the event loop that it is made in.

    It is what `kvstore.server.service.Replica` describes. `ended` is done when the replica cannot go on; its exception says
    why. After that it votes and answers no more (rule 4).
    """

    def __init__(self, settings: Settings, storage: SqliteStorage) -> None:
        self._settings = settings
        self._storage = storage
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        self._pump_scheduled = False
        self._told: Ballot | None = None
        self._heard = 0
        self._hearers: list[Callable[[], None]] = []
        self._trace: Trace | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: Time = 0
        self._metrics = Metrics()
        own = storage.recovered().identity
        self._node = Node(
            storage,
            genesis(own.members) if own.members else [],
            options_of(settings),
            clock=boot_clock,
            rng=Random(secrets.randbits(64)),
            request_timeout_ms=settings.request_timeout_ms,
            max_waiting=settings.max_in_flight,
            quota_bytes=settings.quota_bytes,
            limits=retention_of(settings),
            on_batch=self._metrics.observe_batch,
        )
        refuse_other_founders(own, settings, self._node.membership)
        self._writer = Writer(storage, self._loop.call_soon_threadsafe, self._durable, self._fail)
        self._incarnation = own.incarnation
        self._followed: tuple[int, bool] | None = None
        self._transport = Transport(
            node=settings.node,
            cluster=settings.cluster,
            identity=ProcessIdentity(own.incarnation, own.boot, secrets.randbits(LIFE_BITS)),
            secret=settings.shared_secret(),
            compatibility=compatibility_of(settings.lease_ms, settings.clock_drift_ppm, own.members),
            replaces=storage.recovered().replaces,
            listen=settings.peer_bind,
            peers={},
            on_message=self._received,
            on_change=self._link_changed,
        )
        self._follow_membership()
        self._frontend = Frontend(self, self._metrics, limits_of(settings))
        self._metrics.watch(self._snapshot)

    # The life of a replica

    async def start(self) -> None:
        """Listen and take part. Raises OSError when an address cannot be listened on."""
        settings = self._settings
        await self._transport.start()
        await self._frontend.start(settings.listen.host, settings.listen.port)
        self._wake()
        log.info(
            "%s serves clients on http://%s and peers on %s, with %d slots from %s",
            settings.node,
            settings.listen,
            settings.peer_bind,
            self._node.applied,
            settings.data,
        )

    async def stop(self) -> None:
        """Hand over, answer what is in flight by way of the next leader, and end."""
        log.info("%s is stopping: it hands over and answers what is in flight", self._settings.node)
        self._stopping = True
        self._node.hand_over()
        self._wake()
        await self._frontend.stop(self._settings.request_timeout_ms)
        await self._close()
        log.info("%s has stopped", self._settings.node)

    async def abandon(self) -> None:
        """End at once, after a failure: nothing is answered or voted any more."""
        if self._timer is not None:
            self._timer.cancel()
        await self._frontend.stop(0)
        await self._transport.stop()
        self._writer.stop()
        with suppress(StorageError):  # the thread may have ended without, and what is wrong was said
            self._storage.close()

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._transport.stop()
        self._writer.stop()

    # What the front end asks

    @property
    def stopping(self) -> bool:
        """See Replica."""
        return self._stopping

    def write(self, command: Command, reply: Callable[[Result | Refused], None]) -> None:
        """See Replica."""
        self._node.write(command, reply)
        self._wake()

    def read(self, query: Query, consistency: Consistency, reply: ReadReply) -> None:
        """See Replica."""
        if not self._node.read(query, consistency, reply):
            self._wake()

    @property
    def history(self) -> History:
        """See Replica."""
        return self._node.machine.history

    @property
    def position(self) -> int:
        """See Replica."""
        return self._node.machine.position

    @property
    def lease_index(self) -> LeaseIndex:
        """See Replica."""
        return self._node.machine.lease_index

    def on_change(self, hear: Callable[[], None]) -> None:
        """See Replica."""
        self._hearers.append(hear)

    def trace(self, trace: Trace | None) -> None:
        """See Replica."""
        self._trace = trace

    async def read_state(self, reader: str, after: int) -> StatePage:
        """See Replica."""
        while True:
            compacted = self._node.hold_state(reader, after)
            self._pump()  # what it has to store is in the queue of the storage thread, and the read behind it
            page: StatePage = await reply_of(partial(self._writer.read_state, after, MOST_PAGE_BYTES))
            if after or page.compacted >= compacted:
                return page
            await asyncio.sleep(TIDYING_S)

    def end_state(self, reader: str) -> None:
        """See Replica."""
        self._node.end_state(reader)

    def status(self) -> Status:
        """See Replica."""
        node, settings, now = self._node, self._settings, boot_clock()
        replica = node.replica
        leading, until = replica.leader_ballot, replica.lease_until
        return Status(
            id=node.id,
            cluster=settings.cluster,
            role=replica.role,
            ready=replica.caught_up and not self._stopping and not self.ended.done(),
            ballot=str(leading) if leading is not None else "",
            promised=str(replica.promised),
            leader=leading.node if leading is not None else None,
            lease_left_ms=max(0.0, (until - now) / MS) if until is not None else None,
            chosen=replica.chosen,
            applied=node.applied,
            revision=node.machine.revision,
            keys=len(node.machine.records),
            members=self.members().members,
            version=__version__,
            wire_version=wire.spoken().highest,
            standing=self._standing,
        )

    def members(self) -> MembersStatus:
        """See Replica."""
        node, now = self._node, boot_clock()
        leading, membership = node.replica.leader_ballot, node.membership
        return MembersStatus(
            id=node.id,
            version=membership.version,
            in_force=not node.pending,
            leader=leading.node if leading is not None else None,
            members=[self._member(member, now) for member in membership.members],
        )

    @property
    def membership(self) -> Membership:
        """See Replica."""
        return self._node.membership

    @property
    def _standing(self) -> Standing:
        standing = self._node.standing
        alone = not any(map(self._transport.connected, self._node.neighbours))
        strange = alone and self._transport.not_a_member_for
        return Standing.REFUSED if strange and standing is not Standing.REMOVED else standing

    def _member(self, member: Member, now: Time) -> MemberStatus:
        name, node = member.name, self._node
        own = name == node.id
        heard = now if own else node.heard.get(name)
        chosen = None
        if node.replica.role is Role.LEADER:
            chosen = node.replica.chosen if own else node.replica.chosen_by(name)
        return MemberStatus(
            name=name,
            address=str(address_of(member, self._settings.members) or ""),
            connected=own or self._transport.connected(name),
            heard_ms_ago=(now - heard) / MS if heard is not None else None,
            role=member.role,
            joining=member.joining,
            becomes=member.becomes if member.joining else None,
            incarnation=f"{member.incarnation:x}",
            chosen=chosen,
            wire_version=None if own or not self._transport.connected(name) else self._transport.version(name),
            lag=max(0, node.replica.chosen - chosen) if chosen is not None else None,
        )

    def _snapshot(self) -> Snapshot:
        node, stats = self._node, self._node.stats
        messages = {(kind, "sent"): count for kind, count in stats.sent.items()}
        messages |= {(kind, "received"): count for kind, count in stats.received.items()}
        return Snapshot(
            messages=messages,
            reads=dict(stats.reads),
            chosen=node.replica.chosen,
            applied=node.applied,
            leader_changes=stats.leader_changes,
            is_leader=node.replica.role is Role.LEADER,
            data_bytes=node.machine.size_bytes,
            queues={
                "requests": node.waiting,
                "proposals": node.replica.queued,
                "link_bytes": self._transport.queued_bytes,
            },
            dropped_frames=self._transport.stats.dropped_frames,
        )

    # What happens

    def _wake(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _received(self, sender: NodeId, message: AnyMessage) -> None:
        if self._trace is not None:
            self._trace.received(sender, message)
        self._do(lambda: self._node.receive(sender, message))

    def _durable(self, writes: list[Write], seconds: float) -> None:
        if seconds:
            self._metrics.observe_fsync(seconds)
        self._do(lambda: self._node.durable(writes))

    def _ring(self) -> None:
        self._timer = None
        self._node.proved = {**self._transport.incarnations, self._node.id: self._incarnation}
        self._node.replacement_requests = self._transport.replacement_requests
        self._do(self._node.tick)

    def _link_changed(self, peer: NodeId, connected: bool) -> None:
        log.info("%s: the link to %s is %s", self._settings.node, peer, "up" if connected else "down")

    def _do(self, event: Callable[[], None]) -> None:
        if self.ended.done():
            return
        try:
            event()
        except Exception as error:  # noqa: BLE001 - whatever broke, this replica's votes are not to be trusted
            self._fail(error)
        self._wake()

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self.ended.done():
            return
        try:
            ready = self._node.step()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        if self._trace is not None:
            self._trace.stepped(ready)
        self._send(ready.messages)
        if self.position != self._heard:
            self._heard = self.position
            for hear in self._hearers:
                hear()
        if ready.write is not None:
            self._writer.submit(ready.write)
        for fetch in ready.fetches:
            self._serve(fetch)
        self._arm()
        self._tell_leader()
        self._follow_membership()

    def _send(self, envelopes: list[Envelope]) -> None:
        encoded: AnyMessage | None = None
        frames: dict[int, bytes] = {}
        for envelope in envelopes:
            if envelope.message is not encoded:  # a broadcast is encoded once for each version
                encoded = envelope.message
                frames = {}
            channel = Channel.BULK if type(encoded) in BULK else Channel.MESSAGES
            version = self._transport.version(envelope.to, channel)
            frame = frames.get(version)
            if frame is None:
                frame = frames[version] = wire.encode(encoded, version)
            if frame:
                self._transport.send(envelope.to, frame, channel)

    def _serve(self, fetch: ServeFetch | ServeSnapshot) -> None:
        if isinstance(fetch, ServeSnapshot):
            self._writer.read_state(fetch.after, fetch.max_bytes, partial(self._send_state, fetch))
        else:
            page_bytes = self._node.replica.options.page_bytes
            self._writer.read(fetch.from_slot, fetch.upto, page_bytes, partial(self._send_log, fetch))

    def _send_log(self, fetch: ServeFetch, entries: list[PValue]) -> None:
        self._do(lambda: self._node.fetched(fetch.to, entries))

    def _send_state(self, fetch: ServeSnapshot, page: StatePage) -> None:
        self._do(lambda: self._node.read_state(fetch.to, fetch.after, page))

    def _arm(self) -> None:
        """One timer, moved only when it would ring too late: a tick that comes early is harmless."""
        due = self._node.next_deadline()
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0, due - boot_clock()) / 1e9, self._ring)

    def _follow_membership(self) -> None:
        """Link with whoever belongs to the cluster, on the disks that it knows. Before it knows of anybody, a replica
        that joins takes links from those that it was told of."""
        node = self._node
        followed = (node.membership.version, node.pending)
        if followed == self._followed:
            return
        self._followed = followed
        told, neighbours = self._settings.members, node.neighbours
        addresses = (
            {name: address_of(member, told) for name, member in neighbours.items()} if node.membership.members else told
        )
        self._transport.set_peers({name: at for name, at in addresses.items() if name != node.id and at is not None})
        self._transport.enrol(
            {name: member.incarnation for name, member in neighbours.items() if member.incarnation},
            newcomers=node.membership.configuration.unverified,
        )
        if node.membership.version:
            names = ", ".join(member.name for member in node.membership.members)
            state = "pending" if node.pending else "in force"
            log.info("%s: members %s, version %d, %s", node.id, names, node.membership.version, state)
        if node.standing is Standing.REMOVED:
            log.warning("%s is not a member any more: it answers stale reads only; stop it", node.id)

    def _tell_leader(self) -> None:
        leading = self._node.replica.leader_ballot
        if leading != self._told:
            self._told = leading
            if leading is not None:
                log.info("%s: %s leads, ballot %s", self._settings.node, leading.node, leading)

    def _fail(self, error: Exception) -> None:
        """Rule 4: the process ends without another vote, and its next start recovers."""
        if isinstance(error, ForgottenVotesError):
            error = DamagedError(f"{self._settings.data}: {error}")
        if not self.ended.done():
            log.critical("%s cannot go on: %s", self._settings.node, error, exc_info=error)
            self.ended.set_exception(error)


def address_of(member: Member, told: Mapping[str, Address]) -> Address | None:
    """Where `member` is reached: its own address, or else what this replica was told."""
    if not member.address:
        return told.get(member.name)
    return parse_address(member.address)
