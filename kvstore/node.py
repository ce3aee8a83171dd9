"""The synchronous host of one replica: input in, effects out.

It joins the protocol, the state machine and the requests of clients. It owns no socket, thread or event loop: the
driver (`kvstore.runtime`, or the simulator, which runs this very code) calls a method for each thing that happened,
then `step`, and carries out the Ready that it returns: messages at once, the write, then `durable`, the fetches, then
`fetched`.
"""

from collections import Counter, deque
from collections.abc import Callable
from random import Random

import msgspec

from kvstore.commands import Command, unpack_bundle
from kvstore.queries import Queries, ReadReply, ReadRequest
from kvstore.requests import Consistency, Outcome, ReadAnswer, Reason, Refused
from kvstore.state_machine import StateMachine
from kvstore.submissions import Submissions, WriteReply, WriteRequest
from paxos.messages import AnyMessage, Learn
from paxos.options import Options
from paxos.ready import Envelope, Ready, Write
from paxos.replica import Replica
from paxos.types import MS, Ballot, Membership, NodeId, PValue, Slot, Time, unpack
from storage.base import Storage, StorageError, scan

REPEAT_MS = 1000
"""A bundle that was not seen applied for so long is sent again; at a change of leader it is sent at once."""


class Stats:
    """Plain counters, read by the metrics."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.leader_changes = 0
        self.malformed = 0


class Node:
    """One replica. It belongs to one thread; `clock` is read anew for each thing that happened."""

    def __init__(
        self,
        storage: Storage,
        membership: Membership,
        options: Options,
        *,
        clock: Callable[[], Time],
        rng: Random,
        request_timeout_ms: int,
        max_waiting: int,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Rebuild the state from `storage`, which belongs to the driver again afterwards. `on_batch` hears the number
        of commands in each slot. Raises StorageError when what is stored cannot be used."""
        recovered = storage.recovered()
        identity = recovered.identity
        self.id: NodeId = identity.node
        self._boot = identity.boot
        self._clock = clock
        self._timeout = request_timeout_ms * MS
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self.machine = StateMachine()
        self.applied: Slot = 0
        self.stats = Stats()
        tail = self._replay(storage, recovered.chosen, recovered.last, options)
        self.replica = Replica(
            self.id,
            membership,
            options,
            rng,
            clock(),
            promised=recovered.promised,
            chosen=recovered.chosen,
            tail=tail,
            restarted=self._boot > 1,
        )
        self._submissions = Submissions(
            self.id, self._boot, max_batch_bytes=options.max_batch_bytes, repeat_ms=REPEAT_MS
        )
        self._queries = {False: Queries(), True: Queries()}
        self._tokens = self._boot << 32  # an answer to an earlier life must not fit a question of this one
        self._leading: Ballot | None = None
        self._leader_heard: Time | None = None
        self._answers: list[Envelope] = []
        self.heard: dict[NodeId, Time] = {}
        """When each peer's last message arrived."""

    # Requests

    @property
    def waiting(self) -> int:
        """Requests that have not been answered."""
        return self._submissions.waiting + self._queries[False].waiting + self._queries[True].waiting

    def write(self, command: Command, reply: WriteReply) -> None:
        """Order and apply `command`; `reply` gets its result, or Refused, exactly once."""
        if self.waiting >= self._max_waiting:
            reply(Refused(Reason.OVERLOADED, Outcome.FAILED))
        else:
            self._submissions.add(WriteRequest(command, reply, self._clock() + self._timeout))

    def read(self, key: bytes, consistency: Consistency, reply: ReadReply) -> None:
        """Answer with the record of `key`, or Refused, exactly once; at once where nobody has to be asked."""
        if consistency is Consistency.STALE:
            self._answer(key, reply, "stale")
            return
        if consistency is Consistency.LINEARIZABLE and self._may_read():
            answer = self._look_up(key)
            if self._may_read():  # rule 18: the process may have slept since the first look
                self.stats.reads["lease"] += 1
                reply(answer)
                return
        if self.waiting >= self._max_waiting:
            reply(Refused(Reason.OVERLOADED, Outcome.FAILED))
        else:
            quorum = consistency is Consistency.QUORUM
            self._queries[quorum].add(ReadRequest(key, reply, self._clock() + self._timeout))

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
        self.replica.receive(sender, message, now)

    def durable(self, writes: list[Write]) -> None:
        """These writes are durable: their votes may leave, and the own ones count."""
        now = self._clock()
        for write in writes:
            for vote in write.votes:
                if vote.to == self.id:
                    self.replica.receive(self.id, vote.message, now)
                else:
                    self._answers.append(vote)

    def fetched(self, to: NodeId, entries: list[PValue]) -> None:
        """Storage gave the page of a ServeFetch."""
        if entries:
            self._answers.append(Envelope(to, Learn(tuple(entries), self.replica.chosen)))

    def tick(self) -> None:
        """Time has passed; to be called at `next_deadline` at the latest, and harmless before it."""
        now = self._clock()
        if now >= self.replica.next_deadline():
            self.replica.tick(now)
        self._submissions.expire(now, Reason.NO_LEADER if self._leading is None else Reason.OVERLOADED)
        for payload in self._submissions.overdue(now):
            self.replica.propose((payload,))
        for queries in self._queries.values():
            token = queries.expire(now)
            if token is not None:
                self.replica.forget_read(token)

    def next_deadline(self) -> Time:
        """When `tick` has something to do."""
        others = (
            self._submissions.next_deadline(),
            self._queries[False].next_deadline(),
            self._queries[True].next_deadline(),
        )
        return min([self.replica.next_deadline(), *(other for other in others if other is not None)])

    def step(self) -> Ready:
        """Carry on with all that happened, answer what can be answered, and say what the driver must do."""
        now = self._clock()
        self._follow_leader()
        while self._submissions.has_queued and self.replica.accepting:
            self.replica.propose((self._submissions.bundle(now),))
        for quorum, queries in self._queries.items():
            if queries.ask(self._tokens + 1):
                self._tokens += 1
                self.replica.read(self._tokens, now, quorum=quorum)
        ready = self.replica.take(now)
        for slot, value in ready.chosen:
            self._on_batch(self._apply(slot, value))
        for read in ready.reads:
            for queries in self._queries.values():
                for request in queries.answered(read.token):
                    self._answer(request.key, request.reply, read.way)
        if self._answers:
            ready.messages += self._answers
            self._answers = []
        for envelope in ready.messages:
            self.stats.sent[type(envelope.message).__name__] += 1
        return ready

    def leader_age_ms(self) -> float | None:
        """Time since the last word from the leader: 0 on the leader, None when there was none yet."""
        leading = self.replica.leading
        if leading is not None and leading.node == self.id:
            return 0.0
        return (self._clock() - self._leader_heard) / MS if self._leader_heard is not None else None

    # Inside

    def _may_read(self) -> bool:
        """True when the state is current without asking anybody: chosen is not applied until the next step."""
        return self.replica.lease_holds(self._clock()) and self.applied == self.replica.chosen

    def _follow_leader(self) -> None:
        """Repeat to a new leader all that is on its way: it may have heard of none of it."""
        leading = self.replica.leading
        if leading == self._leading:
            return
        if self._leading is not None and self._leading.node == self.id:
            self._leader_heard = self._clock()  # until now the leader was heard all the time
        self._leading = leading
        if leading is not None:
            self.stats.leader_changes += 1
            for payload in self._submissions.all_sent():
                self.replica.propose((payload,))

    def _replay(self, storage: Storage, chosen: Slot, last: Slot, options: Options) -> list[PValue]:
        """Apply what is stored as chosen; the accepted values that the core shall hold at hand come back."""
        tail: deque[PValue] = deque()
        tail_bytes = 0
        for pvalue in scan(storage, 1, last):
            if pvalue.slot <= chosen:
                self._apply(pvalue.slot, pvalue.value)
            tail.append(pvalue)
            tail_bytes += len(pvalue.value)
            while (
                tail
                and tail[0].slot <= chosen
                and (len(tail) > options.recent_slots or tail_bytes > options.recent_bytes)
            ):
                tail_bytes -= len(tail.popleft().value)
        if self.applied != chosen:
            raise StorageError(
                f"the log ends at slot {self.applied}, but slots up to {chosen} are recorded as chosen: it is damaged "
                "and was not used. Keep this replica stopped, and never start it with an empty directory"
            )
        return list(tail)

    def _apply(self, slot: Slot, value: bytes) -> int:
        if slot != self.applied + 1:
            raise StorageError(f"slot {slot} follows slot {self.applied}: the log has a gap and was not used further")
        self.applied = slot
        commands = 0
        for payload in unpack(value):
            try:
                bundle = unpack_bundle(payload)
            except msgspec.DecodeError:
                self.stats.malformed += 1  # every replica passes over the same bytes
                continue
            commands += len(bundle.commands)
            results = self.machine.apply(bundle)
            if results is not None and bundle.origin == self.id and bundle.boot == self._boot:
                self._submissions.applied(bundle.sequence, results)
        return commands

    def _answer(self, key: bytes, reply: ReadReply, way: str) -> None:
        self.stats.reads[way] += 1
        reply(self._look_up(key))

    def _look_up(self, key: bytes) -> ReadAnswer:
        return ReadAnswer(self.machine.get(key), self.applied, self.machine.revision, self.leader_age_ms())
