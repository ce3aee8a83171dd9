"""One replica as the explorer sees it: the production node, its disk, and the inputs that can reach them.

A machine changes by nothing but its own state and one input, so the explorer runs each pair once and remembers what
came of it. What is left out of that state, because nothing that is explored depends on it, is named here in one place:
`IGNORED` and `TIMES`.

A disk that writes one by one is reduced to two cases for each write, without losing a behaviour: a write is lost with a
crash, or it is not. Which of the two is decided when the write is made. One that is not lost is durable at once, since
its votes for others can then be delivered at any later time, and nothing tells the replica itself about them. Only a
write with own votes waits for the input `sync`, and with it all writes behind it.
"""

import pickle
from collections import deque
from collections.abc import Hashable, Iterable
from enum import StrEnum
from random import Random
from typing import Any

import msgspec

from kvstore.node import Node
from paxos.errors import require
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Canvass,
    CanvassReply,
    HeartbeatAck,
    Learn,
    Message,
    Prepare,
    Promise,
    Reject,
    Release,
)
from paxos.options import Options
from paxos.ready import Envelope, ReadReady, ServeFetch, Write
from paxos.replica import Role
from paxos.types import MS, NOOP, ZERO, Ballot, Membership, NodeId, PValue, Slot, Time, pack
from storage.base import has_records
from storage.memory import MemoryStorage

MEMBERSHIP = Membership(("n1", "n2", "n3"))

IGNORED = {"stats", "heard", "_heard", "_leader_heard", "_submissions", "_queries", "_tokens", "machine", "_recovered"}
"""Counters and metrics, requests of clients (there are none), the state machine (a function of the chosen prefix), and
the identity of the storage (its count of starts is in the node, too)."""

STATELESS = ("stats", "_submissions", "_queries", "machine", "_on_batch")
"""The fields of a node among these that nothing explored changes; all machines share them."""

TIMES = {"now", "due", "until", "expires", "resend_at", "_resend_at", "wait", "proposed_at", "_heartbeat_due"}
TIMES |= {"_confirmed_at", "_own_votes", "_fetching", "_unanswered", "_failures", "_patience", "_sent", "_granted"}
TIMES |= {"_nonce", "_answered", "confirmed", "_candidacies"}
"""Left out, too, where leases have no length: then nothing depends on the time but when a replica gives up and runs,
and that is an input of its own."""


class Violation(Exception):
    """Something that must never happen has happened."""


class Scope(msgspec.Struct, frozen=True):
    """What bounds one machine's part of an exploration."""

    options: Options
    timeless: bool
    """Leases have no length, candidates are told at once that others are willing, and `run` lets as much time pass as
    it takes. Canvass only asks; that the answer is made up adds behaviours and removes none."""
    slots: Slot
    """Accepts of later slots are lost."""
    lost: tuple[type[Message], ...] = ()
    """Messages that are always lost."""


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
    def lease_for_acceptor(self) -> Time:
        """No time at all."""
        return 0


class Input(StrEnum):
    """What can happen to a machine beside the arrival of a message."""

    SYNC = "sync"
    CRASH = "crash"
    RUN = "run"
    TICK = "tick"
    HAND_OVER = "hand over"
    PASS = "pass"


class Scripted(Random):
    """Always the lowest; candidacies are numbered from the life on."""

    def __init__(self, life: int) -> None:
        super().__init__(0)
        self.life = life

    def randint(self, a: int, b: int) -> int:  # noqa: ARG002 - what Random takes
        """The lower bound."""
        return a

    def getrandbits(self, k: int) -> int:  # noqa: ARG002 - as above
        """Apart from those of all other lives."""
        return self.life << 8

    def __reduce__(self) -> tuple[Any, ...]:
        return Scripted, (self.life,)


class Clock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self.now: Time = 0

    def __call__(self) -> Time:
        return self.now


def uncounted(commands: int) -> None:
    """Nobody asks how many commands a slot had."""


class Machine:
    """A node and its disk. Every input ends with all that follows from it done, save writes that wait for a sync."""

    def __init__(self, name: NodeId, scope: Scope, left: Left, rate_ms: int = 0) -> None:
        """`rate_ms`: what its clock advances with each step of time."""
        self.name = name
        self.scope = scope
        self.clock = Clock()
        self.rate_ms = rate_ms
        self.storage = MemoryStorage("explored", name)
        self.life = 0
        self.left = left
        self.payload: bytes | None = None
        """What it has ordered as soon as it leads; proposed once."""
        self._own = NOOP
        self.votes: frozenset[PValue] = frozenset()
        """Every value that was ever durable here, with its ballot."""
        self.undurable: list[Write] = []
        self.lost_after: int | None = None
        """So many of the undurable writes come before the first that the next crash loses; None: it loses none."""
        self._fetches: list[ServeFetch] = []
        self._start()
        self.begin()

    def begin(self) -> None:
        """Forget what the last input did."""
        self.sent: list[Envelope] = []
        self.marks: set[str] = set()
        self.recorded = False
        """This input made a write that a crash can lose."""
        self.losing = False
        """The writes of this input are lost with the next crash."""

    # Inputs

    def receive(self, sender: NodeId, message: AnyMessage) -> None:
        """A message arrives."""
        self._mark_arrival(message)
        prefix = len(self.prefix)
        self.node.receive(sender, message)
        self._settle()
        if isinstance(message, Learn) and len(self.prefix) > prefix:
            self.marks.add("values fetched")

    def happen(self, what: Input) -> None:
        """Anything else."""
        before = self.node.replica._candidacies
        match what:
            case Input.SYNC:
                self._sync()
            case Input.CRASH:
                if self.lost_after is not None or any(write.votes for write in self.undurable):
                    self.marks.add("crashes that lose votes")
                self._start()
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
        if what is not Input.CRASH:
            self.left.runs -= self.node.replica._candidacies - before

    def propose(self, payload: bytes) -> None:
        """Have `payload` ordered when it leads."""
        self.payload = payload
        self._own = pack([payload])
        self._settle()

    def inputs(self) -> Iterable[Input]:
        """What can happen now. Time passes for all machines at once."""
        replica = self.node.replica
        if self.undurable and self.lost_after != 0:
            yield Input.SYNC
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
    def prefix(self) -> list[bytes]:
        """The values that it holds to be chosen."""
        return self._chosen

    @property
    def ballot(self) -> Ballot | None:
        """The ballot under which it runs or leads."""
        replica = self.node.replica
        if replica._leader is not None:
            return replica._leader.ballot
        candidate = replica._candidate
        return candidate.campaign.ballot if candidate is not None and candidate.campaign is not None else None

    @property
    def leads(self) -> bool:
        """Phase 1 is over."""
        return self.node.replica.role is Role.LEADER

    @property
    def holds_lease(self) -> bool:
        """It may answer reads alone."""
        return self.node.replica.lease_holds(self.clock())

    # What it does

    def _start(self) -> None:
        self.life += 1
        if self.life > 1:
            self.storage = self.storage.reopen()
        self.undurable, self.lost_after, self._fetches = [], None, []
        self.node = Node(
            self.storage,
            MEMBERSHIP,
            self.scope.options,
            clock=self.clock,
            rng=Scripted(self.life),
            request_timeout_ms=1000,
            max_waiting=1,
            on_batch=uncounted,
        )
        durable = self.storage.recovered()
        require(self.node.replica._acceptor.promised == durable.promised, "a restart forgets the promise")
        self._chosen = [pvalue.value for pvalue in self.storage.read(1, durable.chosen, 1 << 20)]

    def _run(self) -> None:
        replica = self.node.replica
        before = replica._candidacies
        while replica._candidacies == before:
            self.clock.now = max(self.clock.now, replica.next_deadline())
            self.node.tick()
            self._settle()

    def _settle(self) -> None:
        while True:
            self._unfinished = False
            self._step()
            if self.undurable and self.lost_after != 0 and not self._has_own_vote(self.undurable[0]):
                self._sync()
            elif self._fetches and not self.undurable and self.lost_after is None:
                fetch = self._fetches.pop(0)
                page = self.scope.options.page_bytes
                self.node.fetched(fetch.to, self.storage.read(fetch.from_slot, fetch.upto, page))
            elif not self._unfinished:
                return

    def _step(self) -> None:
        if self.payload is not None and self.leads:
            self.node.replica.propose((self.payload,))
            self.payload = None
        ready = self.node.step()
        self._send(ready.messages)
        if ready.write is not None:
            self._hand_over_to_disk(ready.write)
        self._chosen += [value for _, value in ready.chosen]
        self._fetches += [fetch for fetch in ready.fetches if fetch not in self._fetches]

    def _hand_over_to_disk(self, write: Write) -> None:
        if has_records(write):
            self.recorded = True
            if self.losing and self.lost_after is None:
                self.lost_after = len(self.undurable)
        if self.lost_after is None and (has_records(write) or write not in self.undurable):
            self.undurable.append(write)

    def _sync(self) -> None:
        write = self.undurable.pop(0)
        if self.lost_after is not None:
            self.lost_after -= 1
        self.storage.write([write])
        self.votes |= set(write.accepts)
        for vote in write.votes:
            self._check_backed(vote.message)
        self.node.durable([write])

    def _has_own_vote(self, write: Write) -> bool:
        for vote in write.votes:
            beyond = isinstance(vote.message, Accepted) and vote.message.slot > self.scope.slots
            if vote.to == self.name and not beyond:
                return True
        return False

    def _send(self, envelopes: list[Envelope]) -> None:
        accepts = [envelope.message for envelope in envelopes if isinstance(envelope.message, Accept)]
        for envelope in envelopes:
            message = envelope.message
            self._check_backed(message)
            if isinstance(message, Canvass) and self.scope.timeless:
                self.node.receive(envelope.to, CanvassReply(message.nonce, True, ZERO, 0))
                self._unfinished = True
            elif not isinstance(message, self.scope.lost) and not self._beyond(message):
                self.sent.append(envelope)
                self._mark_departure(message, accepts)

    def _beyond(self, message: AnyMessage) -> bool:
        return isinstance(message, Accept) and message.slot > self.scope.slots

    def _check_backed(self, message: AnyMessage) -> None:
        """A vote rests on what is durable."""
        if isinstance(message, Promise | Prepare | Accepted):
            promised = self.storage._marks.promised
            if message.ballot > promised:
                raise Violation(f"{type(message).__name__} of {message.ballot} leaves {self.name}, which has {promised}")
        if isinstance(message, Accepted) and not any(
            pvalue.slot == message.slot and pvalue.ballot == message.ballot for pvalue in self.votes
        ):
            raise Violation(f"a vote of {self.name} for slot {message.slot} is not durable")

    # What is worth counting

    def _mark_departure(self, message: AnyMessage, accepts: list[Accept]) -> None:
        match message:
            case Accept(slot=slot, value=value):
                if value == NOOP and any(other.slot > slot and other.value not in {NOOP, self._own} for other in accepts):
                    self.marks.add("gaps filled with no-ops")
                elif value not in {NOOP, self._own}:
                    self.marks.add("values of earlier ballots adopted")
            case Reject(floor=floor) if floor:
                self.marks.add("candidates told to fetch")
            case Reject(ballot=ballot, promised=promised) if promised <= ballot:
                self.marks.add("candidates refused by a grant")
            case CanvassReply(willing=False):
                self.marks.add("candidates refused by a grant")

    def _mark_arrival(self, message: AnyMessage) -> None:
        replica = self.node.replica
        match message:
            case Release(ballot=ballot):
                grant = replica._acceptor.grant
                if grant._ballot > ballot and self.clock() < grant.until:
                    self.marks.add("late releases")
            case HeartbeatAck(ballot=ballot, nonce=nonce):
                leader = replica._leader
                if leader is not None and leader.ballot == ballot and nonce + 1 < leader.lease.next_nonce:
                    self.marks.add("late acknowledgements")

    # As a value

    def frozen(self) -> Hashable:
        """Equal for machines that behave alike from now on."""
        skipped = IGNORED | TIMES if self.scope.timeless else IGNORED
        state = (self.clock, self.storage, self.node, self.undurable, self.lost_after, self._fetches)
        done = (self.life, self.left.runs, self.left.hand_overs, self.left.steps)
        return (self.name, done, self.payload, self.votes, _frozen(state, skipped, set()))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"scope", "sent", "marks"}}


def pickled(machine: Machine) -> bytes:
    """A copy to be woken with `unpickled`."""
    fields = vars(machine.node)
    kept = {name: fields.pop(name) for name in STATELESS}
    data = pickle.dumps(machine, pickle.HIGHEST_PROTOCOL)
    fields.update(kept)
    return data


def unpickled(data: bytes, like: Machine) -> Machine:
    """The machine as it was, with nothing done since. What carries no state comes from `like`."""
    machine: Machine = pickle.loads(data)  # noqa: S301 - made by `pickled` in this process
    machine.scope = like.scope
    vars(machine.node).update({name: vars(like.node)[name] for name in STATELESS})
    machine.begin()
    return machine


def _frozen(value: Any, skipped: set[str], seen: set[int]) -> Hashable:
    match value:
        case None | int() | str() | bytes() | Message() | Envelope() | ServeFetch() | ReadReady():
            return value
        case tuple() | list() | deque():
            return tuple(_frozen(item, skipped, seen) for item in value)
        case set() | frozenset():
            return frozenset(value)
        case dict():
            return frozenset((key, _frozen(item, skipped, seen)) for key, item in value.items())
    if isinstance(value, Options | Membership | Random) or callable(value) and not isinstance(value, Clock):
        return None
    if id(value) in seen:
        return type(value).__name__
    seen.add(id(value))
    fields = value.__struct_fields__ if isinstance(value, msgspec.Struct) else vars(value)
    return tuple(_frozen(getattr(value, name), skipped, seen) for name in fields if name not in skipped)
