"""The explorer visits what it says, and it finds what is broken on purpose."""

from typing import Any

import pytest
from msgspec.structs import replace

from paxos.acceptor import Acceptor
from paxos.learner import Learner
from paxos.lease import LeaderLease, LeaseGrant
from paxos.messages import Accept, Accepted, Prepare, Promise
from paxos.options import Options
from paxos.outbox import Outbox
from paxos.proposer import Phase1, Pipeline
from paxos.types import MS, ZERO, NodeId, PValue, Slot, Time
from tests.exploration.explorer import Explorer
from tests.exploration.identity import pickled
from tests.exploration.machine import ExploredMachine, Left
from tests.exploration.setups import QUICK, QUICK_LIMIT, Setup
from tests.exploration.space import Space

ONE_SLOT, CRASHES, TWO_SLOTS, LOG_CUT, LEASE, _, LATE_RELEASE = QUICK


def lowest_ballot(self: Phase1, sender: NodeId, message: Promise) -> None:
    for pvalue in message.accepted:
        self._highest.setdefault(pvalue.slot, pvalue)
        self._highest[pvalue.slot] = min(self._highest[pvalue.slot], pvalue, key=lambda held: held.ballot)
    self.awaiting.pop(sender, None)
    self.promised.add(sender)


def accept_anything(self: Acceptor, sender: NodeId, message: Accept) -> bool:
    if message.ballot > self.promised:
        self._promise(message.ballot)
    pvalue = PValue(message.slot, message.ballot, message.value)
    self.log.put(pvalue)
    self._out.accept(pvalue)
    self._out.vote(sender, Accepted(message.ballot, message.slot))
    return True


def count_answers(self: Pipeline, sender: NodeId, slot: Slot) -> bool:
    proposal = self._in_flight.get(slot)
    if proposal is None:
        return False
    proposal.accepted.add(f"{sender}, {len(proposal.accepted)}")
    if len(proposal.accepted) < 2:
        return False
    del self._in_flight[slot]
    return True


def only_others(self: Acceptor, sender: NodeId, message: Prepare, now: Time) -> None:
    ballot = message.ballot
    if ballot < self.promised:
        self._reject(sender, ballot)
        return
    if ballot > self.promised:
        self._promise(ballot)
    held = tuple(self.log._held[slot] for slot in sorted(self.log._held) if slot >= message.from_slot)
    self._out.vote(sender, Promise(ballot, message.from_slot, held, 0))


def any_ballot(self: Learner) -> None:
    while (held := self._log.get(self._log.chosen + 1)) is not None and (
        held.slot in self._decided or held.slot <= self._announced[1]
    ):
        self._decided.discard(held.slot)
        self._out.choose(held.slot, self._log.choose_next().value)


def latest_nonce(self: LeaderLease, sender: NodeId, nonce: int, *, granted: bool) -> None:
    if granted:
        self._granted[sender] = self._sent[self._nonce]
        since = sorted(self._granted.values())[-2:]
        self.until = since[0] + self._length if len(since) == 2 else 0


def without_wait(self: LeaseGrant, options: Options, now: Time, **_: object) -> None:
    self._length = options.lease_for_acceptor
    self._ballot = ZERO
    self.until = now


def release_all(self: LeaseGrant, ballot: object, now: Time) -> None:
    self.until = min(self.until, now)


EXACT = property(lambda options: options.lease_ms * MS)

PLANTED: dict[str, tuple[Setup, type, str, Any]] = {
    "the lowest ballot is adopted": (ONE_SLOT, Phase1, "add_promise", lowest_ballot),
    "a vote does not wait for the disk": (ONE_SLOT, Outbox, "vote", Outbox.send),
    "an accept ignores the promise": (ONE_SLOT, Acceptor, "accept", accept_anything),
    "votes are counted by number": (CRASHES, Pipeline, "accepted", count_answers),
    "chosen speaks for every ballot": (TWO_SLOTS, Learner, "_advance", any_ballot),
    "a cut log is an empty one": (LOG_CUT, Acceptor, "prepare", only_others),
    "a grant refuses nobody": (LEASE, LeaseGrant, "refuses", lambda *_: False),
    "a restart does not wait": (LEASE, LeaseGrant, "__init__", without_wait),
    "the lease is not shortened": (LEASE, Options, "lease_for_leader", property(lambda options: options.lease_ms * MS)),
    "the grant is not lengthened": (
        LEASE,
        Options,
        "lease_for_acceptor",
        property(lambda options: options.lease_ms * MS),
    ),
    "a late answer renews the lease": (LEASE, LeaderLease, "answer", latest_nonce),
    "a release ends every grant": (LATE_RELEASE, LeaseGrant, "release", release_all),
}


SCHEDULE = """\
  1. n1 gives up what it did and runs
       -> n2: Prepare(2.n1, from_slot 2)
       -> n3: Prepare(2.n1, from_slot 2)
  2. n2 receives Prepare(2.n1, from_slot 2) from n1
       -> n1: Promise(2.n1, from_slot 2, accepted [], next_slot 0)
  3. n1 receives Promise(2.n1, from_slot 2, accepted [], next_slot 0) from n2
       -> n2: Accept(2.n1, slot 2, no-op, chosen 1)
       -> n3: Accept(2.n1, slot 2, no-op, chosen 1)
  4. n1 receives Accept(1.n3, slot 2, 'a', chosen 1) from n3
       -> n3: Accepted(1.n3, slot 2)
  5. n2 receives Accept(2.n1, slot 2, no-op, chosen 1) from n1
       -> n1: Accepted(2.n1, slot 2)
  => slot 2 has two chosen values, 'a' under 1.n3 and no-op under 2.n1"""

SMALL = replace(ONE_SLOT, left={"n1": Left(runs=1), "n2": Left(runs=1)})


@pytest.mark.parametrize(
    ("setup", "states", "transitions", "depth"), [(SMALL, 3691, 9435, 16), (LATE_RELEASE, 1061, 4594, 14)]
)
def test_a_small_scope_is_as_large_as_ever_and_holds(setup: Setup, states: int, transitions: int, depth: int) -> None:
    found = setup.explore(QUICK_LIMIT)
    assert not found.violation, found.violation
    assert found.exhausted
    assert not setup.missed(found)
    assert (found.states, found.transitions, found.depth) == (states, transitions, depth)


def test_a_limit_of_states_is_not_taken_for_the_end() -> None:
    found = SMALL.explore(20)
    assert not found.exhausted
    assert SMALL.missed(found) == ["values of earlier ballots adopted"]


def test_what_drops_spent_letters_reaches_the_same_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[int] = []
    look = Explorer._check

    def count(explorer: Explorer, machines: tuple[int, ...]) -> None:
        reached[-1] += 1
        look(explorer, machines)

    monkeypatch.setattr(Explorer, "_check", count)
    for _ in range(2):
        reached.append(0)
        assert SMALL.explore(100_000).exhausted
        monkeypatch.setattr(Space, "spent", lambda *_: 0)
    assert reached[0] == reached[1]


@pytest.mark.parametrize("setup", [CRASHES, TWO_SLOTS, LOG_CUT, LEASE], ids=lambda setup: setup.name)
def test_machines_that_count_as_one_behave_alike(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    others: dict[int, bytes] = {}
    spaces: set[Space] = set()
    intern = Space._intern

    def remember(space: Space, machine: ExploredMachine) -> int:
        number = intern(space, machine)
        data = pickled(machine)
        if data != space.locals[number].data:
            others[number] = data
        spaces.add(space)
        return number

    monkeypatch.setattr(Space, "_intern", remember)
    setup.explore(1_000)
    monkeypatch.undo()
    (space,) = spaces
    assert len(others) > 20
    for number, data in list(others.items())[:50]:
        local = space.locals[number]
        twin = replace(local, data=data)
        for code, outcome in local.outcomes.items():
            again = space._run(space.names.index(local.name), twin, code)
            assert again == outcome, (local.name, code)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, owner, name, wrong = PLANTED[bug]
    monkeypatch.setattr(owner, name, wrong)
    found = setup.explore(QUICK_LIMIT)
    assert "  => " in found.violation, found


def test_a_schedule_is_the_shortest_and_reads_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acceptor, "accept", accept_anything)
    assert ONE_SLOT.explore(10_000).violation == SCHEDULE
