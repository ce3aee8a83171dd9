"""The states of single machines and the messages, each known by a small integer, and what an input makes of a machine.

An input and a machine always give the same, so each pair is run once, by the production code, and looked up from then
on. A set of messages is the bits of an integer.
"""

from collections import Counter
from collections.abc import Hashable, Iterator

import msgspec

from paxos.errors import InvariantError
from paxos.messages import Accept, Accepted, AnyMessage, Heartbeat, HeartbeatAck, Message, Prepare, Promise, Reject
from paxos.types import Ballot, NodeId, PValue, Slot
from storage.base import StorageError
from tests.exploration.identity import identity, pickled, unpickled
from tests.exploration.machine import ExploredMachine, Input, Violation

CONTROLS = {control: -1 - number for number, control in enumerate(Input)}
"""Codes of inputs: messages from 0 on, all others below."""

WRONG = (InvariantError, StorageError, Violation)
"""What ends a machine although nothing went wrong around it."""

LOSING = 1 << 16
"""Added to the code of an input whose write is going to be lost."""


class StepOutcome(msgspec.Struct, frozen=True, gc=False):
    """What an input makes of a machine. `sends` is a set of messages; `writes`: something that a crash can lose."""

    after: int
    sends: int
    writes: bool
    hard_state: tuple[str, ...]


class LocalState(msgspec.Struct):
    """One state of one machine. Of the messages whose effect on it is `known`, `active` ones change it, and `replies`
    only make it send something."""

    data: bytes
    name: NodeId
    votes: int
    prefix: tuple[bytes, ...]
    ballot: Ballot | None
    leads: bool
    holds_lease: bool
    losing: bool
    runs: int
    """Candidacies that are left to it."""
    promised: Ballot
    """As it is on its disk."""
    controls: tuple[int, ...]
    known: int = 0
    active: int = 0
    replies: list[tuple[int, StepOutcome]] = []
    outcomes: dict[int, StepOutcome] = {}
    judged: int = 0
    """The messages that the following three tell something about, see `Space.spent`: answers to this machine that come
    too late, questions to it below its promise, and questions of its own that it gave up."""
    spent: int = 0
    outbid: int = 0
    abandoned: int = 0


class Broken(Exception):
    """What must never happen has happened; `step`: the input that did it, with the place of its machine, when it was an
    input to one machine and not what all machines are together."""

    def __init__(self, what: str, step: tuple[int, int] | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.step = step


class Letter(msgspec.Struct, frozen=True):
    """A message on its way; the sender is what the link proves."""

    sender: NodeId
    to: NodeId
    message: AnyMessage


class ExploredLinks(msgspec.Struct, frozen=True):
    """What bounds the messages: `lost` are always lost, and so are Accepts of slots after `slots`."""

    slots: Slot
    lost: tuple[type[Message], ...] = ()

    def carries(self, message: AnyMessage) -> bool:
        """True when it may arrive."""
        return not isinstance(message, self.lost) and not (isinstance(message, Accept) and message.slot > self.slots)


class Space:
    """All that was ever interned."""

    def __init__(self, machines: list[ExploredMachine], letters: list[Letter], links: ExploredLinks) -> None:
        """The state in which everything begins; `letters` are on their way."""
        self._links = links
        self.locals: list[LocalState] = []
        self.letters: list[Letter] = []
        self.votes: list[PValue] = []
        self.names = [machine.name for machine in machines]
        self.inbox = [0] * len(machines)
        """For each machine the messages to it."""
        self.goals: Counter[str] = Counter()
        """What inputs did that is worth counting: those that change nothing once for each machine state."""
        self._like = machines[0]
        self._numbers: dict[Hashable, int] = {}
        self._letter_numbers: dict[Letter, int] = {}
        self._vote_numbers: dict[PValue, int] = {}
        self._spent: dict[tuple[int, ...], tuple[int, int, int]] = {}
        self.begin = tuple(self._intern(machine) for machine in machines)
        self.sent = self._letter_set(letters)

    def outcome(self, place: int, number: int, code: int) -> StepOutcome:
        """What input `code` makes of machine state `number`, which stands at `place`. Raises Broken."""
        local = self.locals[number]
        known = local.outcomes.get(code)
        if known is None:
            known = local.outcomes[code] = self._run(place, local, code)
        return known

    def answer(
        self, machines: tuple[int, ...], sent: int, spent: int
    ) -> tuple[int, list[tuple[int, int, StepOutcome]]]:
        """Deliver whatever only makes its receiver send something, until that brings nothing new but `spent`
        letters: all that is sent then, and what was done for it, as place, code and outcome. Raises Broken."""
        done: list[tuple[int, int, StepOutcome]] = []
        grown = True
        while grown:
            grown = False
            for place, number in enumerate(machines):
                local = self.locals[number]
                unknown = sent & self.inbox[place] & ~local.known
                if unknown:
                    self._learn(place, number, unknown)
                for letter, outcome in local.replies:
                    if sent & letter and outcome.sends & ~spent & ~sent:
                        sent |= outcome.sends & ~spent
                        done.append((place, letter.bit_length() - 1, outcome))
                        grown = True
        return sent, done

    def spent(self, machines: tuple[int, ...]) -> int:
        """Return the letters that can have no effect any more: replies to a settled request, and requests under ballots
        that were given up, outbid and refused by the receiver.

        Promises never go down and rounds are never used again. `ExploredMachine` checks both, and a test compares the
        states that are reached with and without these letters."""
        count = len(self.letters)
        cached = self._spent.get(machines)
        if cached is None or cached[0] != count:
            cached = self._spent[machines] = count, *self._judged(machines, (1 << count) - 1)
        _, spent, abandoned = cached
        for number in machines:
            local = self.locals[number]
            spent |= local.outbid & local.known & ~local.active & abandoned
        return spent

    def _judged(self, machines: tuple[int, ...], letters: int) -> tuple[int, int]:
        spent = abandoned = 0
        for number in machines:
            local = self.locals[number]
            if letters & ~local.judged:
                self._judge(local, letters & ~local.judged)
            spent |= local.spent
            abandoned |= local.abandoned
        return spent, abandoned

    def _judge(self, local: LocalState, letters: int) -> None:
        local.judged |= letters
        for number in members(letters):
            letter, bit = self.letters[number], 1 << number
            ballot = getattr(letter.message, "ballot", None)
            if ballot is None:
                continue
            given_up = ballot.node == local.name and ballot != local.ballot
            match letter.message:
                case Promise() | Accepted() | HeartbeatAck() if letter.to == local.name:
                    if given_up or (local.leads and isinstance(letter.message, Promise)):
                        local.spent |= bit
                case Reject(floor=0) if letter.to == local.name and given_up and not local.runs:
                    local.spent |= bit
                case Prepare() | Accept() | Heartbeat():
                    if letter.to == local.name and ballot < local.promised:
                        local.outbid |= bit
                    if letter.sender == local.name and given_up and (not local.runs or Reject in self._links.lost):
                        local.abandoned |= bit

    def _learn(self, place: int, number: int, letters: int) -> None:
        local = self.locals[number]
        for code in members(letters):
            outcome = self.outcome(place, number, code)
            local.known |= 1 << code
            if outcome.after != number:
                local.active |= 1 << code
                continue
            self.goals.update(outcome.hard_state)
            if outcome.sends:
                local.replies.append((1 << code, outcome))

    def _run(self, place: int, local: LocalState, code: int) -> StepOutcome:
        machine = unpickled(local.data, self._like)
        losing = code >= LOSING // 2
        code = code - LOSING if losing else code
        try:
            if code >= 0:
                letter = self.letters[code]
                machine.receive(letter.sender, letter.message, losing=losing)
            else:
                machine.happen(list(Input)[-1 - code], losing=losing)
        except WRONG as broken:
            raise Broken(f"{local.name} stops: {broken}", (place, code)) from broken
        letters = [Letter(machine.name, envelope.to, envelope.message) for envelope in machine.sent]
        writes, hard_state = machine.wrote, tuple(sorted(machine.hard_state))
        return StepOutcome(self._intern(machine), self._letter_set(letters), writes, hard_state)

    def _intern(self, machine: ExploredMachine) -> int:
        key = identity(machine)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.locals)
            votes = 0
            for pvalue in machine.votes:
                if pvalue not in self._vote_numbers:
                    self._vote_numbers[pvalue] = len(self.votes)
                    self.votes.append(pvalue)
                votes |= 1 << self._vote_numbers[pvalue]
            self.locals.append(
                LocalState(
                    data=b"",
                    name=machine.name,
                    votes=votes,
                    prefix=tuple(machine.prefix),
                    ballot=machine.ballot,
                    leads=machine.leads,
                    holds_lease=machine.holds_lease,
                    losing=machine.losing,
                    runs=machine.left.runs,
                    promised=machine.storage.hard_state.promised,
                    controls=tuple(CONTROLS[control] for control in machine.inputs()),
                )
            )
            self.locals[number].data = pickled(machine)
        return number

    def _letter_set(self, letters: list[Letter]) -> int:
        found = 0
        for letter in letters:
            if not self._links.carries(letter.message):
                continue
            number = self._letter_numbers.get(letter)
            if number is None:
                number = self._letter_numbers[letter] = len(self.letters)
                self.letters.append(letter)
                self.inbox[self.names.index(letter.to)] |= 1 << number
            found |= 1 << number
        return found


def members(numbers: int) -> Iterator[int]:
    """The numbers in a set, ascending."""
    while numbers:
        lowest = numbers & -numbers
        yield lowest.bit_length() - 1
        numbers ^= lowest
