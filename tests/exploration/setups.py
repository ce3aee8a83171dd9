"""The small clusters that are explored, each from a state that its script leads to."""

from collections.abc import Callable, Collection

import msgspec

from paxos.messages import Accept, Chosen, Fetch, Heartbeat, HeartbeatAck, Message, Reject, ReleaseLease
from paxos.options import Options
from paxos.types import NodeId
from tests.exploration.explorer import ExplorationResult, Explorer
from tests.exploration.machine import CONFIGURATION, ExploredMachine, Input, Leaseless, Left, Scope
from tests.exploration.space import WRONG, ExploredLinks, Letter


class Rehearsal:
    """Machines that follow a script, before the exploration begins."""

    def __init__(self, scope: Scope, left: dict[NodeId, Left], rates_ms: dict[NodeId, int]) -> None:
        self.machines = {
            name: ExploredMachine(name, scope, left.get(name, Left()), rates_ms.get(name, 0))
            for name in CONFIGURATION.voters
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

    def settle(self, among: Collection[NodeId] = CONFIGURATION.voters, lost: tuple[type[Message], ...] = ()) -> None:
        """Deliver each message once, in order, except what is `lost` and what goes to or comes from others."""
        while True:
            if self._delivered == len(self.letters):
                return
            letter = self.letters[self._delivered]
            self._delivered += 1
            if letter.sender in among and letter.to in among and not isinstance(letter.message, lost):
                self.machines[letter.to].receive(letter.sender, letter.message)
                self._collect(letter.to)

    def _collect(self, name: NodeId) -> None:
        machine = self.machines[name]
        for envelope in machine.sent:
            self.letters.append(Letter(name, envelope.to, envelope.message))
        machine.begin()


LIMIT, QUICK_LIMIT = 1_000_000, 20_000
"""States that an exploration visits at most. The first is above what any set-up has, the second keeps a run short."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, what may happen to it, and what must have been seen for the exploration to be worth anything."""

    name: str
    shows: str
    scope: Scope
    links: ExploredLinks
    left: dict[NodeId, Left]
    crashes: int
    script: Callable[[Rehearsal], None]
    goals: tuple[str, ...]
    rates_ms: dict[NodeId, int] = {}

    def explore(self, limit: int) -> ExplorationResult:
        """Follow the script, then every schedule, up to `limit` states."""
        left = {name: msgspec.structs.replace(left) for name, left in self.left.items()}
        rehearsal = Rehearsal(self.scope, left, self.rates_ms)
        try:
            self.script(rehearsal)
        except WRONG as wrong:
            return ExplorationResult(violation=f"  => before the exploration began: {wrong}")
        letters = list(dict.fromkeys(rehearsal.letters))
        return Explorer(list(rehearsal.machines.values()), letters, self.links, self.crashes).run(limit)

    def missed(self, found: ExplorationResult) -> list[str]:
        """The goals that were not reached."""
        return [goal for goal in self.goals if not found.goals[goal]]

    def bounds(self) -> str:
        """What may happen, in words."""
        bounds = [f"crashes {self.crashes}", f"slots {self.links.slots}"]
        for name, left in self.left.items():
            bounds += [f"{name} runs {left.runs}"] if left.runs else []
            bounds += [f"{name} hands over {left.hand_overs}"] if left.hand_overs else []
        steps = max(left.steps for left in self.left.values())
        return ", ".join([*bounds, f"steps of time {steps}"] if steps else bounds)


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
    """n1 and n2 chose three slots and have only the last at hand; n3 heard of nothing."""
    cluster.machines["n1"].left.runs += 1
    cluster.happen("n1", Input.RUN)
    for payload in (b"x", b"y"):
        cluster.propose("n1", payload)
        cluster.settle(["n1", "n2"])


def led(cluster: Rehearsal) -> None:
    """n1 leads, everybody knows it, and its first lease has just begun; nothing is chosen."""
    cluster.machines["n1"].left.runs += 1
    cluster.happen("n1", Input.TICK)
    cluster.settle(lost=(Accept,))


def handed_over(cluster: Rehearsal) -> None:
    """n1 led and handed over to n3, which leads now; n1 was started again."""
    led(cluster)
    cluster.machines["n3"].left.runs += 1
    cluster.happen("n1", Input.HAND_OVER)
    cluster.settle(lost=(Accept,))
    cluster.happen("n3", Input.TICK)
    cluster.settle(lost=(Accept,))
    cluster.happen("n1", Input.CRASH)


LEASES: tuple[type[Message], ...] = (Heartbeat, HeartbeatAck, ReleaseLease)

ONE_SLOT = Setup(
    name="one slot",
    shows="two candidates for a slot that a third node accepted a value for",
    scope=Scope(Leaseless(window=1, stall_ms=1), timeless=True),
    links=ExploredLinks(2, (*LEASES, Fetch, Chosen, Reject)),
    left={"n1": Left(runs=2), "n2": Left(runs=2)},
    crashes=0,
    script=contested,
    goals=("ballots compete", "values chosen", "values of earlier ballots adopted"),
)
CRASHES = msgspec.structs.replace(
    ONE_SLOT,
    name="one slot, crashes",
    links=ExploredLinks(2, (*LEASES, Fetch, Chosen)),
    left={"n1": Left(runs=1), "n2": Left(runs=1)},
    crashes=1,
    goals=(*ONE_SLOT.goals, "crashes that lose votes"),
)
TWO_SLOTS = Setup(
    name="two slots",
    shows="two candidates, and two slots under way at once",
    scope=Scope(Leaseless(window=2, stall_ms=1), timeless=True),
    links=ExploredLinks(2, (*LEASES, Reject, Fetch)),
    left={"n1": Left(runs=1), "n2": Left(runs=1)},
    crashes=1,
    script=blank,
    goals=("ballots compete", "values chosen", "values of earlier ballots adopted", "gaps filled with no-ops"),
)
LOG_CUT = Setup(
    name="log cut",
    shows="a candidate that lacks what the others cut from their logs",
    scope=Scope(Leaseless(window=1, stall_ms=1, recent_slots=1), timeless=True),
    links=ExploredLinks(3, (*LEASES, Chosen)),
    left={"n3": Left(runs=2)},
    crashes=1,
    script=cut,
    goals=("candidates told to fetch", "values fetched", "crashes that lose votes"),
)
TIMED = Options(
    heartbeat_ms=2,
    lease_ms=8,
    clock_drift_ppm=500_000,
    election_jitter_ms=0,
    retransmit_ms=1000,
    stall_ms=1000,
    window=1,
)
"""Rates of 1 and 3 are as far apart as half and one and a half: then a lease of 4 ms on the slow clock and a grant of
12 ms on the fast one end at the same moment, and a lease or a grant of 8 ms would be wrong by a whole step."""

LEASE = Setup(
    name="lease",
    shows="a leader with a slow clock, acceptors with fast ones that forget their grants",
    scope=Scope(TIMED, timeless=False),
    links=ExploredLinks(0, (Reject, Fetch, Chosen)),
    rates_ms={"n1": 1, "n2": 3, "n3": 3},
    left={"n1": Left(steps=6), "n2": Left(runs=1, steps=6), "n3": Left(steps=6)},
    crashes=1,
    script=led,
    goals=("leases held", "candidates refused by a grant", "late acknowledgements", "leases handed over"),
)
HAND_OVER = Setup(
    name="lease hand-over",
    shows="a lease given up, and taken over by a leader with a slow clock",
    scope=Scope(TIMED, timeless=False),
    links=ExploredLinks(0, (Reject, Fetch, Chosen)),
    rates_ms={"n1": 3, "n2": 3, "n3": 1},
    left={"n1": Left(steps=4, hand_overs=1), "n2": Left(runs=1, steps=4), "n3": Left(runs=1, steps=4)},
    crashes=0,
    script=led,
    goals=("leases held", "leases handed over"),
)
LATE_RELEASE = msgspec.structs.replace(
    HAND_OVER,
    name="late release",
    shows="copies of a release that come when the next leader has its lease",
    left={"n1": Left(runs=1, steps=4), "n2": Left(steps=4), "n3": Left(steps=4)},
    script=handed_over,
    goals=("leases held", "late releases", "candidates refused by a grant"),
)
ALL = (ONE_SLOT, CRASHES, TWO_SLOTS, LOG_CUT, LEASE, HAND_OVER, LATE_RELEASE)

QUICK = (
    msgspec.structs.replace(ONE_SLOT, left={"n1": Left(runs=2), "n2": Left(runs=1)}),
    CRASHES,
    msgspec.structs.replace(TWO_SLOTS, crashes=0),
    LOG_CUT,
    msgspec.structs.replace(
        LEASE,
        left={"n1": Left(steps=5), "n2": Left(runs=1, steps=5), "n3": Left(steps=5)},
        goals=("leases held", "candidates refused by a grant", "late acknowledgements"),
    ),
    HAND_OVER,
    LATE_RELEASE,
)
"""The same with narrower bounds, so that the few states of a quick run go deep."""
