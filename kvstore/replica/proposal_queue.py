"""Writes of this replica's clients, from the request until the command is applied here.

This is the only place where commands are sized, batched and packed on their way into a slot. A command waits here until
a leader is known and takes more, so a command that times out earlier has left no trace. Then it leaves in a batch. The
batch is repeated to the present leader until it is applied or no client waits for it. From then on the outcome of the
command is unknown until it is applied (rule 23).

The leader has a queue of its own (`paxos.proposer.Pipeline`), because several batches share a slot: those of all
replicas, and those that arrive while the window of slots is full. A slot costs every acceptor a sync, whatever it
holds. That queue joins whole batches and never opens one.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from kvstore.api.commands import Command, CommandBatch, Result, pack_batch
from kvstore.api.errors import Outcome, Reason, Refused
from paxos.types import MS, Time

WriteReply = Callable[[Result | Refused], None]


class WriteRequest(msgspec.Struct):
    """A command that takes `size_bytes` in a batch. `reply` is called once, at `deadline` at the latest."""

    command: Command
    size_bytes: int
    reply: WriteReply
    deadline: Time


class SentBatch(msgspec.Struct):
    """A batch that was proposed and is not applied yet. Its requests are in the order of their deadlines, so they time
    out in order: the first `timed_out` of them have."""

    data: bytes
    requests: list[WriteRequest]
    repeat_at: Time
    wait: Time
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
        self._sent: dict[int, SentBatch] = {}
        self.waiting = 0
        """Number of requests that are not answered."""

    def add(self, request: WriteRequest) -> None:
        """Queue a command."""
        self._queue.append(request)
        self.waiting += 1

    @property
    def has_queued(self) -> bool:
        """True when `batch` has a command to send."""
        return bool(self._queue)

    def batch(self, now: Time) -> bytes:
        """Return a batch of the queued commands: as many as fit, at least one."""
        requests: list[WriteRequest] = []
        commands: list[Command] = []
        room = self._max_batch_bytes
        while self._queue:
            request = self._queue[0]
            room -= request.size_bytes
            if room < 0 and commands:
                break
            commands.append(self._queue.popleft().command)
            requests.append(request)
        self._sequence += 1
        settled_below = next(iter(self._sent), self._sequence)
        data = pack_batch(CommandBatch(self._origin, self._boot, self._sequence, settled_below, commands))
        self._sent[self._sequence] = SentBatch(data, requests, now + self._repeat, self._repeat)
        return data

    def all_sent(self) -> list[bytes]:
        """Return the batches that were sent and are not applied, oldest first. A new leader may know none of them."""
        return [sent.data for sent in self._sent.values()]

    def overdue(self, now: Time) -> list[bytes]:
        """Return the batches that have to be sent again. The wait doubles each time."""
        overdue = [sent for sent in self._sent.values() if sent.repeat_at <= now]
        for sent in overdue:
            sent.wait *= 2
            sent.repeat_at = now + sent.wait
        return [sent.data for sent in overdue]

    def applied(self, sequence: int, results: list[Result]) -> None:
        """Answer the requests of a batch that was applied."""
        sent = self._sent.pop(sequence, None)
        if sent is None:
            return
        self.waiting -= len(sent.requests) - sent.timed_out
        for request, result in zip(sent.requests[sent.timed_out :], results[sent.timed_out :], strict=True):
            request.reply(result)

    def expire(self, now: Time, reason: Reason) -> None:
        """Refuse the requests whose deadline has passed: as failed, for `reason`, while the command is queued; as
        unknown after it was sent."""
        while self._queue and self._queue[0].deadline <= now:
            self.waiting -= 1
            self._queue.popleft().reply(Refused(reason, Outcome.FAILED))
        for sequence, sent in list(self._sent.items()):
            while sent.timed_out < len(sent.requests) and sent.requests[sent.timed_out].deadline <= now:
                sent.timed_out += 1
                self.waiting -= 1
                sent.requests[sent.timed_out - 1].reply(Refused(Reason.TIMEOUT, Outcome.UNKNOWN))
            if sent.timed_out == len(sent.requests):
                del self._sent[sequence]

    def next_deadline(self) -> Time | None:
        """Return the time at which `expire` or `overdue` has something to do."""
        times = [min(sent.repeat_at, sent.requests[sent.timed_out].deadline) for sent in self._sent.values()]
        if self._queue:
            times.append(self._queue[0].deadline)
        return min(times, default=None)
