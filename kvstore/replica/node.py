"""The synchronous host of one replica: it connects the protocol, the state machine and the requests of clients.

A node owns no socket, thread or clock. Its driver, `kvstore.server.event_loop` or the simulator, calls one method for
each event, then `step`, and carries out the Ready that `step` returns. The driver reports the end of a write with
`durable`, of a ServeFetch with `log_page_read`, and of a ServeSnapshot with `state_page_read`.
"""

from collections.abc import Callable, Mapping
from random import Random

from kvstore.api.commands import Command, Reconfigure
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import Membership, configurations_of
from kvstore.api.queries import Consistency, Query
from kvstore.replica.applier import AppliedBatch
from kvstore.replica.checkpointer import Checkpointer, joined
from kvstore.replica.disk_load import DiskLoad
from kvstore.replica.divergence import DIGESTS, EVERY_SLOTS, DivergenceCheck
from kvstore.replica.founding import FoundingManager, FoundingPlan, founding_memberships
from kvstore.replica.grant_record import GrantRecord
from kvstore.replica.leader_watch import LeaderWatch
from kvstore.replica.lease_expiry import LeaseExpiry
from kvstore.replica.membership_manager import MembershipManager
from kvstore.replica.membership_view import MembershipView
from kvstore.replica.proposal_queue import REPEAT_MS, ProposalQueue, WriteReply, WriteRequest
from kvstore.replica.read_handler import ReadHandler
from kvstore.replica.read_queue import ReadReply, ReadRequest
from kvstore.replica.retention import RetentionLimits
from kvstore.replica.snapshot_receive import SnapshotReceiver
from kvstore.replica.snapshot_send import MAX_PAGE_BYTES, state_message
from kvstore.replica.stats import NodeStats
from kvstore.state_machine.quota import exceeds_quota, size_bytes, work_of
from kvstore.state_machine.state_machine import StateMachine
from paxos.messages import AnyMessage, FetchSnapshot, FoundingState, Learn, SnapshotPage
from paxos.options import Options
from paxos.ready import Envelope, Ready, ServeFetch, ServeSnapshot, Write
from paxos.replica import Replica
from paxos.role import Role
from paxos.types import MS, NodeId, PValue, Slot, Time
from storage.base import DiskSpace, StatePage, StateWrite, Storage, scan


class Node:
    """The host of one replica. All calls must come from one thread."""

    def __init__(
        self,
        storage: Storage,
        options: Options,
        *,
        clock: Callable[[], Time],
        rng: Random,
        request_timeout_ms: int,
        max_waiting: int,
        quota_bytes: int = 2**62,
        limits: RetentionLimits = RetentionLimits(),  # noqa: B008 - frozen
        plan: FoundingPlan = FoundingPlan(),  # noqa: B008 - immutable
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Load the state from `storage`, which only the driver uses afterwards.

        Without a stored membership, the replica founds a cluster by `plan`, or joins one. `clock` is read at each
        event. `max_waiting` limits the unanswered requests. Commands that would enlarge the state beyond `quota_bytes`
        are refused. `on_batch` gets the number of commands in each applied slot. Raises StorageError.
        """
        recovered = storage.recovered()
        identity = recovered.identity
        self.id: NodeId = identity.node
        self._boot = identity.boot
        self.origin = f"{identity.node}.{identity.incarnation:x}"
        """First part of this replica's request ids. New data under the same name has another incarnation."""
        self._clock = clock
        self._timeout = request_timeout_ms * MS
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._quota_bytes = quota_bytes
        self.stats = NodeStats()
        self._checkpointer = Checkpointer(storage, founding_memberships(recovered.founding), limits, clock())
        self.view = MembershipView(self.id, self._checkpointer)
        self._grants = GrantRecord(storage, options.grant_terms, clock())
        self.replica = Replica(
            self.id,
            configurations_of(self.machine.memberships),
            options,
            rng,
            clock(),
            promised=recovered.promised,
            chosen=recovered.chosen,
            tail=_log_tail(storage, options),
            restarted=self._boot > 1,
            granted=self._grants.longest,
        )
        self.founding = FoundingManager(plan, storage, self._checkpointer, self.replica)
        self._snapshot_receiver = SnapshotReceiver(self.id, storage, self._checkpointer, self.replica, self.founding)
        most = min(options.max_batch_bytes, options.bulk_bytes)
        self._proposals = ProposalQueue(self.origin, self._boot, max_batch_bytes=most, repeat_ms=REPEAT_MS)
        self._leader = LeaderWatch(self.replica, clock)
        self._lease_expiry = LeaseExpiry(self._submit, clock_drift_ppm=options.clock_drift_ppm)
        token = (self._boot + rng.getrandbits(29)) << 32
        self._reader = ReadHandler(
            self.replica, self._checkpointer, self._leader, self._lease_expiry, self.stats, clock=clock, token=token
        )
        self._membership_manager = MembershipManager()
        self._divergence = DivergenceCheck(self.id)
        self._messages: list[Envelope] = []
        self._state_reads: list[ServeSnapshot] = []
        """Snapshot pages to read from storage, for the next Ready."""
        self.disk = DiskLoad()
        self.incarnations: Mapping[NodeId, int] = {}
        """Incarnation that each linked peer has proved, and that of this replica, by name. Set by the driver."""
        self.replacement_requests: Mapping[NodeId, int] = {}
        """Incarnation of the damaged data, for each member that asks for a replacement. Set by the driver."""
        self.heard: dict[NodeId, Time] = {}
        """Time of each peer's last message."""
        self._follow_membership()

    @property
    def machine(self) -> StateMachine:
        """The state after slot `applied`."""
        return self._checkpointer.applier.machine

    @property
    def applied(self) -> Slot:
        """The last applied slot."""
        return self._checkpointer.applier.applied

    @property
    def membership(self) -> Membership:
        """The membership after the last applied change."""
        return self.view.newest

    @property
    def has_more(self) -> bool:
        """True when `step` has left work for the next step."""
        return self._checkpointer.has_more

    @property
    def applies_entry(self) -> bool:
        """True while a log entry is applied in part. Readers see the state before it."""
        return self._checkpointer.applier.busy

    @property
    def malformed(self) -> int:
        """Number of applied payloads that are not valid command batches."""
        return self._checkpointer.applier.malformed

    # Client requests

    @property
    def waiting(self) -> int:
        """Number of unanswered requests."""
        return self._proposals.waiting + self._reader.waiting

    def write(self, command: Command, reply: WriteReply) -> None:
        """Queue `command` to be ordered and applied. `reply` is called exactly once, with the result or Refused."""
        reason = self.view.refuses
        if reason is not None and not (reason is Reason.WITNESS and isinstance(command, Reconfigure)):
            reply(self.view.refusal(reason))
            return
        size = size_bytes(command)
        if self.waiting >= self._max_waiting:
            reply(Refused(Reason.OVERLOADED, Outcome.FAILED))
        elif not isinstance(command, Reconfigure) and exceeds_quota(command, size, self.machine, self._quota_bytes):
            reply(Refused(Reason.FULL, Outcome.FAILED))
        elif self.disk.refuses(command):
            reply(Refused(Reason.DISK_FULL, Outcome.FAILED))
        else:
            work = work_of(command, size, self.machine)
            self._proposals.add(WriteRequest(command, size, reply, self._clock() + self._timeout, work))

    def read(self, query: Query, consistency: Consistency, reply: ReadReply) -> bool:
        """Answer `query`. `reply` is called exactly once, with the answer or Refused.

        Return True when `reply` was already called; otherwise the driver must call `step`.
        """
        reason = self.view.refuses
        if reason is not None and not (reason is Reason.REMOVED and consistency is Consistency.STALE):
            reply(self.view.refusal(reason))
            return True
        if self._reader.answer_now(query, consistency, reply):
            return True
        if self.waiting >= self._max_waiting:
            reply(Refused(Reason.OVERLOADED, Outcome.FAILED))
            return True
        request = ReadRequest(query, reply, self._clock() + self._timeout)
        self._reader.add(request, consistency)
        return False

    def hold_state(self, reader: str, after: int) -> int:
        """Store the applied state with the next step, and let compaction wait for the backup `reader`, which reads rows
        after position `after`. Return the position up to which storage compacts: no page of the backup may be older."""
        self._checkpointer.outgoing.requested(reader, FetchSnapshot(after), self._clock())
        return self._checkpointer.store_now()

    def release_state(self, reader: str) -> None:
        """Let compaction proceed: `reader`, a backup, reads no more."""
        self._checkpointer.outgoing.ended(reader)

    def hand_over(self) -> None:
        """Stop leading, as the first step of a clean shutdown. Unanswered requests are sent to the next leader."""
        self.replica.hand_over(self._clock())

    # Events

    def receive(self, sender: NodeId, message: AnyMessage) -> None:
        """Handle a message from the peer `sender`."""
        now = self._clock()
        self.heard[sender] = now
        self._leader.heard(sender, now)
        self.stats.received[type(message).__name__] += 1
        if self.disk.drops(message):
            return
        if isinstance(message, FetchSnapshot):
            self._serve_state(sender, message, now)
        elif isinstance(message, SnapshotPage):
            if self._snapshot_receiver.take(sender, message, now):
                self.stats.snapshots_installed += 1
                self._follow_membership()
        elif isinstance(message, DIGESTS):
            self._messages += self._divergence.receive(sender, message, self.membership)
        elif isinstance(message, FoundingState):
            self._messages += self.founding.receive(sender, message, now)
        else:
            self.replica.receive(sender, message, now)

    def durable(self, writes: list[Write]) -> None:
        """Record that `writes` are durable: send their votes to peers, and count the votes of this replica."""
        now = self._clock()
        for write in writes:
            self.disk.stored(write)
            if isinstance(write, StateWrite) and write.staged is not None:
                self._snapshot_receiver.stored()
            if self.founding.stored(write, now):
                self._follow_membership()
            for vote in write.votes:
                if vote.to == self.id:
                    self.replica.receive(self.id, vote.message, now)
                else:
                    self._messages.append(vote)

    def space_changed(self, space: DiskSpace) -> None:
        """Take note of the space that is left on the disk. A leader whose disk becomes full steps aside: the disk of
        another voter may have room, and its queue of values is dropped."""
        if self.disk.space is DiskSpace.AMPLE is not space:
            self.replica.step_aside(self._clock())
        self.disk.space = space
        self._checkpointer.retain(disk_is_full=space is not DiskSpace.AMPLE)

    def log_page_read(self, to: NodeId, entries: list[PValue]) -> None:
        """Send the entries that storage returned for a ServeFetch to the peer `to`."""
        if entries:
            self._messages.append(Envelope(to, self._learn(tuple(entries))))

    def state_page_read(self, to: NodeId, after: int, page: StatePage) -> None:
        """Send the page that storage returned for a ServeSnapshot to the peer `to`."""
        if page.progress is not None:
            self._checkpointer.outgoing.ended(to)
        self._messages.append(Envelope(to, state_message(after, page)))

    def tick(self) -> None:
        """Do the work that is due. The driver calls this at `next_deadline` at the latest; earlier calls do no harm."""
        now = self._clock()
        if now >= self.replica.next_deadline():
            self.replica.tick(now)
        self._proposals.expire(now, Reason.NO_LEADER if self._leader.leading is None else Reason.QUEUED)
        for batch in self._proposals.overdue(now):
            self.replica.propose((batch,))
        if self.replica.role is Role.LEADER and not self.applies_entry:  # see `LeaseExpiry.tick`
            self._manage_membership(now)
            self._lease_expiry.tick(self.machine, now)
            request = self._divergence.due(self.membership, now)
            if request is not None:
                self._messages += [Envelope(member, request) for member in self.view.neighbours]
        self._reader.expire(now)

    def next_deadline(self) -> Time:
        """Return the time at which `tick` has something to do."""
        deadlines = (
            self.replica.next_deadline(),
            self._proposals.next_deadline(),
            self._snapshot_receiver.next_deadline(),
            None if self.applies_entry else self._lease_expiry.next_deadline(),
            self.founding.next_deadline(),
            *self._reader.next_deadlines(),
        )
        return min([deadline for deadline in deadlines if deadline is not None])

    def step(self) -> Ready:
        """Return the work that follows from all events since the last step.

        Only this method completes a Ready. It applies chosen slots and answers reads before it returns; the returned
        Ready lists them for observers only. While `has_more` is True, the driver calls this method again.
        """
        now = self._clock()
        self._follow_leader()
        while self._proposals.has_queued and self.replica.accepts_proposals:
            self.replica.propose((self._proposals.batch(now),))
        self._reader.request_indices(now)
        for applied in self._checkpointer.apply_chosen(self.replica.next_chosen, now):
            self._on_batch(self._applied(applied, now))
        core = self.replica.take(now, applied=self.applied)
        checkpoint = self.founding.write() or self._checkpointer.take_checkpoint(now, along=core.write is not None)
        ballot = self.replica.leader_ballot if self.replica.role is Role.LEADER else None
        if not self._checkpointer.applier.busy:
            self._lease_expiry.follow(ballot, self.machine, now)
        request = self._snapshot_receiver.request(self.heard, self.incarnations, self._leader.leading, now)
        self._messages += [request] if request is not None else []
        self._messages += self.founding.announcements(now)
        fetches = self._fetches(core.fetches)
        self._reader.answer(core.reads)
        ready = Ready(
            messages=core.messages + self._messages,
            write=joined(core.write, self._grants.along(checkpoint, now)),
            chosen=core.chosen,
            reads=core.reads,
            fetches=fetches,
        )
        self._messages = []
        for envelope in ready.messages:
            self.stats.sent[type(envelope.message).__name__] += 1
        if ready.write is not None:
            self.disk.submitted(ready.write)
        return ready

    # Parts of a step

    def _follow_leader(self) -> None:
        """Propose all sent batches again when the leader has changed: the new leader may know none of them."""
        if self._leader.changed() and self._leader.leading is not None:
            self.stats.leader_changes += 1
            for batch in self._proposals.all_sent():
                self.replica.propose((batch,))

    def _applied(self, applied: list[AppliedBatch], now: Time) -> int:
        """Answer the requests of the slot that was just applied. Return the number of its commands."""
        commands = 0
        for batch, results in applied:
            commands += len(batch.commands)
            self._proposals.applied(batch, results, now)
        if self.applied % EVERY_SLOTS == 0 and not self._checkpointer.applier.membership_only:
            self._divergence.note(self._checkpointer.applier.progress())
        if self.membership.version != self._followed_version:
            self.replica.reconfigure(configurations_of(self.machine.memberships)[-1], now)
            self._follow_membership()
        return commands

    def _fetches(self, fetches: list[ServeFetch | ServeSnapshot]) -> list[ServeFetch | ServeSnapshot]:
        """Return the pages to read from storage. Answer a fetch of truncated slots at once (rule 11)."""
        reads: list[ServeFetch | ServeSnapshot] = []
        for fetch in fetches:
            if isinstance(fetch, ServeFetch) and fetch.from_slot <= self._checkpointer.truncated:
                self._messages.append(Envelope(fetch.to, self._learn(())))
            else:
                reads.append(fetch)
        reads += self._state_reads
        self._state_reads = []
        return reads

    # Internals

    def _submit(self, command: Command, reply: WriteReply) -> None:
        """Queue a command of this replica itself. The quota and the limit on requests do not apply to the command."""
        self._proposals.add(WriteRequest(command, size_bytes(command), reply, self._clock() + self._timeout))

    def _serve_state(self, sender: NodeId, message: FetchSnapshot, now: Time) -> None:
        if self._checkpointer.applier.membership_only or not self.view.known:
            return  # this replica has no records
        self._checkpointer.outgoing.requested(sender, message, now)
        most = min(self.replica.options.page_bytes, MAX_PAGE_BYTES)
        self._state_reads.append(ServeSnapshot(sender, message.after, most))

    def _learn(self, entries: tuple[PValue, ...]) -> Learn:
        return Learn(entries, self.replica.chosen, self._checkpointer.truncated)

    def _follow_membership(self) -> None:
        """Adapt to the applied membership: the role of this replica may have changed."""
        view, applier = self.view, self._checkpointer.applier
        self._followed_version = view.newest.version
        if applier.membership_only and not view.is_witness and view.newest.get(self.id) is not None:
            # This replica was a witness and lacks the records. It joins again, and gets them from a snapshot.
            applier.machine.memberships = []
            self.replica.forget_configurations()
        self._snapshot_receiver.keeps_records = view.known and not view.is_witness
        view.update()

    def _manage_membership(self, now: Time) -> None:
        """Propose the automatic membership change that is due, if there is one."""
        change = self._membership_manager.due(
            self.machine.memberships, self.incarnations, self.replacement_requests, self.replica, now
        )
        if change is not None:
            self.write(Reconfigure(change), self._membership_manager.answered)


def _log_tail(storage: Storage, options: Options) -> list[PValue]:
    """Return the stored entries from the chosen ones that candidates may ask for to the end of the log."""
    recovered = storage.recovered()
    from_slot = max(recovered.truncation.slot, recovered.chosen - options.recent_slots) + 1
    return list(scan(storage, from_slot, recovered.last))
