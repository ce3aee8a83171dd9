"""The interface of a replica for its front ends (`ReplicaService`), and its implementation (`Service`)."""

from collections.abc import Callable
from typing import Any, Protocol

from kvstore import __version__
from kvstore.api.commands import Command, Result
from kvstore.api.errors import Refused
from kvstore.api.membership import Member, Membership
from kvstore.api.queries import Consistency, Query, Scan
from kvstore.api.status import MembersStatus, MemberStatus, Standing, Status
from kvstore.peers.handshake_messages import LinkRefusal
from kvstore.server.config import Settings
from kvstore.server.event_loop import NodeDriver, address_of, boot_clock
from kvstore.server.founding_log import members_with_other_data
from kvstore.server.metrics import CounterSnapshot
from kvstore.server.output import dropped_log_lines
from kvstore.server.pacer import Pacer
from kvstore.server.trace import Trace
from kvstore.state_machine.history import History
from kvstore.state_machine.lease_index import LeaseIndex
from paxos import wire
from paxos.role import Role
from paxos.types import MS, Time
from storage.base import StatePage


class ReplicaService(Protocol):
    """One replica, as seen by its front ends. All methods must be called on its event loop."""

    def write(self, command: Command, reply: Callable[[Result | Refused], None]) -> None:
        """Have `command` ordered and applied, and call `reply` exactly once with its result or Refused."""

    def read(self, query: Query, consistency: Consistency, reply: Callable[[Any], None]) -> None:
        """Answer `query`: call `reply` exactly once, possibly before this method returns.

        `reply` gets the answer type of the query (see `kvstore.api.results`), NotThen for a compacted revision, or
        Refused. A STALE read is refused only by a replica without state.
        """

    @property
    def history(self) -> History:
        """The retained changes. A snapshot from a peer replaces this object."""

    @property
    def position(self) -> int:
        """Position of the last change of a complete log entry."""

    @property
    def lease_index(self) -> LeaseIndex:
        """The current leases and locks. A snapshot from a peer replaces this object."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of the state from now on."""

    @property
    def pacer(self) -> Pacer:
        """The scheduler of all background work on the event loop."""

    def trace(self, trace: Trace | None) -> None:
        """Record messages and slots in `trace` from now on; None stops recording."""

    async def read_state(self, reader: str, after: int) -> StatePage:
        """Return the page of the stored state that follows position `after`; 0 for the first page.

        The first page is at least as new as the state applied at the time of the call. Compaction waits for `reader`
        until `end_state`, within bounds.
        """

    def end_state(self, reader: str) -> None:
        """Let compaction continue: `reader` needs no further page."""

    def status(self) -> Status:
        """Return the current status of the replica."""

    def members(self) -> MembersStatus:
        """Return the membership, with the state of each member as far as this replica knows it."""

    @property
    def membership(self) -> Membership:
        """The current membership, from which a change starts."""

    @property
    def stopping(self) -> bool:
        """True once shutdown has begun: requests in flight are answered, new ones are refused."""


class Service:
    """The implementation of ReplicaService, on top of NodeDriver."""

    def __init__(self, driver: NodeDriver, settings: Settings) -> None:
        self._driver = driver
        self._node = driver.node
        self._transport = driver.transport
        self._settings = settings
        self.stopping = False

    def write(self, command: Command, reply: Callable[[Result | Refused], None]) -> None:
        """See ReplicaService."""
        self._node.write(command, reply)
        self._driver.wake()

    def read(self, query: Query, consistency: Consistency, reply: Callable[[Any], None]) -> None:
        """See ReplicaService."""
        if not self._node.read(query, consistency, reply):
            self._driver.wake()
        if consistency is not Consistency.STALE and not isinstance(query, Scan):
            self._driver.foreground += 1

    @property
    def history(self) -> History:
        """See ReplicaService."""
        return self._node.machine.history

    @property
    def position(self) -> int:
        """See ReplicaService."""
        return self._node.machine.shown_position

    @property
    def lease_index(self) -> LeaseIndex:
        """See ReplicaService."""
        return self._node.machine.lease_index

    def on_change(self, listener: Callable[[], None]) -> None:
        """See ReplicaService."""
        self._driver.on_change(listener)

    @property
    def pacer(self) -> Pacer:
        """See ReplicaService."""
        return self._driver.pacer

    def trace(self, trace: Trace | None) -> None:
        """See ReplicaService."""
        self._driver.trace = trace

    async def read_state(self, reader: str, after: int) -> StatePage:
        """See ReplicaService."""
        return await self._driver.read_state(reader, after)

    def end_state(self, reader: str) -> None:
        """See ReplicaService."""
        self._node.release_state(reader)

    @property
    def membership(self) -> Membership:
        """See ReplicaService."""
        return self._node.membership

    def status(self) -> Status:
        """See ReplicaService."""
        node, now = self._node, boot_clock()
        replica = node.replica
        leading, until = replica.leader_ballot, replica.lease_until
        return Status(
            id=node.id,
            cluster=self._settings.cluster,
            role=replica.role,
            ready=replica.caught_up and not self.stopping and not self._driver.ended.done(),
            ballot=str(leading) if leading is not None else "",
            promised=str(replica.promised),
            leader=leading.node if leading is not None else None,
            lease_left_ms=max(0.0, (until - now) / MS) if until is not None else None,
            chosen=replica.chosen,
            applied=node.applied,
            revision=node.machine.shown_revision,
            keys=len(node.machine.records),
            members=self.members().members,
            version=__version__,
            wire_version=wire.supported().highest,
            standing=self._standing,
            waits_for=members_with_other_data(node, self._transport)
            or sorted(node.founding.unlike)
            or node.founding.awaited,
            restored=node.founding.restored,
        )

    def members(self) -> MembersStatus:
        """See ReplicaService."""
        node, now = self._node, boot_clock()
        leading, membership = node.replica.leader_ballot, node.membership
        return MembersStatus(
            id=node.id,
            version=membership.version,
            in_force=not node.view.pending,
            leader=leading.node if leading is not None else None,
            members=[self._member(member, now) for member in membership.members],
        )

    def snapshot(self) -> CounterSnapshot:
        """Return the counters for the metrics."""
        node, stats = self._node, self._node.stats
        messages = {(kind, "sent"): count for kind, count in stats.sent.items()}
        messages |= {(kind, "received"): count for kind, count in stats.received.items()}
        return CounterSnapshot(
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
            dropped_log_lines=dropped_log_lines(),
        )

    @property
    def _standing(self) -> Standing:
        standing = self._node.view.standing
        isolated = not any(map(self._transport.connected, self._node.view.neighbours))
        refused = LinkRefusal.UNKNOWN_NODE in self._transport.refused_by.values()
        if isolated and refused and standing is not Standing.REMOVED:
            return Standing.REFUSED
        if self._node.founding.pending:
            if members_with_other_data(self._node, self._transport):
                return Standing.DATA_LOST
            return Standing.RESTORE_MISMATCH if self._node.founding.unlike else Standing.FOUNDING
        return standing

    def _member(self, member: Member, now: Time) -> MemberStatus:
        name, node, transport = member.name, self._node, self._transport
        own = name == node.id
        heard = now if own else node.heard.get(name)
        chosen = None
        if node.replica.role is Role.LEADER:
            chosen = node.replica.chosen if own else node.replica.chosen_by(name)
        return MemberStatus(
            name=name,
            address=str(address_of(member, self._settings.members) or ""),
            connected=own or transport.connected(name),
            heard_ms_ago=(now - heard) / MS if heard is not None else None,
            role=member.role,
            joining=member.joining,
            becomes=member.becomes if member.joining else None,
            incarnation=f"{member.incarnation:x}",
            chosen=chosen,
            wire_version=None if own or not transport.connected(name) else transport.version(name),
            lag=max(0, node.replica.chosen - chosen) if chosen is not None else None,
        )
