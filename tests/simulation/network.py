"""The simulated network: it loses, copies, delays and reorders frames, brings old ones again, and can be cut."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from paxos import wire
from paxos.messages import AnyMessage
from paxos.types import GrantTerms, NodeId
from tests.simulation.scenario import Faults, Scenario, StrikeKind
from tests.simulation.world import World

STRAY_MS = (0.2, 1000.0)
REPLAY_MS = (0.2, 10_000.0)
ECHO_MS = (0.0, 50.0)
RECENT = 8
"""Frames of each kind that an echo brings again."""

Link = tuple[NodeId, NodeId]
Hold = Callable[[NodeId, NodeId, AnyMessage, Callable[[], None]], bool]
"""Gets a message with its sender, its receiver and a function that lets it arrive. It returns True to take the message
from the network: then the message is lost, unless the function is called later."""


class Shown(NamedTuple):
    """What the ends of a link have shown each other in the handshake."""

    sender: int
    """Incarnation of the data of the sender."""
    receiver: int
    terms: GrantTerms
    """Settings of the lease, the same at both ends."""


class Network:
    """Frames on their way. What becomes of one is drawn when it is sent. A cut link loses what is sent meanwhile, and
    half of what is on its way when it is cut."""

    def __init__(
        self, world: World, scenario: Scenario, deliver: Callable[[NodeId, NodeId, bytes, Shown], None]
    ) -> None:
        self._world = world
        self._deliver = deliver
        self._rngs = {name: scenario.rng(f"network/{name}") for name in scenario.everybody}
        self._cut: Counter[Link] = Counter()
        self._recent: dict[str, deque[Callable[[], None]]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._echo_rng = scenario.rng("network/echo")
        self.holds: list[Hold] = []
        """Who may take messages from the network."""
        self.count: Counter[str] = Counter()
        """What became of frames."""

    def send(self, sender: NodeId, to: NodeId, message: AnyMessage, faults: Faults, shown: Shown) -> None:
        """Take a message, and do with it what `faults` allow. `shown`: in the handshake."""
        rng, count = self._rngs[sender], self.count
        count["sent"] += 1
        if self._cut[sender, to] > 0:
            count["cut off"] += 1
            return
        frame = wire.encode(message)
        if self.holds and self._is_held(sender, to, message, partial(self._deliver, sender, to, frame, shown)):
            count["held"] += 1
            return
        arrive = self._arrival(sender, to, frame, shown)
        self._recent[type(message).__name__].append(arrive)
        if rng.random() < faults.replay:
            count["replayed"] += 1
            self._world.between_ms(rng, REPLAY_MS, arrive)
        if rng.random() < faults.loss:
            count["lost"] += 1
            return
        if rng.random() < faults.copies:
            count["copied"] += 1
            self._world.between_ms(rng, faults.delay_ms, arrive)
        stray = rng.random() < faults.stray
        count["strayed"] += stray
        self._world.between_ms(rng, STRAY_MS if stray else faults.delay_ms, arrive)

    def echo(self) -> None:
        """Bring the last frames of every kind again."""
        for kind in sorted(self._recent):
            for arrive in self._recent[kind]:
                self.count["echoed"] += 1
                self._world.between_ms(self._echo_rng, ECHO_MS, arrive)

    def cut(self, links: Sequence[Link]) -> None:
        """Let nothing pass on these links."""
        self._cut.update(links)

    def mend(self, links: Sequence[Link]) -> None:
        """Undo one `cut` of these links; others may overlap."""
        self._cut.subtract(links)

    def mend_all(self) -> None:
        """Let everything pass."""
        self._cut.clear()

    def _is_held(self, sender: NodeId, to: NodeId, message: AnyMessage, arrive: Callable[[], None]) -> bool:
        held = [hold(sender, to, message, arrive) for hold in self.holds]  # each of them sees it
        return any(held)

    def _arrival(self, sender: NodeId, to: NodeId, frame: bytes, shown: Shown) -> Callable[[], None]:
        def arrive() -> None:
            if self._cut[sender, to] > 0 and self._rngs[sender].random() < 0.5:
                self.count["cut off"] += 1
            else:
                self._deliver(sender, to, frame, shown)

        return arrive


def links(kind: StrikeKind, victims: Sequence[NodeId], names: Sequence[NodeId]) -> list[Link]:
    """The links that a strike of this kind cuts."""
    if kind is StrikeKind.RING:
        following = dict(zip(names, [*names[1:], names[0]], strict=True))
        return [(a, b) for a in names for b in names if b not in (a, following[a])]
    outward = [(a, b) for a in victims for b in names if b not in victims]
    inward = [(b, a) for a, b in outward]
    return {StrikeKind.CUT: outward + inward, StrikeKind.MUTE: outward, StrikeKind.DEAF: inward}.get(kind, [])
