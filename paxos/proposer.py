"""The proposer: phase 1 over a range of slots, then phase 2 alone, several slots at a time.

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
    """Phase 1 of one ballot, over every slot from `from_slot` on: who promised, and what must be proposed again."""

    def __init__(self, ballot: Ballot, from_slot: Slot, configurations: list[Configuration]) -> None:
        """`configurations`: each that may decide a slot from `from_slot` on (rule 27)."""
        self.ballot = ballot
        self.from_slot = from_slot
        self._deciding = configurations
        self.awaiting = {voter: from_slot for configuration in configurations for voter in configuration.voters}
        """The acceptors that have not answered in full, each with the slot at which its next page begins."""
        self.promised: set[NodeId] = set()
        """Those that have."""
        self._highest: dict[Slot, PValue] = {}

    def add_promise(self, sender: NodeId, message: Promise) -> None:
        """Take one page of an acceptor's answer; pages count in order, each once."""
        if self.awaiting.get(sender) != message.from_slot:
            return
        for pvalue in message.accepted:
            best = self._highest.get(pvalue.slot)
            if best is None or pvalue.ballot > best.ballot:
                self._highest[pvalue.slot] = pvalue
        if message.next_slot > message.from_slot:
            self.awaiting[sender] = message.next_slot
        else:
            del self.awaiting[sender]
            self.promised.add(sender)

    def has_quorum(self) -> bool:
        """True once a majority promised and told all that it had accepted."""
        return is_quorum_of_each(self.promised, self._deciding)

    def add_late_promise(self, sender: NodeId, message: Promise, next_slot: Slot) -> None:
        """An answer that came after the election. It counts when it holds nothing but slots before `next_slot`, which
        the election has settled: otherwise it could have changed what was to be proposed again."""
        if self.awaiting.get(sender) != message.from_slot or message.next_slot:
            return
        if all(pvalue.slot < next_slot for pvalue in message.accepted):
            del self.awaiting[sender]
            self.promised.add(sender)

    def covers(self, configuration: Configuration) -> bool:
        """A later configuration was chosen: has a majority of it promised? Whoever left it is not heard any more."""
        self.promised &= set(configuration.voters)
        return is_quorum(self.promised, configuration)

    def recovered(self) -> list[bytes]:
        """What has to be proposed from `from_slot` on, without a gap: for each slot the value of the highest ballot
        heard of, a no-op where there was none (rule 10)."""
        last = max(self._highest, default=self.from_slot - 1)
        slots = range(self.from_slot, last + 1)
        return [self._highest[slot].value if slot in self._highest else NOOP for slot in slots]


class Proposal(msgspec.Struct):
    """A slot under way: who accepted it, since when it is, and when it is sent again."""

    value: bytes
    proposed_at: Time
    resend_at: Time
    wait: Time
    accepted: set[NodeId]


class Pipeline:
    """Phase 2 of one ballot: the queue of payloads, and the window of slots that wait for their majority."""

    def __init__(
        self, from_slot: Slot, recovered: list[bytes], configurations: ConfigurationHistory, options: Options
    ) -> None:
        """`recovered` goes first, slot by slot, and then one no-op of the ballot's own."""
        self._configurations = configurations
        self._options = options
        self._next_slot = from_slot
        self._recovered = deque([*recovered, NOOP])
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._in_flight: dict[Slot, Proposal] = {}
        self._in_flight_bytes = 0
        self._fill_below: Slot = 0
        self.own_noop = from_slot + len(recovered)

    def enqueue(self, payloads: tuple[bytes, ...]) -> bool:
        """Have these ordered in this order; False when too much waits already, then none of them is taken."""
        if not self.has_room:
            return False
        self._queue.extend(payloads)
        self._queued_bytes += sum(map(len, payloads))
        return True

    @property
    def has_room(self) -> bool:
        """False while too much waits for a slot."""
        return self._queued_bytes < self._options.max_queued_bytes

    @property
    def queued(self) -> int:
        """Payloads that wait for a slot."""
        return len(self._queue)

    @property
    def next_slot(self) -> Slot:
        """The first slot that was not proposed."""
        return self._next_slot

    def fill(self, below: Slot) -> None:
        """Let no-ops bring the log up to `below` where nothing else does."""
        self._fill_below = below

    def propose(self, now: Time, applied: Slot) -> list[tuple[Slot, bytes]]:
        """Slots that begin now, as many as the window has room for; each holds all that was waiting and fits. Who
        decides a slot is known once ALPHA slots before it are `applied` (rule 27).

        What waits has to be worth a slot: as much as what is under way, or `min_batch_bytes`. A slot costs each acceptor a
        sync, whatever is in it, and under load the clients whom one slot has answered come back one by one."""
        self._drop_applied(applied)
        begun = []
        wait = self._options.retransmit_ms * MS
        last = applied + ALPHA
        while len(self._in_flight) < self._options.window and self._next_slot <= last:
            if self._recovered:
                value = self._recovered.popleft()
            elif self._queue and self._queued_bytes >= min(self._in_flight_bytes, self._options.min_batch_bytes):
                value = self._batch()
            elif self._next_slot < self._fill_below:
                value = NOOP
            else:
                break
            slot, self._next_slot = self._next_slot, self._next_slot + 1
            self._in_flight[slot] = Proposal(value, now, now + wait, wait, set())
            self._in_flight_bytes += len(value)
            begun.append((slot, value))
        return begun

    def accepted(self, sender: NodeId, slot: Slot) -> bool:
        """`sender` accepted `slot` under the pipeline's ballot; True when that made its majority."""
        proposal = self._in_flight.get(slot)
        if proposal is None:
            return False
        proposal.accepted.add(sender)
        if not is_quorum(proposal.accepted, self._configurations.at(slot)):
            return False
        self._end(slot)
        return True

    def _drop_applied(self, applied: Slot) -> None:
        """What is applied needs no more votes. Mostly they brought that about; but a slot that was decided under an
        earlier ballot is passed over without them, and those who vote for it may be no voters any more."""
        while self._in_flight and (oldest := next(iter(self._in_flight))) <= applied:
            self._end(oldest)

    def _end(self, slot: Slot) -> None:
        self._in_flight_bytes -= len(self._in_flight.pop(slot).value)

    def overdue(self, now: Time) -> list[tuple[Slot, bytes, list[NodeId]]]:
        """Slots to send again, each with those who have not answered; the wait doubles each time."""
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
        """The earliest moment at which `overdue` has something."""
        return min((proposal.resend_at for proposal in self._in_flight.values()), default=None)

    def oldest(self) -> Time | None:
        """Since when the oldest slot waits for its majority."""
        first = next(iter(self._in_flight.values()), None)
        return first.proposed_at if first is not None else None

    def _batch(self) -> bytes:
        payloads = [self._queue.popleft()]
        room = self._options.max_batch_bytes - len(payloads[0])
        while self._queue and len(self._queue[0]) <= room:
            payloads.append(self._queue.popleft())
            room -= len(payloads[-1])
        self._queued_bytes -= sum(map(len, payloads))
        return pack(payloads)
