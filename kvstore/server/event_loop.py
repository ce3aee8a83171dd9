"""The asyncio driver of a node: an inbox, one timer, the storage thread and the peer links.

The driver first passes all events of one turn of the event loop to the node, then the node takes one step. So events
that arrive together share a step, and no event waits for later ones.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from kvstore.api.address import Address, parse_address
from kvstore.api.membership import Member
from kvstore.api.status import Standing
from kvstore.peers.handshake_messages import Channel, ProcessIdentity
from kvstore.peers.transport import Transport
from kvstore.replica.node import Node
from kvstore.replica.snapshot_send import MAX_PAGE_BYTES
from kvstore.server.founding_log import FoundingLog
from kvstore.server.pacer import Pacer
from kvstore.server.reply_future import reply_of
from kvstore.server.trace import Trace
from paxos import wire
from paxos.errors import ForgottenVotesError
from paxos.messages import AnyMessage, Fetch, FetchSnapshot, Learn, SnapshotPage
from paxos.ready import Envelope, ServeFetch, ServeSnapshot, Write
from paxos.types import MS, Ballot, NodeId, PValue, Time
from storage.base import DamagedError, DiskSpace, SeenStart, StatePage, StateWrite, StorageError
from storage.sqlite import SqliteStorage
from storage.writer import Writer

log = logging.getLogger(__name__)

COMPACTION_POLL_S = 0.02
"""Interval at which `read_state` checks whether the log entry in progress is complete, and whether the storage thread
has finished compacting."""

BULK: frozenset[type[AnyMessage]] = frozenset({Fetch, FetchSnapshot, Learn, SnapshotPage})
"""Types of the messages that are sent on the bulk channel."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> Time:
    """Return the nanoseconds of a monotonic clock, which includes suspended time if the system has such a clock."""
    return time.clock_gettime_ns(_CLOCK)


class NodeDriver:
    """The asyncio driver of one node. All methods must be called on the event loop in which the driver was made.

    `make_transport` gets the callback for received messages, and the function that makes the start of a peer's process
    durable and then calls its second argument. `addresses` are the peer addresses in the settings, for
    members whose address is not in the membership. `on_sync` gets the duration of each durable write in seconds.
    `ended` is done when the replica has failed, with the cause as its exception; a failed replica neither votes nor
    answers (rule 4).
    """

    def __init__(
        self,
        node: Node,
        storage: SqliteStorage,
        make_transport: Callable[
            [Callable[[NodeId, AnyMessage], None], Callable[[ProcessIdentity, Callable[[], None]], None]], Transport
        ],
        *,
        addresses: Mapping[NodeId, Address],
        data: str,
        on_sync: Callable[[float], None],
    ) -> None:
        self.node = node
        self.transport = make_transport(self._receive, self._remember)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._storage = storage
        self._incarnation = storage.recovered().identity.incarnation
        self._addresses = addresses
        self._data = data
        self._on_sync = on_sync
        self._writer = Writer(storage, self._loop.call_soon_threadsafe, self._durable, self._fail, self._space_changed)
        self._step_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: Time = 0
        self._logged_leader: Ballot | None = None
        self._notified = 0
        """Position of the last change that was reported to the listeners."""
        self._listeners: list[Callable[[], None]] = []
        self.foreground = 0
        """Number of events and reads so far; a write leads to events."""
        self.pacer = Pacer(lambda: self.foreground)
        self.trace: Trace | None = None
        """Record of messages and slots while a live page is open; None otherwise."""
        self._followed: tuple[bool, int, bool] | None = None
        self._founding_log = FoundingLog(node, self.transport, boot_clock)
        self._follow_membership()

    async def start(self) -> None:
        """Listen for peers and take part in the protocol. Raises OSError if it cannot listen on the peer address."""
        await self.transport.start()
        self.wake()

    async def close(self) -> None:
        """Close the links, and stop the storage thread after the writes in its queue."""
        if self._timer is not None:
            self._timer.cancel()
        await self.transport.stop()
        self._writer.stop()

    async def abandon(self) -> None:
        """Close the links and the storage after a failure, without another vote or answer."""
        await self.close()
        with suppress(StorageError):  # the storage thread may have failed; `_fail` has logged the cause
            self._storage.close()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each step that changed the state."""
        self._listeners.append(listener)

    async def read_state(self, reader: str, after: int) -> StatePage:
        """See `kvstore.server.service.ReplicaService`."""
        while True:
            compacted = self.node.hold_state(reader, after)
            self._step()  # queues the write of unstored changes before the read
            if after or not self.node.applies_entry:  # the state is stored at the end of an entry
                page: StatePage = await reply_of(partial(self._writer.read_state, after, MAX_PAGE_BYTES))
                if after or page.compacted >= compacted:
                    return page
            await asyncio.sleep(COMPACTION_POLL_S)

    def wake(self) -> None:
        """Schedule a step after the events that are ready now."""
        if not self._step_scheduled:
            self._step_scheduled = True
            self._loop.call_soon(self._step)

    # Events

    def _receive(self, sender: NodeId, message: AnyMessage) -> None:
        if self.trace is not None:
            self.trace.received(sender, message)
        self._handle(lambda: self.node.receive(sender, message))

    def _remember(self, identity: ProcessIdentity, done: Callable[[], None]) -> None:
        """See `make_transport`. The write has no vote and belongs to no step of the node, so it waits for none."""
        self._writer.submit(StateWrite(seen=SeenStart(*identity)))
        self._writer.call_when_durable(done)

    def _durable(self, writes: list[Write], seconds: float) -> None:
        if seconds:
            self._on_sync(seconds)
        self._handle(lambda: self.node.durable(writes))

    def _space_changed(self, space: DiskSpace) -> None:
        if space is DiskSpace.AMPLE:
            log.warning("%s: the disk of %s has room again; writes are taken", self.node.id, self._data)
        else:
            text = "%s: the disk of %s is full (%s), its reserve is in use, and PUTs get 507: make room, or delete keys"
            log.error(text, self.node.id, self._data, space)
        self._handle(lambda: self.node.space_changed(space))

    def _timer_fired(self) -> None:
        self._timer = None
        self.node.incarnations = {**self.transport.incarnations, self.node.id: self._incarnation}
        self.node.replacement_requests = self.transport.replacement_requests
        self._handle(self.node.tick)

    def _handle(self, event: Callable[[], None]) -> None:
        if self.ended.done():
            return
        self.foreground += 1
        try:
            event()
        except Exception as error:  # noqa: BLE001 - after any failure this replica must not vote
            self._fail(error)
        self.wake()

    # One step and its effects

    def _step(self) -> None:
        self._step_scheduled = False
        if self.ended.done():
            return
        try:
            ready = self.node.step()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        if self.trace is not None:
            self.trace.stepped(ready)
        self._send(ready.messages)
        if self.node.machine.shown_position != self._notified:
            self._notified = self.node.machine.shown_position
            for listener in self._listeners:
                listener()
        if ready.write is not None:
            self._writer.submit(ready.write)
        for fetch in ready.fetches:
            self._serve(fetch)
        if self.node.has_more:
            self.wake()  # after the events that are ready now
        self._arm_timer()
        self._log_leader()
        self._founding_log.update()
        self._follow_membership()

    def _send(self, envelopes: list[Envelope]) -> None:
        encoded: AnyMessage | None = None
        frames: dict[int, bytes] = {}
        for envelope in envelopes:
            if envelope.message is not encoded:  # a broadcast is encoded once for each version
                encoded = envelope.message
                frames = {}
            channel = Channel.BULK if type(encoded) in BULK else Channel.MESSAGES
            version = self.transport.version(envelope.to, channel)
            frame = frames.get(version)
            if frame is None:
                frame = frames[version] = wire.encode(encoded, version)
            if frame:
                self.transport.send(envelope.to, frame, channel)

    def _serve(self, fetch: ServeFetch | ServeSnapshot) -> None:
        if isinstance(fetch, ServeSnapshot):
            self._writer.read_state(fetch.after, fetch.max_bytes, partial(self._send_state, fetch))
        else:
            page_bytes = self.node.replica.options.page_bytes
            self._writer.read(fetch.from_slot, fetch.upto, page_bytes, partial(self._send_log, fetch))

    def _send_log(self, fetch: ServeFetch, entries: list[PValue]) -> None:
        self._handle(lambda: self.node.log_page_read(fetch.to, entries))

    def _send_state(self, fetch: ServeSnapshot, page: StatePage) -> None:
        self._handle(lambda: self.node.state_page_read(fetch.to, fetch.after, page))

    def _arm_timer(self) -> None:
        """Set the timer to the next deadline. A timer that fires earlier is kept: an early tick is harmless."""
        due = self.node.next_deadline()
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0, due - boot_clock()) / (1000 * MS), self._timer_fired)

    def _follow_membership(self) -> None:
        """Give the transport the addresses and enrolled incarnations of the members.

        A replica that knows no membership yet connects to the members in its settings.
        """
        node = self.node
        followed = (node.view.known, node.membership.version, node.view.pending)
        if followed == self._followed:
            return
        self._followed = followed
        neighbours = node.view.neighbours
        addresses: Mapping[NodeId, Address | None] = self._addresses
        if node.membership.members:
            addresses = {name: address_of(member, self._addresses) for name, member in neighbours.items()}
        self.transport.set_peers({name: at for name, at in addresses.items() if name != node.id and at is not None})
        self.transport.enrol(
            {name: member.incarnation for name, member in neighbours.items() if member.incarnation},
            unverified=node.membership.configuration.unverified,
            binds=node.view.known,
        )
        if node.membership.version:
            names = ", ".join(member.name for member in node.membership.members)
            state = "pending" if node.view.pending else "in force"
            log.info("%s: members %s, version %d, %s", node.id, names, node.membership.version, state)
        if node.view.standing is Standing.REMOVED:
            log.warning("%s was removed from the membership and answers only stale reads: stop it", node.id)

    def _log_leader(self) -> None:
        leading = self.node.replica.leader_ballot
        if leading != self._logged_leader:
            self._logged_leader = leading
            if leading is not None:
                log.info("%s: %s is the leader, ballot %s", self.node.id, leading.node, leading)

    def _fail(self, error: Exception) -> None:
        """End the replica without another vote (rule 4). Its next start recovers from the stored state."""
        if isinstance(error, ForgottenVotesError):
            error = DamagedError(f"{self._data}: {error}")
        if not self.ended.done():
            log.critical("%s has failed and stops: %s", self.node.id, error, exc_info=error)
            self.ended.set_exception(error)


def address_of(member: Member, configured: Mapping[NodeId, Address]) -> Address | None:
    """Return the peer address of `member` from the membership or, if it is absent there, from the settings."""
    if not member.address:
        return configured.get(member.name)
    return parse_address(member.address)
