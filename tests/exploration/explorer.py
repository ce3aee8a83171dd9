"""Breadth-first search over every schedule of a small cluster.

A state is the three machines and the set of messages that were ever sent. A message never leaves that set: it may be
delivered now, later, again, or never, which is delay, reordering, copies and loss at once.

Three reductions lose no violation, because whatever can be delivered out of a set of messages can be delivered out of
a larger one, and because all that is checked is checked on the machines and not on the messages:

- A state is passed over when its machines were already seen with these messages, or more, and as many crashes left.
- A message that changes nothing in its receiver and only makes it answer is delivered at once.
- A message that changes nothing in its receiver any more, whatever happens, is forgotten: see `Space.spent`.

The search goes by depth, so the schedule of a violation is the shortest one: a state is only ever passed over in favour
of one that took no more steps.
"""

import time
from array import array
from collections import Counter

import msgspec

from paxos.types import PValue, Slot
from tests.exploration.machine import ExploredMachine, Input
from tests.exploration.schedule import readable, told
from tests.exploration.space import (
    CONTROLS,
    LOSING,
    Broken,
    ExploredLinks,
    Letter,
    LocalState,
    Space,
    StepOutcome,
    members,
)

CRASH = CONTROLS[Input.CRASH]
PASS = CONTROLS[Input.PASS]
OFFSET = len(Input)
PLACES = 4
"""A step is kept as one integer made of the place of its machine and the code of its input."""


class ExplorationResult(msgspec.Struct):
    """Counts of an exploration. `exhausted` is False when the limit of states or a violation ended it; `goals`
    counts the states and transitions in which something worth exploring happened."""

    states: int = 0
    transitions: int = 0
    machine_states: int = 0
    messages: int = 0
    depth: int = 0
    exhausted: bool = False
    seconds: float = 0.0
    goals: Counter[str] = msgspec.field(default_factory=Counter)
    violation: str = ""
    """What is broken and the steps that lead there, one a line."""


class ExploredState(msgspec.Struct, frozen=True, gc=False):
    """Machines, the messages that were ever sent, and the crashes that are left; all as numbers. `index`: its place in
    the schedule."""

    machines: tuple[int, ...]
    sent: int
    crashes: int
    index: int


class Explorer:
    """One exploration, from one state on."""

    def __init__(
        self, machines: list[ExploredMachine], letters: list[Letter], links: ExploredLinks, crashes: int
    ) -> None:
        """`letters` are on their way; up to `crashes` crashes may happen."""
        self._space = Space(machines, letters, links)
        self.found = ExplorationResult(goals=self._space.goals)
        self._crashes = crashes
        self._seen: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self._next: list[ExploredState] = []
        self._parents = array("l")
        self._steps = array("l")
        self._values: dict[int, dict[Slot, bytes]] = {}
        self._agreed: set[tuple[int, int]] = set()
        self._index = 0
        self._doing = (0, 0)

    def run(self, limit: int) -> ExplorationResult:
        """Visit up to `limit` states."""
        began = time.process_time()
        try:
            self._visit(self._space.begin, self._space.sent, self._crashes)
            while self._next and self.found.states < limit:
                level, self._next = self._next, []
                self.found.depth += 1
                for state in level:
                    if self.found.states >= limit:
                        break
                    self._index = state.index
                    self._expand(state)
            self.found.exhausted = not self._next
        except Broken as broken:
            self.found.violation = self._tell(broken)
        self.found.seconds = time.process_time() - began
        self.found.machine_states = len(self._space.locals)
        self.found.messages = len(self._space.letters)
        return self.found

    def _expand(self, state: ExploredState) -> None:
        space = self._space
        for place, number in enumerate(state.machines):
            local = space.locals[number]
            for code in members(state.sent & space.inbox[place] & local.active):
                self._step(state, place, code)
            for code in local.controls:
                if code == CRASH and not local.losing:
                    if state.crashes:
                        self._step(state, place, code, crashes=1)
                elif code != PASS:
                    self._step(state, place, code)
        if all(PASS in space.locals[number].controls for number in state.machines):
            self._pass(state)

    def _step(self, state: ExploredState, place: int, code: int, crashes: int = 0) -> None:
        """One input to one machine, and the same with the write that it makes lost by a crash to come."""
        machines = state.machines
        self._doing = (place, code)
        outcome = self._space.outcome(place, machines[place], code)
        self._reach(state, place, outcome, crashes)
        if outcome.writes and state.crashes > crashes and not self._space.locals[machines[place]].losing:
            self._doing = (place, code + LOSING)
            outcome = self._space.outcome(place, machines[place], code + LOSING)
            self._reach(state, place, outcome, crashes + 1)

    def _reach(self, state: ExploredState, place: int, outcome: StepOutcome, crashes: int) -> None:
        self._count(outcome)
        machines = state.machines
        self._visit(
            (*machines[:place], outcome.after, *machines[place + 1 :]),
            state.sent | outcome.sends,
            state.crashes - crashes,
        )

    def _pass(self, state: ExploredState) -> None:
        """A step of time for all."""
        self._doing = (len(state.machines), PASS)
        after = [self._space.outcome(place, number, PASS).after for place, number in enumerate(state.machines)]
        self.found.transitions += 1
        self._visit(tuple(after), state.sent, state.crashes)

    def _count(self, outcome: StepOutcome) -> None:
        self.found.transitions += 1
        for mark in outcome.hard_state:
            self.found.goals[mark] += 1

    def _visit(self, machines: tuple[int, ...], sent: int, crashes: int) -> None:
        seen = self._seen.get(machines)
        if seen is None:
            seen = self._seen[machines] = []
            self._check(machines)
        sent &= ~self._space.spent(machines)
        for more, left in seen:
            if crashes <= left and not sent & ~more:
                return
        sent, answers = self._space.answer(machines, sent, self._space.spent(machines))
        for _, _, outcome in answers:
            self._count(outcome)
        sent &= ~self._space.spent(machines)
        for more, left in seen:
            if crashes <= left and not sent & ~more:
                return
        seen.append((sent, crashes))
        self._parents.append(self._index)
        self._steps.append((self._doing[1] + OFFSET) * PLACES + self._doing[0])
        self._next.append(ExploredState(machines, sent, crashes, len(self._parents) - 1))
        self.found.states += 1

    def _check(self, machines: tuple[int, ...]) -> None:
        """What must hold in every state."""
        locals_ = [self._space.locals[number] for number in machines]
        first, second, third = (local.votes for local in locals_)
        votes = (first & second) | (first & third) | (second & third)
        values = self._values.get(votes)
        if values is None:
            values = self._values[votes] = self._chosen(votes)
        for number, local in zip(machines, locals_, strict=True):
            if (votes, number) not in self._agreed:
                self._agree(local, values)
                self._agreed.add((votes, number))
        ballots = {local.ballot for local in locals_ if local.ballot is not None}
        goals = self.found.goals
        if len(ballots) > 1:
            goals["ballots compete"] += 1
        if values:
            goals["values chosen"] += 1
        for local in locals_:
            if local.holds_lease:
                self._lead_alone(local, locals_)

    def _chosen(self, votes: int) -> dict[Slot, bytes]:
        """The values that a majority holds durably under one ballot."""
        values: dict[Slot, PValue] = {}
        for number in members(votes):
            pvalue = self._space.votes[number]
            other = values.setdefault(pvalue.slot, pvalue)
            if other.value != pvalue.value:
                raise Broken(
                    f"slot {pvalue.slot} has two chosen values, "
                    f"{readable(other.value)} under {other.ballot} and {readable(pvalue.value)} under {pvalue.ballot}"
                )
        return {slot: pvalue.value for slot, pvalue in values.items()}

    def _agree(self, local: LocalState, values: dict[Slot, bytes]) -> None:
        for slot, value in enumerate(local.prefix, 1):
            if slot not in values:
                raise Broken(f"{local.name} holds {readable(value)} to be chosen for slot {slot}, and it is not")
            if values[slot] != value:
                raise Broken(f"{local.name} holds {readable(value)} to be chosen for slot {slot}, and it is another")

    def _lead_alone(self, holder: LocalState, all_: list[LocalState]) -> None:
        """While a lease holds nobody else has one, and nobody is elected above it."""
        self.found.goals["leases held"] += 1
        if holder.ballot is not None and holder.ballot.node != self._space.names[0]:
            self.found.goals["leases handed over"] += 1
        for other in all_:
            if other is holder or other.ballot is None or holder.ballot is None:
                continue
            if other.holds_lease:
                raise Broken(f"{holder.name} and {other.name} hold leases at the same time")
            if other.leads and other.ballot > holder.ballot:
                raise Broken(f"{other.name} is elected under {other.ballot} while {holder.name} holds a lease")

    def _tell(self, broken: Broken) -> str:
        steps: list[tuple[int, int]] = []
        index = self._index
        while index:
            code, place = divmod(self._steps[index], PLACES)
            steps.append((place, code - OFFSET))
            index = self._parents[index]
        return told(self._space, [*reversed(steps), self._doing], broken)
