"""Writes of this replica's clients, from the request to the moment that it is seen applied.

A command waits here until a leader is known, so one that times out before has left no trace. Then it goes into a
batch, and the batch is repeated, to whoever leads, until it is applied or nobody waits for it. From then on its
outcome is unknown until it is seen (rule 23).
"""

from collections import deque
from collections.abc import Callable

import msgspec

from kvstore.api.commands import Command, CommandBatch, Result, pack_batch
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.state_machine.quota import size_bytes
from paxos.types import MS, Time

WriteReply = Callable[[Result | Refused], None]


class WriteRequest(msgspec.Struct):
    """A command and who waits for it; `reply` is called once."""

    command: Command
    reply: WriteReply
    deadline: Time


class Sent(msgspec.Struct):
    """A batch on its way. Its requests are in order of arrival, so they give up in order: the first `gone` have."""

    data: bytes
    requests: list[WriteRequest]
    repeat_at: Time
    wait: Time
    gone: int = 0


class ProposalQueue:
    """The queue of commands, and the batches that are on their way."""

    def __init__(self, node: str, boot: int, *, max_batch_bytes: int, repeat_ms: int) -> None:
        self._node = node
        self._boot = boot
        self._max_batch_bytes = max_batch_bytes
        self._repeat = repeat_ms * MS
        self._sequence = 0
        self._queue: deque[WriteRequest] = deque()
        self._sent: dict[int, Sent] = {}
        self.waiting = 0
        """Requests that have not been answered."""

    def add(self, request: WriteRequest) -> None:
        """A new command."""
        self._queue.append(request)
        self.waiting += 1

    @property
    def has_queued(self) -> bool:
        """True when a batch could be made."""
        return bool(self._queue)

    def batch(self, now: Time) -> bytes:
        """One batch of what is queued and fits, at least one command."""
        requests: list[WriteRequest] = []
        commands: list[Command] = []
        room = self._max_batch_bytes
        while self._queue:
            request = self._queue[0]
            room -= size_bytes(request.command)
            if room < 0 and commands:
                break
            commands.append(self._queue.popleft().command)
            requests.append(request)
        self._sequence += 1
        settled_below = next(iter(self._sent), self._sequence)
        data = pack_batch(CommandBatch(self._node, self._boot, self._sequence, settled_below, commands))
        self._sent[self._sequence] = Sent(data, requests, now + self._repeat, self._repeat)
        return data

    def all_sent(self) -> list[bytes]:
        """Every batch on its way, oldest first: a new leader may have heard of none of them."""
        return [sent.data for sent in self._sent.values()]

    def overdue(self, now: Time) -> list[bytes]:
        """Command batches that have been on their way for long; the wait doubles each time."""
        overdue = [sent for sent in self._sent.values() if sent.repeat_at <= now]
        for sent in overdue:
            sent.wait *= 2
            sent.repeat_at = now + sent.wait
        return [sent.data for sent in overdue]

    def applied(self, sequence: int, results: list[Result]) -> None:
        """The batch was applied: answer those who wait."""
        sent = self._sent.pop(sequence, None)
        if sent is None:
            return
        self.waiting -= len(sent.requests) - sent.gone
        for request, result in zip(sent.requests[sent.gone :], results[sent.gone :], strict=True):
            request.reply(result)

    def expire(self, now: Time, reason: Reason) -> None:
        """Answer those who waited for long enough: failed, for `reason`, while the command was still here; unknown
        after that."""
        while self._queue and self._queue[0].deadline <= now:
            self.waiting -= 1
            self._queue.popleft().reply(Refused(reason, Outcome.FAILED))
        for sequence, sent in list(self._sent.items()):
            while sent.gone < len(sent.requests) and sent.requests[sent.gone].deadline <= now:
                sent.gone += 1
                self.waiting -= 1
                sent.requests[sent.gone - 1].reply(Refused(Reason.TIMEOUT, Outcome.UNKNOWN))
            if sent.gone == len(sent.requests):
                del self._sent[sequence]

    def next_deadline(self) -> Time | None:
        """When `expire` or `overdue` has something to do."""
        times = [min(sent.repeat_at, sent.requests[sent.gone].deadline) for sent in self._sent.values()]
        if self._queue:
            times.append(self._queue[0].deadline)
        return min(times, default=None)
