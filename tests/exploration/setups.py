"""The small clusters that are explored, each from a state that its script leads to."""

from collections.abc import Callable, Collection

import msgspec

from paxos.messages import Heartbeat, HeartbeatAck, Message, Release
from paxos.options import Options
from paxos.types import NodeId
from tests.exploration.explorer import Explorer, Found
from tests.exploration.machine import MEMBERSHIP, Input, Leaseless, Left, Machine, Scope
from tests.exploration.space import Letter

LEASES: tuple[type[Message], ...] = (Heartbeat, HeartbeatAck, Release)


class Rehearsal:
    """Machines that follow a script, before the exploration begins."""

    def __init__(self, scope: Scope, left: dict[NodeId, Left], rates_ms: dict[NodeId, int]) -> None:
        self.machines = {
            name: Machine(name, scope, left.get(name, Left()), rates_ms.get(name, 0)) for name in MEMBERSHIP.voters
        }
        self.letters: list[Letter] = []
        self._delivered = 0

    def happen(self, name: NodeId, what: Input) -> None:
        """One input."""
        self.machines[name].happen(what)
        self._collect(name)

    def propose(self, name: NodeId, payload: bytes) -> None:
        """Have `payload` ordered."""
        self.machines[name].propose(payload)
        self._collect(name)

    def settle(self, among: Collection[NodeId] = MEMBERSHIP.voters) -> None:
        """Deliver each message once, in order, and sync every write; what goes to or comes from others is lost."""
        while True:
            for name in among:
                while Input.SYNC in self.machines[name].inputs():
                    self.happen(name, Input.SYNC)
            if self._delivered == len(self.letters):
                return
            letter = self.letters[self._delivered]
            self._delivered += 1
            if letter.sender in among and letter.to in among:
                self.machines[letter.to].receive(letter.sender, letter.message)
                self._collect(letter.to)

    def _collect(self, name: NodeId) -> None:
        machine = self.machines[name]
        for envelope in machine.sent:
            self.letters.append(Letter(name, envelope.to, envelope.message))
        machine.begin()


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, what may happen to it, and what must have been seen for the exploration to be worth anything."""

    name: str
    shows: str
    scope: Scope
    left: dict[NodeId, Left]
    crashes: int
    script: Callable[[Rehearsal], None]
    goals: tuple[str, ...]
    rates_ms: dict[NodeId, int] = {}
    limit: int = 1_000_000

    def explore(self) -> Found:
        """Follow the script, then every schedule."""
        rehearsal = Rehearsal(self.scope, {name: msgspec.structs.replace(left) for name, left in self.left.items()}, self.rates_ms)
        self.script(rehearsal)
        letters = list(dict.fromkeys(rehearsal.letters))
        return Explorer(list(rehearsal.machines.values()), letters, self.crashes).run(self.limit)


def contested(cluster: Rehearsal) -> None:
    """n3 led; its first slot is chosen and known everywhere, and its second is at n3 alone."""
    cluster.machines["n3"].left.runs += 1
    cluster.happen("n3", Input.RUN)
    cluster.settle()
    cluster.propose("n3", b"a")
    cluster.settle(["n3"])


def blank(cluster: Rehearsal) -> None:
    """Nothing has happened; n1 and n2 have something to propose."""
    cluster.propose("n1", b"x")
    cluster.propose("n2", b"y")


def cut(cluster: Rehearsal) -> None:
    """n1 and n2 chose two slots and cut their logs below; n3 heard of nothing."""
    cluster.machines["n1"].left.runs += 1
    cluster.propose("n1", b"x")
    cluster.happen("n1", Input.RUN)
    cluster.settle(["n1", "n2"])


CONSENSUS = Leaseless(window=1, stall_ms=1)
ONE_SLOT = Setup(
    name="one slot",
    shows="two candidates for a slot that a third node accepted a value for",
    scope=Scope(CONSENSUS, True, 2, LEASES),
    left={"n1": Left(runs=1), "n2": Left(runs=1)},
    crashes=1,
    script=contested,
    goals=(),
)
TWO_SLOTS = Setup(
    name="two slots",
    shows="two candidates, a window of two slots",
    scope=Scope(Leaseless(window=2, stall_ms=1), True, 2, LEASES),
    left={"n1": Left(runs=1), "n2": Left(runs=1)},
    crashes=1,
    script=blank,
    goals=(),
)
LOG_CUT = Setup(
    name="log cut",
    shows="a candidate from below the floor of the others",
    scope=Scope(Leaseless(window=2, stall_ms=1, recent_slots=1), True, 2, LEASES),
    left={"n1": Left(runs=1), "n3": Left(runs=2)},
    crashes=1,
    script=cut,
    goals=(),
)
ALL = (ONE_SLOT, TWO_SLOTS, LOG_CUT)
