"""Writes of this replica's clients, from the request until the command is applied on this replica.

Only this module batches and packs commands on their way into a slot. A command waits in the queue until a leader is
known and has room; a command that times out in the queue has no effect. Otherwise the command is sent in a batch, which
is repeated to the current leader until it is applied or no client waits for it. The outcome of a sent command is
unknown until the command is applied (rule 23).

Commands with much work, such as a value of a megabyte or a condition on many keys, have a second queue. Few of them are
sent at a time, in batches of their own, and small commands pass them. That reorders no client's commands: a connection
sends its next write when the one before is answered. If other commands were applied meanwhile, the second queue rests
after a batch, so that most of the other commands find no bulk command before them.

The leader has a second queue (`paxos.proposer.Pipeline`), in which batches of all replicas wait to share a slot,
because each slot costs every acceptor a sync, whatever its size. That queue combines whole batches and never unpacks
one.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from kvstore.api.commands import Command, CommandBatch, Result, pack_batch
from kvstore.api.errors import Outcome, Reason, Refused
from paxos.types import MS, Time

REPEAT_MS = 1000
"""Time until a batch that is not applied is proposed again; after a change of leader it is proposed again at once."""
BULK_WORK = 32 * 1024
"""Work, in bytes, above which a command is bulk."""
MAX_BULK_WORK = 256 * 1024
"""Limit of the work of the bulk commands that are sent and not applied; a single command may exceed it."""
REST = 3
MAX_REST_MS = 100
"""Length of a rest of the bulk queue, as a multiple of the time that the bulk command before it took, and its limit.
Figures: docs/performance.md."""
WriteReply = Callable[[Result | Refused], None]


class WriteRequest(msgspec.Struct):
    """A command that takes `size_bytes` in a batch, and causes as much `work` as that many bytes (see
    `kvstore.state_machine.quota.work_of`). `reply` is called once, at `deadline` at the latest."""

    command: Command
    size_bytes: int
    reply: WriteReply
    deadline: Time
    work: int = 0


class SentBatch(msgspec.Struct):
    """A batch that was proposed and is not applied yet. `requests` are in the order of their deadlines, and the first
    `timed_out` of them have timed out."""

    data: bytes
    requests: list[WriteRequest]
    repeat_at: Time
    wait: Time
    sent_at: Time
    batches_before: int
    """Number of batches that were applied before this one was sent."""
    bulk_work: int
    """Work of the commands if they are bulk, otherwise 0."""
    timed_out: int = 0


class ProposalQueue:
    """The commands that wait for a leader, and the batches that were sent to one."""

    def __init__(self, origin: str, boot: int, *, max_batch_bytes: int, repeat_ms: int) -> None:
        self._origin = origin
        self._boot = boot
        self._max_batch_bytes = max_batch_bytes
        self._repeat = repeat_ms * MS
        self._sequence = 0
        self._queue: deque[WriteRequest] = deque()
        self._bulk: deque[WriteRequest] = deque()
        self._sent_bulk_work = 0
        self._bulk_rests_until: Time | None = None
        """End of the rest of the queue of bulk commands, None while it does not rest."""
        self._applied_batches = 0
        """Number of applied batches of all replicas."""
        self._sent: dict[int, SentBatch] = {}
        self.waiting = 0
        """Number of unanswered requests."""

    def add(self, request: WriteRequest) -> None:
        """Queue a command."""
        (self._queue if request.work <= BULK_WORK else self._bulk).append(request)
        self.waiting += 1

    @property
    def has_queued(self) -> bool:
        """True when `batch` has a command to send."""
        return bool(self._queue) or (bool(self._bulk) and self._may_send(self._bulk[0]))

    def _may_send(self, bulk: WriteRequest) -> bool:
        if self._bulk_rests_until is not None:
            return False
        return not self._sent_bulk_work or self._sent_bulk_work + bulk.work <= MAX_BULK_WORK

    def batch(self, now: Time) -> bytes:
        """Return a batch of the queued commands, either small ones, as many as fit, or a bulk command."""
        requests: list[WriteRequest] = []
        room, bulk_work = self._max_batch_bytes, 0
        while self._queue:
            room -= self._queue[0].size_bytes
            if room < 0 and requests:
                break
            requests.append(self._queue.popleft())
        if not requests:
            requests.append(self._bulk.popleft())
            bulk_work = requests[0].work
        self._sent_bulk_work += bulk_work
        commands = [request.command for request in requests]
        self._sequence += 1
        settled_below = next(iter(self._sent), self._sequence)
        data = pack_batch(CommandBatch(self._origin, self._boot, self._sequence, settled_below, commands))
        self._sent[self._sequence] = SentBatch(
            data, requests, now + self._repeat, self._repeat, now, self._applied_batches, bulk_work
        )
        return data

    def all_sent(self) -> list[bytes]:
        """Return the batches that were sent and are not applied, oldest first. A new leader may know none of them."""
        return [sent.data for sent in self._sent.values()]

    def overdue(self, now: Time) -> list[bytes]:
        """Return the batches to send again, and double the wait of each of them."""
        overdue = [sent for sent in self._sent.values() if sent.repeat_at <= now]
        for sent in overdue:
            sent.wait *= 2
            sent.repeat_at = now + sent.wait
        return [sent.data for sent in overdue]

    def applied(self, batch: CommandBatch, results: list[Result] | None, now: Time) -> None:
        """Answer the requests of an applied batch, if it is of this queue. `results` is None for a batch that was
        applied before."""
        self._applied_batches += 1
        if results is None or batch.origin != self._origin or batch.boot != self._boot:
            return
        sent = self._sent.pop(batch.sequence, None)
        if sent is None:
            return
        if sent.bulk_work:
            self._sent_bulk_work -= sent.bulk_work
            if self._applied_batches > sent.batches_before + 1:
                self._bulk_rests_until = now + min(REST * (now - sent.sent_at), MAX_REST_MS * MS)
        self.waiting -= len(sent.requests) - sent.timed_out
        for request, result in zip(sent.requests[sent.timed_out :], results[sent.timed_out :], strict=True):
            request.reply(result)

    def expire(self, now: Time, reason: Reason) -> None:
        """Refuse the requests whose deadline has passed: those of queued commands as failed, for `reason`, and those of
        sent commands as unknown. Also end the rest of the bulk commands if it is time."""
        if self._bulk_rests_until is not None and self._bulk_rests_until <= now:
            self._bulk_rests_until = None
        for queue in (self._queue, self._bulk):
            while queue and queue[0].deadline <= now:
                self.waiting -= 1
                queue.popleft().reply(Refused(reason, Outcome.FAILED))
        for sequence, sent in list(self._sent.items()):
            while sent.timed_out < len(sent.requests) and sent.requests[sent.timed_out].deadline <= now:
                sent.timed_out += 1
                self.waiting -= 1
                sent.requests[sent.timed_out - 1].reply(Refused(Reason.TIMEOUT, Outcome.UNKNOWN))
            if sent.timed_out == len(sent.requests):
                self._sent_bulk_work -= sent.bulk_work
                del self._sent[sequence]

    def next_deadline(self) -> Time | None:
        """Return the time at which `expire`, `overdue` or `batch` has work, or None."""
        times = [min(sent.repeat_at, sent.requests[sent.timed_out].deadline) for sent in self._sent.values()]
        times += [queue[0].deadline for queue in (self._queue, self._bulk) if queue]
        if self._bulk_rests_until is not None:
            times.append(self._bulk_rests_until)
        return min(times, default=None)
