"""Answers reads: at once if the applied state is known to be current, else after the leader has sent a read index."""

from collections.abc import Callable

from kvstore.api.queries import Consistency, LeaseLookup, LeaseScan, LockLookup, Query
from kvstore.api.results import QueryAnswer, ReadAnswer
from kvstore.replica.checkpointer import Checkpointer
from kvstore.replica.leader_watch import LeaderWatch
from kvstore.replica.lease_expiry import LeaseExpiry
from kvstore.replica.read_queue import ReadQueue, ReadReply, ReadRequest
from kvstore.replica.stats import NodeStats
from kvstore.state_machine.reads import look_up, look_up_lease
from paxos.ready import ReadReady
from paxos.replica import Replica
from paxos.types import Count, Time


class ReadHandler:
    """The reads of this replica's clients."""

    def __init__(
        self,
        replica: Replica,
        checkpointer: Checkpointer,
        leader: LeaderWatch,
        lease_expiry: LeaseExpiry,
        stats: NodeStats,
        *,
        clock: Callable[[], Time],
        token: Count,
    ) -> None:
        """Begin without reads. Read index requests have the tokens after `token`. They must differ from all tokens that
        this replica has used before, also with other data, because late answers may still arrive."""
        self._replica = replica
        self._checkpointer = checkpointer
        self._leader = leader
        self._lease_expiry = lease_expiry
        self._stats = stats
        self._clock = clock
        self._token = token
        self._queues = {False: ReadQueue(), True: ReadQueue()}
        """Queues of the reads that need a read index, by whether a quorum has to confirm the index."""
        self._held: list[tuple[ReadRequest, str]] = []
        """Reads that wait for the end of the log entry that is applied in part, each with its proof."""

    @property
    def waiting(self) -> int:
        """Number of unanswered reads."""
        return self._queues[False].waiting + self._queues[True].waiting + len(self._held)

    def answer_now(self, query: Query, consistency: Consistency, reply: ReadReply) -> bool:
        """Answer `query` if that is possible at once. Return False if `query` needs a read index or must wait for the
        end of a log entry."""
        if consistency is Consistency.STALE:
            if self._must_wait(query):
                return False
            self._answer(query, reply, "stale")
            return True
        if consistency is Consistency.LINEARIZABLE and self._is_current():
            answer = self._look_up(query)
            if self._is_current():  # rule 18: the process may have paused since the first check
                self._stats.reads["lease"] += 1
                reply(answer)
                return True
        return False

    def add(self, request: ReadRequest, consistency: Consistency) -> None:
        """Queue a read that could not be answered at once."""
        if consistency is Consistency.STALE:
            self._held.append((request, "stale"))
        else:
            self._queues[consistency is Consistency.QUORUM].add(request)

    def request_indices(self, now: Time) -> None:
        """Request a read index for the queued reads."""
        for quorum, queue in self._queues.items():
            if queue.begin(self._token + 1):
                self._token += 1
                self._replica.read(self._token, now, quorum=quorum)

    def answer(self, indexed: list[ReadReady]) -> None:
        """Answer the reads whose read index is applied, and those that waited for the end of a log entry."""
        for read in indexed:
            for queue in self._queues.values():
                self._held += [(request, read.confirmed_by) for request in queue.indexed(read.token)]
        if not self._held:
            return
        ready, self._held = self._held, []
        for request, confirmed_by in ready:
            if self._must_wait(request.query):
                self._held.append((request, confirmed_by))
            else:
                self._answer(request.query, request.reply, confirmed_by)

    def expire(self, now: Time) -> None:
        """Refuse the reads whose deadline has passed."""
        for queue in self._queues.values():
            token = queue.expire(now)
            if token is not None:
                self._replica.forget_read(token)

    def next_deadlines(self) -> list[Time | None]:
        """Return the times at which `expire` has work."""
        return [queue.next_deadline() for queue in self._queues.values()]

    def _is_current(self) -> bool:
        """Return True if this replica leads with a valid lease and has applied all chosen slots. A slot that was chosen
        since the last step is not applied yet."""
        return self._replica.lease_holds(self._clock()) and self._checkpointer.applier.applied == self._replica.chosen

    def _must_wait(self, query: Query) -> bool:
        """Return True while `query` has no answer, because a log entry is applied in part: the history has the earlier
        records of keys, but not those of leases and locks."""
        return self._checkpointer.applier.busy and isinstance(query, LeaseLookup | LeaseScan | LockLookup)

    def _answer(self, query: Query, reply: ReadReply, confirmed_by: str) -> None:
        self._stats.reads[confirmed_by] += 1
        reply(self._look_up(query))

    def _look_up(self, query: Query) -> QueryAnswer:
        applier = self._checkpointer.applier
        machine = applier.machine
        if isinstance(query, bytes):
            record, lease, revision = machine.shown(query), machine.shown_lease(query), machine.shown_revision
            return ReadAnswer(record, applier.applied, revision, self._leader.age_ms(), lease)
        if isinstance(query, LeaseLookup | LeaseScan | LockLookup):
            return look_up_lease(query, machine, lambda lease: self._lease_expiry.left_ms(lease, self._clock()))
        return look_up(query, machine, applier.applied, self._leader.age_ms())
