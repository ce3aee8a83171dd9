"""One node with its peers, its disk and its clock played by the test."""

from random import Random

from kvstore.api.commands import Command, CommandBatch, Record, Result, pack_batch
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from kvstore.replica.node import Node
from kvstore.replica.retention import RetentionLimits
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
)
from paxos.options import Options
from paxos.ready import Envelope, ServeFetch, ServeSnapshot, Write
from paxos.role import Role
from paxos.types import MS, ZERO, Ballot, PValue, Slot, pack
from storage.base import Founding
from storage.memory import MemoryStorage

TIMEOUT_MS = 2500
LINEARIZABLE, QUORUM, STALE = Consistency.LINEARIZABLE, Consistency.QUORUM, Consistency.STALE
B1 = Ballot(1, "n2")
FOUNDED = Founding((("n1", 0), ("n2", 0), ("n3", 0)), complete=True)


class NodeHost:
    """Node n1 of three; what it sends is kept until the test takes it."""

    def __init__(
        self,
        storage: MemoryStorage | None = None,
        *,
        options: Options | None = None,
        waiting: int = 100,
        joins: bool = False,
        quota_bytes: int = 2**62,
        limits: RetentionLimits = RetentionLimits(),  # noqa: B008 - frozen
    ):
        self.storage = storage or MemoryStorage("test", "n1")
        self.now = 10**12
        self.slept_before_reading: dict[int, int] = {}
        """How long the process sleeps before it reads its clock for the n-th time from now."""
        self.readings = 0
        self.batches: list[int] = []
        self.writes: list[Write] = []
        self.fetches: list[ServeFetch | ServeSnapshot] = []
        if not joins:
            self.storage.recovered().founding = FOUNDED
        self.node = Node(
            self.storage,
            options or Options(),
            clock=self.clock,
            rng=Random(1),
            request_timeout_ms=TIMEOUT_MS,
            max_waiting=waiting,
            quota_bytes=quota_bytes,
            limits=limits,
            on_batch=self.batches.append,
        )

    def clock(self) -> int:
        self.readings += 1
        self.now += self.slept_before_reading.pop(self.readings, 0)
        return self.now

    def sleep_before_reading(self, reading: int, ms: int) -> None:
        self.slept_before_reading[self.readings + reading] = ms * MS

    def step(self) -> list[Envelope]:
        ready = self.node.step()
        if ready.write is not None:
            self.writes.append(ready.write)
        self.fetches += ready.fetches
        return ready.messages

    def sync(self) -> None:
        """The disk confirms all that was handed over."""
        writes, self.writes = self.writes, []
        self.storage.write(writes)
        self.node.durable(writes)

    def serve(self) -> None:
        """Storage gives what was asked of it."""
        fetches, self.fetches = self.fetches, []
        for fetch in fetches:
            if isinstance(fetch, ServeSnapshot):
                page = self.storage.read_state(fetch.after, fetch.max_bytes)
                self.node.state_page_read(fetch.to, fetch.after, page)
            else:
                self.node.log_page_read(fetch.to, self.storage.read(fetch.from_slot, fetch.upto, 1 << 20))

    def receive(self, sender: str, *messages: AnyMessage) -> None:
        for message in messages:
            self.node.receive(sender, message)

    def later(self, ms: int) -> None:
        self.now += ms * MS
        self.node.tick()

    def ring(self) -> None:
        self.now = max(self.now, self.node.next_deadline())
        self.node.tick()

    def write(self, command: Command) -> list[Result | Refused]:
        answers: list[Result | Refused] = []
        self.node.write(command, answers.append)
        return answers

    def read(self, key: bytes, consistency: Consistency = Consistency.LINEARIZABLE) -> list[ReadAnswer | Refused]:
        answers: list[ReadAnswer | Refused] = []
        self.node.read(key, consistency, answers.append)
        return answers

    def settle(self) -> list[AnyMessage]:
        """The disk and n2 answer everything at once, until nothing more happens. All that was sent to n2 meanwhile."""
        sent: list[AnyMessage] = []
        while True:
            messages = [envelope.message for envelope in self.step() if envelope.to == "n2"]
            if not messages and not self.writes:
                return sent
            self.sync()
            for message in messages:
                sent.append(message)
                self.receive("n2", *answers_of_an_acceptor(message))

    def lead(self) -> Ballot:
        """Win an election and hold a lease."""
        while self.node.replica.role is not Role.LEADER:
            self.ring()
            self.settle()
        assert self.node.replica.lease_holds(self.now)
        ballot = self.node.replica.leader_ballot
        assert ballot is not None
        return ballot

    def follow(self, ballot: Ballot = B1) -> None:
        self.receive(ballot.node, Heartbeat(ballot, 1, 0))
        self.step()
        assert self.node.replica.leader_ballot == ballot


def answers_of_an_acceptor(message: AnyMessage) -> list[AnyMessage]:
    match message:
        case PreVote(nonce=nonce):
            return [PreVoteReply(nonce, willing=True, promised=ZERO, chosen=0)]
        case Prepare(ballot=ballot, from_slot=from_slot):
            return [Promise(ballot, from_slot, (), 0)]
        case Accept(ballot=ballot, slot=slot):
            return [Accepted(ballot, slot)]
        case Heartbeat(ballot=ballot, nonce=nonce, chosen=chosen):
            return [HeartbeatAck(ballot, nonce, granted=True, chosen=chosen, votes=10**9)]
        case _:
            return []


def value(*commands: Command, origin: str = "n2", boot: int = 1, sequence: int = 1) -> bytes:
    """The value of a slot with one batch."""
    return pack([pack_batch(CommandBatch(origin, boot, sequence, 1, list(commands)))])


def stored(*values: bytes, chosen: Slot | None = None) -> MemoryStorage:
    """Storage of n1 with these accepted from slot 1 on, after one life."""
    storage = MemoryStorage("test", "n1")
    accepts = [PValue(slot, B1, one) for slot, one in enumerate(values, 1)]
    storage.write([Write(promise=B1, accepts=accepts, chosen=chosen)])
    return storage.reopen()


def record(data: bytes, revision: int = 1, created: int = 1, version: int = 1) -> Record:
    return Record(data, revision, created, version)


def seen(answers: list[ReadAnswer | Refused]) -> list[bytes | None]:
    """The values that were read."""
    values = []
    for answer in answers:
        assert isinstance(answer, ReadAnswer)
        values.append(answer.record.value if answer.record is not None else None)
    return values


def refusal(answers: list[Result | Refused] | list[ReadAnswer | Refused]) -> tuple[Reason, Outcome]:
    (answer,) = answers
    assert isinstance(answer, Refused)
    return answer.reason, answer.outcome
