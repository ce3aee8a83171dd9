"""One replica as the explorer sees it: the production node, its disk, and the inputs that can reach them.

A disk is reduced to two cases for each write, and no violation is lost by that. Either the write survives; then it may
as well be durable at once: its votes can still be delivered at any later time, nobody tells the replica about them, and
an own vote that is counted early leads nowhere that votes of others delivered late do not lead to. Or the next crash
loses it; then it takes all later writes with it, and no vote that waits for them ever leaves. Which of the two is
decided when the write is made: `losing`. A machine that loses its writes and neither runs nor leads can only send what
carries no vote, so it crashes at once.
"""

from collections.abc import Iterable
from enum import StrEnum
from random import Random
from typing import Any

import msgspec

from kvstore.replica.node import Node
from paxos.errors import require
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    HeartbeatAck,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Reject,
    ReleaseLease,
)
from paxos.options import Options
from paxos.ready import Envelope, ServeFetch, Write
from paxos.role import Role
from paxos.types import MS, NOOP, ZERO, Ballot, Configuration, GrantTerms, NodeId, PValue, Time, pack
from storage.base import Founding, has_records
from storage.memory import MemoryStorage

CONFIGURATION = Configuration(("n1", "n2", "n3"))


class Violation(Exception):
    """Something that must never happen has happened."""


class Scope(msgspec.Struct, frozen=True):
    """What all machines of an exploration have in common."""

    options: Options
    timeless: bool
    """Leases have no length, candidates are told at once that others are willing, and `run` lets as much time pass as
    it takes. A PreVote only asks: that its answer is made up adds behaviours and removes none."""


class Left(msgspec.Struct):
    """What a machine may still do, so that an exploration ends. Ballots made by winning a voter back count as runs."""

    runs: int = 0
    hand_overs: int = 0
    steps: int = 0
    """Of time."""


class Leaseless(Options, frozen=True):
    """Leases forbid nothing and allow nothing: consensus alone."""

    @property
    def lease_for_leader(self) -> Time:
        """No time at all."""
        return 0

    @property
    def grant_terms(self) -> GrantTerms:
        """No time at all."""
        return GrantTerms()


class Input(StrEnum):
    """What can happen to a machine beside the arrival of a message."""

    CRASH = "crash"
    RUN = "run"
    TICK = "tick"
    HAND_OVER = "hand over"
    PASS = "pass"


class ScriptedRandom(Random):
    """Always the lowest; candidacies are numbered from the life on."""

    def __init__(self, life: int) -> None:
        super().__init__(0)
        self.life = life

    def randint(self, a: int, b: int) -> int:
        """The lower bound."""
        return a

    def getrandbits(self, k: int) -> int:
        """Apart from those of all other lives."""
        return self.life << 8

    def __reduce__(self) -> tuple[Any, ...]:
        return ScriptedRandom, (self.life,)


class ExploredClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self.now: Time = 0

    def __call__(self) -> Time:
        return self.now


def uncounted(commands: int) -> None:
    """Nobody asks how many commands a slot had."""


class ExploredMachine:
    """A node and its disk. Every input ends with all that follows from it done."""

    def __init__(self, name: NodeId, scope: Scope, left: Left, rate_ms: int = 0) -> None:
        """`rate_ms`: what its clock advances with each step of time."""
        self.name = name
        self.scope = scope
        self.left = left
        self.clock = ExploredClock()
        self.rate_ms = rate_ms
        self.storage = MemoryStorage("explored", name)
        self.life = 0
        self.payload: bytes | None = None
        """What it has ordered as soon as it leads; proposed once."""
        self.own = NOOP
        """The value made of that payload."""
        self.votes: frozenset[PValue] = frozenset()
        """Every value that was ever durable here, with its ballot."""
        self.losing = False
        """The next crash loses all that is written."""
        self._start()
        self.begin()

    def begin(self) -> None:
        """Forget what the last input did."""
        self.sent: list[Envelope] = []
        self.hard_state: set[str] = set()
        self.wrote = False
        """This input made a write that a crash can lose."""

    # Inputs

    def receive(self, sender: NodeId, message: AnyMessage, *, losing: bool = False) -> None:
        """A message arrives. `losing`: what is written from now on is lost."""
        self.losing |= losing
        self._mark_arrival(message)
        known = len(self.prefix)
        self.node.receive(sender, message)
        self._settle()
        if isinstance(message, Learn) and len(self.prefix) > known:
            self.hard_state.add("values fetched")
        self._end()

    def happen(self, what: Input, *, losing: bool = False) -> None:
        """Anything else."""
        self.losing |= losing
        before = self.node.replica._roles.attempts
        match what:
            case Input.CRASH:
                self._start()
                before = self.node.replica._roles.attempts
            case Input.RUN:
                self._run()
            case Input.TICK:
                self.node.tick()
            case Input.HAND_OVER:
                self.left.hand_overs -= 1
                self.node.hand_over()
            case Input.PASS:
                self.left.steps -= 1
                self.clock.now += self.rate_ms * MS
        self._settle()
        self.left.runs -= self.node.replica._roles.attempts - before
        self._end()

    def propose(self, payload: bytes) -> None:
        """Have `payload` ordered when it leads."""
        self.payload, self.own = payload, pack([payload])
        self._settle()

    def inputs(self) -> Iterable[Input]:
        """What can happen now. Time passes for all machines at once."""
        replica = self.node.replica
        if self.scope.timeless:
            if self.left.runs > 0:
                yield Input.RUN
        elif self.clock() >= replica.next_deadline() and (replica.role is not Role.FOLLOWER or self.left.runs > 0):
            yield Input.TICK
        if self.left.hand_overs > 0 and self.leads:
            yield Input.HAND_OVER
        if self.left.steps > 0:
            yield Input.PASS
        yield Input.CRASH

    # What is seen

    @property
    def ballot(self) -> Ballot | None:
        """The ballot under which it runs or leads."""
        replica = self.node.replica
        if replica._roles.leader is not None:
            return replica._roles.leader.ballot
        candidate = replica._roles.candidate
        return candidate.phase1.ballot if candidate is not None and candidate.phase1 is not None else None

    @property
    def leads(self) -> bool:
        """Phase 1 is over."""
        return self.node.replica.role is Role.LEADER

    @property
    def holds_lease(self) -> bool:
        """Its lease has not run out, whether or not it is established and may use it."""
        leader = self.node.replica._roles.leader
        return leader is not None and self.clock() < leader.lease.until

    # What it does

    def _start(self) -> None:
        self.life += 1
        if self.life > 1:
            self.storage = self.storage.reopen()
        self.losing = False
        self.storage.recovered().founding = Founding(tuple((name, 0) for name in CONFIGURATION.voters), complete=True)
        self.node = Node(
            self.storage,
            self.scope.options,
            clock=self.clock,
            rng=ScriptedRandom(self.life),
            request_timeout_ms=1000,
            max_waiting=1,
            on_batch=uncounted,
        )
        durable = self.storage.recovered()
        require(self.node.replica._acceptor.promised >= durable.promised, "a restart forgets the promise")
        stored = self.storage.read(1, durable.chosen, 1 << 20)
        self.prefix = [pvalue.value for pvalue in stored]
        """The values that it holds to be chosen."""

    def _end(self) -> None:
        if self.losing and self.ballot is None:
            self.hard_state.add("crashes that lose votes")
            self._start()

    def _run(self) -> None:
        replica = self.node.replica
        before = replica._roles.attempts
        while replica._roles.attempts == before:
            self.clock.now = max(self.clock.now, replica.next_deadline())
            self.node.tick()
            self._settle()

    def _settle(self) -> None:
        """Step until there is nothing more to do."""
        while True:
            if self.payload is not None and self.leads:
                self.node.replica.propose((self.payload,))
                self.payload = None
            ready = self.node.step()
            self._send(ready.messages)
            self.prefix += [value for _, value in ready.chosen]
            if ready.write is not None:
                self._store(ready.write)
            if not self.losing:
                for fetch in ready.fetches:
                    assert isinstance(fetch, ServeFetch), "no log is cut here"
                    page = self.storage.read(fetch.from_slot, fetch.upto, self.scope.options.page_bytes)
                    self.node.log_page_read(fetch.to, page)
            if not (ready.messages or ready.write or ready.fetches or self.node.has_more):
                return

    def _store(self, write: Write) -> None:
        self.wrote |= has_records(write)
        if self.losing:
            return
        self.storage.write([write])
        self.votes |= set(write.accepts)
        for vote in write.votes:
            self._check_backed(vote.message)
        self.node.durable([write])

    def _send(self, envelopes: list[Envelope]) -> None:
        accepts = [envelope.message for envelope in envelopes if isinstance(envelope.message, Accept)]
        for envelope in envelopes:
            message = envelope.message
            self._check_backed(message)
            if isinstance(message, PreVote) and self.scope.timeless:
                self.node.receive(envelope.to, PreVoteReply(message.nonce, True, ZERO, 0))
            else:
                self.sent.append(envelope)
                self._mark_departure(message, accepts)

    def _check_backed(self, message: AnyMessage) -> None:
        """A vote, and a Prepare, rest on what is durable."""
        if isinstance(message, Promise | Prepare | Accepted):
            durable = self.storage.hard_state.promised
            if message.ballot > durable:
                raise Violation(f"{type(message).__name__} of {message.ballot} leaves, and {durable} is durable")
        if isinstance(message, Accepted) and not any(
            pvalue.slot == message.slot and pvalue.ballot == message.ballot for pvalue in self.votes
        ):
            raise Violation(f"Accepted of {message.ballot} for slot {message.slot} leaves, and is not durable")

    # What is worth counting

    def _mark_departure(self, message: AnyMessage, accepts: list[Accept]) -> None:
        match message:
            case Accept(value=value) if value == NOOP:
                others = [other for other in accepts if other.slot > message.slot]
                if any(other.value not in {NOOP, self.own} for other in others):
                    self.hard_state.add("gaps filled with no-ops")
            case Accept(value=value) if value != self.own:
                self.hard_state.add("values of earlier ballots adopted")
            case Reject(floor=floor) if floor:
                self.hard_state.add("candidates told to fetch")
            case Reject(ballot=ballot, promised=promised) if promised <= ballot:
                self.hard_state.add("candidates refused by a grant")
            case PreVoteReply(willing=False):
                self.hard_state.add("candidates refused by a grant")

    def _mark_arrival(self, message: AnyMessage) -> None:
        replica = self.node.replica
        match message:
            case ReleaseLease(ballot=ballot):
                grant = replica._acceptor.grant
                if grant._ballot > ballot and self.clock() < grant.until:
                    self.hard_state.add("late releases")
            case HeartbeatAck(ballot=ballot, nonce=nonce):
                leader = replica._roles.leader
                if leader is not None and leader.ballot == ballot and nonce + 1 < leader.lease.next_nonce:
                    self.hard_state.add("late acknowledgements")
