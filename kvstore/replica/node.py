"""The synchronous host of one replica: input in, effects out.

It joins the protocol, the state machine and the requests of clients. It owns no socket, thread or event loop: the
driver (`kvstore.server.event_loop`, or the simulator, which runs this very code) calls a method for each thing that happened,
then `step`, and carries out the Ready that it returns: messages at once, the write, then `durable`, the fetches, then
`fetched` or `read_state`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

from kvstore.api.commands import Command, KeyCommand, Reconfigure
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import Member, MemberRole, Membership, MembershipVersion, configurations_of
from kvstore.api.queries import Consistency, LeaseLookup, LeaseScan, LockLookup, Query
from kvstore.api.results import Answer, ReadAnswer
from kvstore.api.status import Standing
from kvstore.replica.checkpointer import Checkpointer
from kvstore.replica.divergence import EVERY_SLOTS, DivergenceCheck
from kvstore.replica.lease_expiry import LeaseExpiry
from kvstore.replica.membership_manager import MembershipManager
from kvstore.replica.proposal_queue import ProposalQueue, WriteReply, WriteRequest
from kvstore.replica.read_queue import ReadQueue, ReadReply, ReadRequest
from kvstore.replica.retention import Limits
from kvstore.replica.snapshot_receive import SnapshotReceiver
from kvstore.replica.snapshot_send import MOST_PAGE_BYTES, state_message
from kvstore.state_machine.quota import GROWTH, growth_of, size_bytes
from kvstore.state_machine.reads import look_up, look_up_lease
from kvstore.state_machine.state_machine import StateMachine
from paxos.messages import (
    Accept,
    AnyMessage,
    DigestMismatch,
    DigestReply,
    DigestRequest,
    FetchSnapshot,
    Learn,
    SnapshotPage,
)
from paxos.options import Options
from paxos.ready import Envelope, Ready, ServeFetch, ServeSnapshot, Write
from paxos.replica import Replica
from paxos.role import Role
from paxos.types import MS, Ballot, NodeId, PValue, Slot, Time
from storage.base import StatePage, StateWrite, Storage, scan

MAX_UNSTORED_BYTES = 64 << 20
"""Values that wait for the disk; while there are more of them nothing further is accepted or learned. What is passed
over is sent again, or fetched once the disk has caught up (rule 26)."""
REPEAT_MS = 1000
"""A batch that was not seen applied for so long is sent again; at a change of leader it is sent at once."""


class Stats:
    """Plain counters, read by the metrics."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.leader_changes = 0
        self.states_installed = 0


class Node:
    """One replica. It belongs to one thread; `clock` is read anew for each thing that happened."""

    def __init__(
        self,
        storage: Storage,
        memberships: list[MembershipVersion],
        options: Options,
        *,
        clock: Callable[[], Time],
        rng: Random,
        request_timeout_ms: int,
        max_waiting: int,
        quota_bytes: int = 2**62,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Load the state from `storage`, which belongs to the driver again afterwards. `memberships`: the members that the
        cluster begins with, none for a replica that shall join one and is told by it. Above `quota_bytes` nothing is
        taken that makes the state larger; `limits` say how much of the past is kept; `on_batch` hears the number of
        commands in each slot. Raises StorageError when what is stored cannot be used."""
        recovered = storage.recovered()
        identity = recovered.identity
        self.id: NodeId = identity.node
        self._boot = identity.boot
        self.origin = f"{identity.node}.{identity.incarnation:x}"
        """Whose request ids this replica gives: another disk under its name counts its boots anew."""
        self._clock = clock
        self._timeout = request_timeout_ms * MS
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._quota_bytes = quota_bytes
        self.stats = Stats()
        self._checkpointer = Checkpointer(storage, memberships, limits, clock())
        self._state_reads: list[ServeSnapshot] = []
        from_slot = max(recovered.truncation.slot, recovered.chosen - options.recent_slots) + 1
        self.replica = Replica(
            self.id,
            configurations_of(self.machine.memberships),
            options,
            rng,
            clock(),
            promised=recovered.promised,
            chosen=recovered.chosen,
            tail=list(scan(storage, from_slot, recovered.last)),
            restarted=self._boot > 1,
        )
        self._snapshot_receiver = SnapshotReceiver(self.id, storage, self._checkpointer, self.replica)
        self._proposals = ProposalQueue(
            self.origin, self._boot, max_batch_bytes=options.max_batch_bytes, repeat_ms=REPEAT_MS
        )
        self._queries = {False: ReadQueue(), True: ReadQueue()}
        self._tokens = (self._boot + rng.getrandbits(29)) << 32  # no answer to an earlier life or disk fits
        self._leading: Ballot | None = None
        self._leader_heard: Time | None = None
        self._answers: list[Envelope] = []
        self._unstored_bytes = 0
        self._membership_manager = MembershipManager()
        self._divergence = DivergenceCheck(self.id)
        self._lease_expiry = LeaseExpiry(self._order)
        self.proved: Mapping[NodeId, int] = {}
        self.replacement_requests: Mapping[NodeId, int] = {}
        """The data with which each linked member has proved itself, and the own; and what members have lost to damage.
        The driver keeps both up to date."""
        self.heard: dict[NodeId, Time] = {}
        """When each peer's last message arrived."""
        self._barred: Reason | None = None
        self._follow_members()

    @property
    def machine(self) -> StateMachine:
        """The state as of `applied`."""
        return self._checkpointer.applier.machine

    @property
    def applied(self) -> Slot:
        """Every slot up to here is applied."""
        return self._checkpointer.applier.applied

    # Requests

    @property
    def waiting(self) -> int:
        """Requests that have not been answered."""
        return self._proposals.waiting + self._queries[False].waiting + self._queries[True].waiting

    def write(self, command: Command, reply: WriteReply) -> None:
        """Order and apply `command`; `reply` gets its result, or Refused, exactly once."""
        if self._barred is not None and not (self._barred is Reason.WITNESS and isinstance(command, Reconfigure)):
            reply(self._refusal(self._barred))
        elif self.waiting >= self._max_waiting:
            reply(Refused(Reason.OVERLOADED, Outcome.FAILED))
        elif not isinstance(command, Reconfigure) and self._exceeds_quota(command):
            reply(Refused(Reason.FULL, Outcome.FAILED))
        else:
            self._order(command, reply)

    def read(self, query: Query, consistency: Consistency, reply: ReadReply) -> bool:
        """Answer `query`, or with Refused, exactly once. True when it was answered at once, because nobody
        has to be asked: no step has to follow."""
        if self._barred is not None and not (self._barred is Reason.REMOVED and consistency is Consistency.STALE):
            reply(self._refusal(self._barred))
            return True
        if consistency is Consistency.STALE:
            self._answer(query, reply, "stale")
            return True
        if consistency is Consistency.LINEARIZABLE and self._may_read():
            answer = self._look_up(query)
            if self._may_read():  # rule 18: the process may have slept since the first look
                self.stats.reads["lease"] += 1
                reply(answer)
                return True
        if self.waiting >= self._max_waiting:
            reply(Refused(Reason.OVERLOADED, Outcome.FAILED))
            return True
        quorum = consistency is Consistency.QUORUM
        self._queries[quorum].add(ReadRequest(query, reply, self._clock() + self._timeout))
        return False

    def hand_over(self) -> None:
        """Lead no more: the first step of a clean shutdown. Requests are answered as before, by way of the next
        leader."""
        self.replica.hand_over(self._clock())

    # What happened

    def receive(self, sender: NodeId, message: AnyMessage) -> None:
        """A message of the member `sender`."""
        now = self._clock()
        self.heard[sender] = now
        if self._leading is not None and self._leading.node == sender:
            self._leader_heard = now
        self.stats.received[type(message).__name__] += 1
        if isinstance(message, FetchSnapshot):
            if self._checkpointer.applier.bare or not self.machine.memberships:
                return  # there is no state here
            self._checkpointer.outgoing.asked(sender, message, now)
            page_bytes = min(self.replica.options.page_bytes, MOST_PAGE_BYTES)
            self._state_reads.append(ServeSnapshot(sender, message.after, page_bytes))
        elif isinstance(message, SnapshotPage):
            if self._snapshot_receiver.take(sender, message, now):
                self.stats.states_installed += 1
                self._follow_members()
        elif isinstance(message, Accept | Learn) and self._unstored_bytes > MAX_UNSTORED_BYTES:
            return  # the own disk is too slow
        elif isinstance(message, DigestRequest | DigestReply | DigestMismatch):
            self._answers += self._divergence.receive(sender, message, self.membership)
        else:
            self.replica.receive(sender, message, now)

    def durable(self, writes: list[Write]) -> None:
        """These writes are durable: their votes may leave, and the own ones count."""
        now = self._clock()
        for write in writes:
            self._unstored_bytes -= _value_bytes(write)
            if isinstance(write, StateWrite) and write.staged is not None:
                self._snapshot_receiver.stored()
            for vote in write.votes:
                if vote.to == self.id:
                    self.replica.receive(self.id, vote.message, now)
                else:
                    self._answers.append(vote)

    def fetched(self, to: NodeId, entries: list[PValue]) -> None:
        """Storage gave the page of a ServeFetch."""
        if entries:
            self._answers.append(Envelope(to, self._learn(tuple(entries))))

    @property
    def membership(self) -> Membership:
        """The members, by the last change of them that was applied."""
        return self.machine.membership

    @property
    def neighbours(self) -> dict[NodeId, Member]:
        """Everybody to have a link with: the members, and until it is in force, who leaves by the last change."""
        memberships = self.machine.memberships
        relevant = memberships if self.pending else memberships[-1:]
        return {
            member.name: member
            for version in relevant
            for member in version.membership.members
            if member.name != self.id
        }

    @property
    def pending(self) -> bool:
        """True while the last change of the members is not in force."""
        memberships = self.machine.memberships
        return bool(memberships) and memberships[-1].first > self.applied + 1

    @property
    def standing(self) -> Standing:
        """What this replica is to its cluster, by what it has applied."""
        member = self.membership.get(self.id)
        if not self.machine.memberships:
            return Standing.WAITING
        if member is None:
            return Standing.REMOVED
        return Standing.JOINING if member.joining else Standing(member.role.value)

    @property
    def malformed(self) -> int:
        """Payloads in the log that were no batch."""
        return self._checkpointer.applier.malformed

    def read_state(self, to: NodeId, after: int, page: StatePage) -> None:
        """Storage gave the page of a ServeSnapshot."""
        if page.progress is not None:
            self._checkpointer.outgoing.ended(to)
        self._answers.append(Envelope(to, state_message(after, page)))

    def hold_state(self, reader: str, after: int) -> int:
        """`reader`, who is no member, is about to read the stored state behind revision `after`: compaction waits for
        it as for a peer, and what is applied is stored with the next step. Gives the revision up to which the state is
        compacted, or will be soon: a page that is compacted less may be followed by one that is more."""
        self._checkpointer.outgoing.asked(reader, FetchSnapshot(after), self._clock())
        return self._checkpointer.store_now()

    def end_state(self, reader: str) -> None:
        """`reader` reads no more."""
        self._checkpointer.outgoing.ended(reader)

    def tick(self) -> None:
        """Time has passed; to be called at `next_deadline` at the latest, and harmless before it."""
        now = self._clock()
        if now >= self.replica.next_deadline():
            self.replica.tick(now)
        self._proposals.expire(now, Reason.NO_LEADER if self._leading is None else Reason.OVERLOADED)
        for payload in self._proposals.overdue(now):
            self.replica.propose((payload,))
        if self.replica.role is Role.LEADER:
            self._look_after_members(now)
            self._lease_expiry.tick(self.machine, now)
            question = self._divergence.due(self.membership, now)
            if question is not None:
                self._answers += [Envelope(member, question) for member in self.neighbours]
        for queries in self._queries.values():
            token = queries.expire(now)
            if token is not None:
                self.replica.forget_read(token)

    def next_deadline(self) -> Time:
        """When `tick` has something to do."""
        others = (
            self._proposals.next_deadline(),
            self._queries[False].next_deadline(),
            self._queries[True].next_deadline(),
            self._snapshot_receiver.next_deadline(),
            self._lease_expiry.next_deadline(),
        )
        return min([self.replica.next_deadline(), *(other for other in others if other is not None)])

    def step(self) -> Ready:
        """Carry on with all that happened, answer what can be answered, and say what the driver must do."""
        now = self._clock()
        self._follow_leader()
        while self._proposals.has_queued and self.replica.accepts_proposals:
            self.replica.propose((self._proposals.batch(now),))
        for quorum, queries in self._queries.items():
            if queries.ask(self._tokens + 1):
                self._tokens += 1
                self.replica.read(self._tokens, now, quorum=quorum)
        ready = self.replica.take(now)
        self._apply_chosen(ready, now)
        leads = self.replica.role is Role.LEADER
        self._lease_expiry.follow(self.replica.leader_ballot if leads else None, self.machine, now)
        question = self._snapshot_receiver.question(self.heard, self.proved, self._leading, now)
        if question is not None:
            self._answers.append(question)
        self._serve(ready)
        for read in ready.reads:
            for queries in self._queries.values():
                for request in queries.answered(read.token):
                    self._answer(request.query, request.reply, read.confirmed_by)
        if self._answers:
            ready.messages += self._answers
            self._answers = []
        for envelope in ready.messages:
            self.stats.sent[type(envelope.message).__name__] += 1
        return ready

    def leader_age_ms(self) -> float | None:
        """Time since the last word from the leader: 0 on the leader, None when there was none yet."""
        leading = self.replica.leader_ballot
        if leading is not None and leading.node == self.id:
            return 0.0
        return (self._clock() - self._leader_heard) / MS if self._leader_heard is not None else None

    # Inside

    def _order(self, command: Command, reply: WriteReply) -> None:
        self._proposals.add(WriteRequest(command, reply, self._clock() + self._timeout))

    def _may_read(self) -> bool:
        """True when the state is current without asking anybody: chosen is not applied until the next step."""
        return self.replica.lease_holds(self._clock()) and self.applied == self.replica.chosen

    def _follow_leader(self) -> None:
        """Repeat to a new leader all that is on its way: it may have heard of none of it."""
        leading = self.replica.leader_ballot
        if leading == self._leading:
            return
        if self._leading is not None and self._leading.node == self.id:
            self._leader_heard = self._clock()  # until now the leader was heard all the time
        self._leading = leading
        if leading is not None:
            self.stats.leader_changes += 1
            for payload in self._proposals.all_sent():
                self.replica.propose((payload,))

    def _exceeds_quota(self, command: KeyCommand) -> bool:
        if self.machine.size_bytes + GROWTH * size_bytes(command) <= self._quota_bytes:
            return False
        growth = growth_of(command, self.machine)
        return growth > 0 and self.machine.size_bytes + growth > self._quota_bytes

    def _apply_chosen(self, ready: Ready, now: Time) -> None:
        """Apply what was chosen, and have it stored."""
        for slot, value in ready.chosen:
            if slot > self.applied:  # the state may have been replaced by a later one
                self._on_batch(self._apply(slot, value, now))
        self._checkpointer.attach(ready, now)
        if ready.write is not None:
            self._unstored_bytes += _value_bytes(ready.write)

    def _apply(self, slot: Slot, value: bytes, now: Time) -> int:
        commands, version = 0, self.membership.version
        for batch, results in self._checkpointer.apply(slot, value, now):
            commands += len(batch.commands)
            if results is not None and batch.origin == self.origin and batch.boot == self._boot:
                self._proposals.applied(batch.sequence, results)
        if slot % EVERY_SLOTS == 0 and not self._checkpointer.applier.bare:
            self._divergence.note(self._checkpointer.applier.progress())
        if self.membership.version != version:
            self.replica.reconfigure(configurations_of(self.machine.memberships)[-1], now)
            self._follow_members()
        return commands

    def _serve(self, ready: Ready) -> None:
        """Of what peers fetch, what is cut is answered at once; the rest is for storage."""
        reads: list[ServeFetch | ServeSnapshot] = []
        for fetch in ready.fetches:
            if isinstance(fetch, ServeFetch) and fetch.from_slot <= self._checkpointer.cut:
                self._answers.append(Envelope(fetch.to, self._learn(())))
            else:
                reads.append(fetch)
        ready.fetches = [*reads, *self._state_reads]
        self._state_reads = []

    def _learn(self, entries: tuple[PValue, ...]) -> Learn:
        return Learn(entries, self.replica.chosen, self._checkpointer.cut)

    def _follow_members(self) -> None:
        """The members changed: what is this replica now?"""
        member = self.membership.get(self.id)
        witness = member is not None and member.purpose is MemberRole.WITNESS
        if self._checkpointer.applier.bare and member is not None and not witness:
            # It was a witness. What it lacks only a state gives it, and that knows the members too: it joins anew.
            self.machine.memberships = []
            self.replica.forget_configurations()
        knows = bool(self.machine.memberships)
        self._snapshot_receiver.keeps_records = knows and not witness
        if not knows:
            self._barred = Reason.JOINING
        elif witness or self._checkpointer.applier.bare:
            self._barred = Reason.WITNESS
        else:
            self._barred = None if member is not None else Reason.REMOVED

    def _refusal(self, reason: Reason) -> Refused:
        members = (member for member in self.membership.members if member.purpose is not MemberRole.WITNESS)
        return Refused(reason, Outcome.FAILED, [member.name for member in members if member.name != self.id])

    def _look_after_members(self, now: Time) -> None:
        """What a leader does for the others without being asked."""
        change = self._membership_manager.due(
            self.machine.memberships, self.proved, self.replacement_requests, self.replica, now
        )
        if change is not None:
            self.write(Reconfigure(change), self._membership_manager.answered)

    def _answer(self, query: Query, reply: ReadReply, way: str) -> None:
        self.stats.reads[way] += 1
        reply(self._look_up(query))

    def _look_up(self, query: Query) -> Answer:
        machine = self.machine
        if isinstance(query, bytes):
            lease = machine.lease_index.lease_of.get(query, 0)
            return ReadAnswer(machine.get(query), self.applied, machine.revision, self.leader_age_ms(), lease)
        if isinstance(query, LeaseLookup | LeaseScan | LockLookup):
            return look_up_lease(query, machine, lambda lease: self._lease_expiry.left_ms(lease, self._clock()))
        return look_up(query, machine, self.applied, self.leader_age_ms())


def _value_bytes(write: Write) -> int:
    return sum(len(entry.value) for entry in write.accepts)
