"""The proposer: phase 1 for all slots from a first one on, then phase 2 for several slots at a time.

"If the proposer receives a response to its prepare requests from a majority of acceptors, then it can issue a proposal
with number n and value v, where v is the value of the highest-numbered proposal among the responses, or is any value if
the responses reported no proposals" (Lamport, "Paxos Made Simple", section 2.2). Section 3 of the same paper runs phase
1 for all slots at once and fills gaps with no-ops.
"""

from collections import deque

import msgspec

from paxos.configuration import ALPHA, ConfigurationHistory
from paxos.messages import Promise
from paxos.options import Options
from paxos.quorum import is_quorum, is_quorum_of_each
from paxos.types import MS, NOOP, Ballot, Configuration, NodeId, PValue, Slot, Time, pack


class Phase1:
    """Phase 1 of one ballot for every slot from `from_slot` on: the promises, and the values that must be proposed
    again."""

    def __init__(self, ballot: Ballot, from_slot: Slot, configurations: list[Configuration]) -> None:
        """Start without promises. `configurations` are those that decide the slots from `from_slot` on (rule 27)."""
        self.ballot = ballot
        self.from_slot = from_slot
        self._deciding = configurations
        self.awaiting = {voter: from_slot for configuration in configurations for voter in configuration.voters}
        """Acceptors whose promise is not complete, each with the first slot of its next page."""
        self.promised: set[NodeId] = set()
        """Acceptors whose promise is complete."""
        self._highest: dict[Slot, PValue] = {}

    def add_promise(self, sender: NodeId, message: Promise) -> bool:
        """Add one page of a promise, and return True if it counts. Pages count in order and once each (rule 9)."""
        if self.awaiting.get(sender) != message.from_slot:
            return False
        for pvalue in message.accepted:
            best = self._highest.get(pvalue.slot)
            if best is None or pvalue.ballot > best.ballot:
                self._highest[pvalue.slot] = pvalue
        if message.next_slot > message.from_slot:
            self.awaiting[sender] = message.next_slot
        else:
            del self.awaiting[sender]
            self.promised.add(sender)
        return True

    def has_quorum(self) -> bool:
        """Return True once the promises of a majority are complete."""
        return is_quorum_of_each(self.promised, self._deciding)

    def add_late_promise(self, sender: NodeId, message: Promise, next_slot: Slot) -> None:
        """Add a promise that arrives after the election.

        The promise counts only if all its values are for slots before `next_slot`, for which the leader has already
        made its proposals. A value for a later slot would restrict the proposal that the leader may make there.
        """
        if self.awaiting.get(sender) != message.from_slot or message.next_slot:
            return
        if all(pvalue.slot < next_slot for pvalue in message.accepted):
            del self.awaiting[sender]
            self.promised.add(sender)

    def covers(self, configuration: Configuration) -> bool:
        """Drop the promises of members that are no voters of `configuration`, which was chosen later. Return True if
        the remaining promises are a majority of it."""
        self.promised &= set(configuration.voters)
        return is_quorum(self.promised, configuration)

    def recovered(self) -> list[bytes]:
        """Return the values to propose again, one for each slot from `from_slot` on: the value accepted under the
        highest ballot, or a no-op for a slot without a value (rule 10)."""
        last = max(self._highest, default=self.from_slot - 1)
        slots = range(self.from_slot, last + 1)
        return [self._highest[slot].value if slot in self._highest else NOOP for slot in slots]


class Proposal(msgspec.Struct):
    """A slot in flight."""

    value: bytes
    proposed_at: Time
    resend_at: Time
    wait: Time
    """Time between the last transmission and the next one."""
    bulk_bytes: int
    """Bytes of the value if it is a bulk payload, otherwise 0."""
    accepted: set[NodeId]
    """Acceptors that accepted the value."""


class Pipeline:
    """Phase 2 of one ballot: the queue of payloads, and the window of slots that wait for a majority.

    Each payload is a batch of commands that a replica has packed. Several payloads share a slot, because a slot costs
    every acceptor one sync, whatever its size. The pipeline joins whole payloads and never unpacks one. A bulk payload
    has a slot of its own, and few of them are in flight: a small payload waits for the disks and links to finish those
    few, and not for all bulk payloads that were queued before.
    """

    def __init__(
        self, from_slot: Slot, recovered: list[bytes], configurations: ConfigurationHistory, options: Options
    ) -> None:
        """Start with the `recovered` values, one for each slot from `from_slot` on, and one no-op of this ballot after
        them."""
        self._configurations = configurations
        self._options = options
        self._next_slot = from_slot
        self._recovered = deque([*recovered, NOOP])
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._bulk: deque[bytes] = deque()
        self._queued_bulk_bytes = 0
        self._in_flight: dict[Slot, Proposal] = {}
        self._in_flight_bytes = 0
        """Bytes in flight without the bulk payloads."""
        self._bulk_in_flight_bytes = 0
        self._fill_below: Slot = 0
        self.own_noop = from_slot + len(recovered)
        """Slot of the no-op of this ballot (rule 10)."""

    def enqueue(self, payloads: tuple[bytes, ...]) -> bool:
        """Queue these payloads in this order. Return False, without taking any, if the queue is full."""
        if not self.has_room:
            return False
        for payload in payloads:
            if len(payload) < self._options.bulk_bytes:
                self._queue.append(payload)
                self._queued_bytes += len(payload)
            else:
                self._bulk.append(payload)
                self._queued_bulk_bytes += len(payload)
        return True

    @property
    def has_room(self) -> bool:
        """True while the queue is below its limit."""
        return self._queued_bytes + self._queued_bulk_bytes < self._options.max_queued_bytes

    @property
    def queued(self) -> int:
        """Number of payloads that wait for a slot."""
        return len(self._queue) + len(self._bulk)

    @property
    def next_slot(self) -> Slot:
        """First slot without a proposal of this ballot."""
        return self._next_slot

    def fill(self, below: Slot) -> None:
        """Propose no-ops for the slots below `below` while there are no payloads."""
        self._fill_below = below

    def propose(self, now: Time, applied: Slot) -> list[tuple[Slot, bytes]]:
        """Return the slots that begin now, with their values, as many as the window has room for.

        A slot takes all queued payloads that fit. The configuration of a slot is known only once the slot ALPHA before
        it is applied, so the last slot that may begin is `applied` + ALPHA (rule 27).

        A slot with new payloads begins only if the queue holds at least as many bytes as are in flight, or
        `min_batch_bytes`. Under load, the clients that a chosen slot has answered send their next commands one after
        another; waiting for more of these commands makes larger slots, and fewer syncs. Bulk payloads do not count
        here.
        """
        self._drop_applied(applied)
        begun = []
        wait = self._options.retransmit_ms * MS
        last = applied + ALPHA
        while len(self._in_flight) < self._options.window and self._next_slot <= last:
            bulk_bytes = 0
            if self._recovered:
                value = self._recovered.popleft()
            elif self._queue and self._queued_bytes >= min(self._in_flight_bytes, self._options.min_batch_bytes):
                value = self._next_value()
            elif self._bulk and self._has_bulk_room:
                bulk_bytes = len(self._bulk[0])
                self._queued_bulk_bytes -= bulk_bytes
                value = pack([self._bulk.popleft()])
            elif self._next_slot < self._fill_below:
                value = NOOP
            else:
                break
            slot, self._next_slot = self._next_slot, self._next_slot + 1
            self._in_flight[slot] = Proposal(value, now, now + wait, wait, bulk_bytes, set())
            self._bulk_in_flight_bytes += bulk_bytes
            self._in_flight_bytes += 0 if bulk_bytes else len(value)
            begun.append((slot, value))
        return begun

    def accepted(self, sender: NodeId, slot: Slot) -> bool:
        """Count the vote of `sender` for `slot` under this ballot. Return True if the vote completes a majority."""
        proposal = self._in_flight.get(slot)
        if proposal is None:
            return False
        proposal.accepted.add(sender)
        if not is_quorum(proposal.accepted, self._configurations.at(slot)):
            return False
        self._end(slot)
        return True

    def _drop_applied(self, applied: Slot) -> None:
        """End the proposals of applied slots. Most of them have ended with their majority. But a slot that was chosen
        under an earlier ballot may be applied without votes for this ballot, and its voters may have been removed
        since."""
        while self._in_flight and (oldest := next(iter(self._in_flight))) <= applied:
            self._end(oldest)

    def _end(self, slot: Slot) -> None:
        proposal = self._in_flight.pop(slot)
        self._bulk_in_flight_bytes -= proposal.bulk_bytes
        self._in_flight_bytes -= 0 if proposal.bulk_bytes else len(proposal.value)

    @property
    def _has_bulk_room(self) -> bool:
        in_flight = self._bulk_in_flight_bytes
        return not in_flight or in_flight + len(self._bulk[0]) <= self._options.max_bulk_bytes

    def overdue(self, now: Time) -> list[tuple[Slot, bytes, list[NodeId]]]:
        """Return the slots to send again now, with their values and the voters that have not accepted. The time to the
        next repetition doubles each time."""
        again = []
        for slot, proposal in self._in_flight.items():
            if proposal.resend_at <= now:
                proposal.wait *= 2
                proposal.resend_at = now + proposal.wait
                voters = self._configurations.at(slot).voters
                missing = [voter for voter in voters if voter not in proposal.accepted]
                again.append((slot, proposal.value, missing))
        return again

    def next_resend(self) -> Time | None:
        """Return the time at which `overdue` next returns a slot, None if no slot is in flight."""
        return min((proposal.resend_at for proposal in self._in_flight.values()), default=None)

    def oldest(self) -> Time | None:
        """Return the time of proposal of the oldest slot in flight, None if there is none."""
        first = next(iter(self._in_flight.values()), None)
        return first.proposed_at if first is not None else None

    def _next_value(self) -> bytes:
        """Take as many queued payloads as fit in a slot, at least one, and return them as its value."""
        payloads = [self._queue.popleft()]
        size = len(payloads[0])
        while self._queue and size + len(self._queue[0]) <= self._options.max_batch_bytes:
            payloads.append(self._queue.popleft())
            size += len(payloads[-1])
        self._queued_bytes -= size
        return pack(payloads)
