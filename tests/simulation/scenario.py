"""What happens in a simulated run: its options, its faults and when they strike, all drawn from one seed.

A run is hostile for `faulty_ms`, then calm: no more faults, the replicas of the core up and connected. In a run for
liveness the core is a bare majority and the others stay broken in the worst ways; in a run for safety it is everybody.
"""

from enum import StrEnum
from random import Random

import msgspec

from kvstore.replica.snapshot_receive import RETRY_MS
from paxos.options import Options
from paxos.types import MS, NodeId, Slot, Time


class Faults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may go wrong at any moment. Times are milliseconds of simulated time."""

    loss: float = 0.0
    """Probability that a message is lost."""
    copies: float = 0.0
    """Probability that a message arrives twice."""
    stray: float = 0.0
    """Probability that a message takes up to a second."""
    replay: float = 0.0
    """Probability that a message arrives once more up to ten seconds later: an old frame."""
    delay_ms: tuple[float, float] = (0.2, 1.0)
    """Shortest and longest time on the way; whatever differs by chance is reordered."""
    turn_ms: tuple[float, float] = (0.0, 0.2)
    """Length of a turn of the event loop: what arrives within one is handed to the node before it takes a step."""
    fsync_ms: tuple[float, float] = (0.1, 0.5)
    """Shortest and longest time for a group of writes to become durable."""
    slow_fsync: float = 0.0
    """Probability that a sync takes up to three leases."""
    crash_in_step: float = 0.0
    """Probability that the process dies within a step: after any number of its messages, before or after its write was
    handed over."""
    drift_ppm: int = 0
    """Rates of two clocks differ by at most this."""


class StrikeKind(StrEnum):
    """Ways in which a strike hits its victims."""

    CRASH = "crash"
    """They die, and start again when it is over."""
    STORM = "storm"
    """They die again and again, and live for some milliseconds in between."""
    STOP = "stop"
    """They shut down cleanly: they hand over, live on for a moment, and start again when it is over."""
    PAUSE = "pause"
    """They stop as by SIGSTOP: what arrives waits."""
    CUT = "cut"
    """Nothing passes between them and the others."""
    MUTE = "mute"
    """Nothing passes from them to the others."""
    DEAF = "deaf"
    """Nothing passes from the others to them."""
    RING = "ring"
    """Everybody can only send to the next in a circle."""
    RELAY = "relay"
    """The leader is cut off, and often dies of its next write; whoever was hit so before comes back, with what it
    accepted and nobody else may have. It lasts until the next one."""
    ECHO = "echo"
    """The last frames of every kind arrive once more, from this life of a process and from earlier ones, long over or
    not. It takes no time."""
    DISK = "disk"
    """Every sync fails, as on a broken disk: they die of the first, start again, and die of the next."""
    FULL = "full"
    """Their disks are full: they live on their reserves, which are large enough for what they take."""


EVERYWHERE = frozenset({StrikeKind.RING, StrikeKind.ECHO})
"""These have no victims."""

SQLITE = 0.25
"""Probability that a run has the production storage, which takes longer."""
RARITIES = ("bursts", "repeats", "former leaders", "ambushes")
"""What `tests.simulation.rarities` can make likely."""
DRILLS = (
    "divergence",
    "forgotten votes",
    "founding",
    "other states",
    "founding again",
    "peace",
    "new voters",
    "witness",
    "replacement",
)
"""Short runs about one rare thing, see `tests.simulation.drills`. A seed has one of them."""
LEADER = "leader"
"""Stands for whoever leads at that moment; nobody when nobody does."""


class Strike(msgspec.Struct, frozen=True, array_like=True):
    """One fault: when it begins, how it hits whom, and how long it lasts. Several may overlap."""

    at_ms: int
    kind: StrikeKind
    victims: tuple[str, ...]
    length_ms: int


class Scenario(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run, whole: the same scenario gives the same trace, byte for byte, in every process."""

    seed: int
    nodes: int = 3
    spares: int = 0
    """Replicas that are no members at first."""
    changes_ms: int = 0
    """About how often somebody changes the members; 0 for never."""
    restored: Slot = 0
    """Slot of the restored state with which the cluster begins; 0 for one that begins without data."""
    arrive_ms: int = 0
    """The processes start for the first time within this time."""
    core: tuple[NodeId, ...] = ()
    """Who is up and connected once the faults are over; empty for everybody."""
    clients: int = 4
    tenants: int = 0
    """Clients that hold leases."""
    probers: int = 0
    """Clients whose every answer is compared with the log, and that ask for all that there is."""
    watches: int = 0
    """Clients that watch."""
    bulk: int = 0
    """Keys that a prober puts or deletes in one revision at times; 0 for never."""
    keys: int = 3
    think_ms: int = 30
    """Longest pause of a client between two operations."""
    faulty_ms: int = 8000
    request_timeout_ms: int = 2500
    options: dict[str, int] = {}
    """Settings of the protocol that differ from their defaults."""
    applied_records: int = 0
    """Records that a step of a node applies, about; 0 for the default, which no entry exceeds."""
    kept_answers: int = 0
    """Numbers of a lease whose answers are kept; 0 for the default, which no run exceeds."""
    sqlite: bool = False
    """The disks have the production storage on them."""
    limits: dict[str, int] = {}
    """How much of the past is kept, where that differs from the defaults."""
    faults: Faults = Faults()
    strikes: tuple[Strike, ...] = ()
    rarities: tuple[str, ...] = ()
    """Actors that make rare events likely, see `tests.simulation.rarities`."""
    drill: str = ""
    """The drill that comes before the run, with the same seed."""

    @property
    def names(self) -> tuple[NodeId, ...]:
        """The first members."""
        return names_of(self.nodes)

    @property
    def everybody(self) -> tuple[NodeId, ...]:
        """All replicas."""
        return names_of(self.nodes + self.spares)

    @property
    def lease_ms(self) -> int:
        """Of this run's options."""
        return Options(**self.options).lease_ms

    @property
    def patience_ms(self) -> int:
        """A client waits for so long: a replica answers earlier, unless it dies."""
        return self.request_timeout_ms + 300

    @property
    def recovery_ms(self) -> int:
        """Every replica of the core takes writes and reads within this time after the last fault: a request is lost in
        a shutdown that is under way, one times out, a restarted acceptor waits for a lease, candidacies collide, a peer
        that is asked for its state does not hear."""
        return 1000 + 2 * self.patience_ms + 12 * self.lease_ms + 3 * RETRY_MS

    @property
    def slow_fsync_ms(self) -> int:
        """The slowest sync, which keeps a leader busy until it steps down (rule 19)."""
        return 3 * self.lease_ms

    @property
    def quiet_ms(self) -> int:
        """A reason of before to depose the leader has passed after this time: its slow sync has, or a leader that is
        not of the core has died and was succeeded."""
        return self.slow_fsync_ms + (500 + 4 * self.lease_ms if self.core else 0)

    @property
    def settle_ms(self) -> int:
        """Without faults and requests, every replica has the same state within this time, and nobody runs in it."""
        return 500 + 3 * self.lease_ms

    def rng(self, stream: str) -> Random:
        """Chance for one purpose: what is taken from one stream changes nothing in another."""
        return Random(f"{self.seed}/{stream}")


def names_of(nodes: int) -> tuple[NodeId, ...]:
    """What so many replicas are called."""
    return tuple(f"n{number}" for number in range(1, nodes + 1))


def draw(seed: int) -> Scenario:
    """Everything from a quiet network to a hostile one. One seed in three is a run for liveness."""
    rng = Random(f"{seed}/scenario")
    nodes = 5 if seed % 4 == 0 else 3
    options = _draw_options(rng)
    think_ms, faulty_ms = rng.choice(((3, 1000), (20, 3000), (100, 10_000)))
    scenario = Scenario(
        seed=seed,
        nodes=nodes,
        core=_draw_core(rng, nodes) if seed % 3 == 0 else (),
        keys=rng.choice((1, 3)),
        think_ms=think_ms,
        faulty_ms=faulty_ms,
        request_timeout_ms=rng.choice((200, 2500)),
        options=options,
        limits=_draw_limits(Random(f"{seed}/limits")),
        faults=_draw_faults(rng),
    )
    scenario = msgspec.structs.replace(scenario, arrive_ms=Random(f"{seed}/arrive").choice((0, 0, 20, faulty_ms // 2)))
    scenario = msgspec.structs.replace(scenario, tenants=Random(f"{seed}/tenants").choice((0, 2, 4)))
    scenario = msgspec.structs.replace(scenario, restored=Random(f"{seed}/restored").choice((0, 0, 5, 40)))
    steps = Random(f"{seed}/steps").choice((0, 1, 3))
    scenario = msgspec.structs.replace(scenario, applied_records=steps)
    scenario = msgspec.structs.replace(scenario, kept_answers=Random(f"{seed}/answers").choice((0, 2, 5)))
    scenario = msgspec.structs.replace(scenario, **_draw_observers(Random(f"{seed}/observers"), steps))
    scenario = msgspec.structs.replace(scenario, sqlite=Random(f"{seed}/storage").random() < SQLITE)
    scenario = msgspec.structs.replace(scenario, drill=DRILLS[seed % len(DRILLS)])
    chances = Random(f"{seed}/rarities")
    scenario = msgspec.structs.replace(scenario, rarities=tuple(name for name in RARITIES if chances.random() < 0.5))
    if "ambushes" in scenario.rarities and chances.random() < 0.4:
        return _with_long_leases(scenario)
    changes = {} if scenario.core else _draw_changes(Random(f"{seed}/members"))
    return msgspec.structs.replace(scenario, strikes=_draw_strikes(rng, scenario), **changes)


def _draw_core(rng: Random, nodes: int) -> tuple[NodeId, ...]:
    return tuple(sorted(rng.sample(names_of(nodes), nodes // 2 + 1)))


def _draw_options(rng: Random) -> dict[str, int]:
    """The defaults, or short leases and small windows, pages and tails, where rare orders of events are frequent."""
    if rng.random() < 0.4:
        return {}
    lease_ms = rng.choice((60, 150, 500))
    return {
        "lease_ms": lease_ms,
        "heartbeat_ms": lease_ms // 5,
        "election_jitter_ms": rng.choice((2, lease_ms // 4)),
        "stall_ms": 2 * lease_ms,
        "window": rng.choice((1, 4, 16)),
        "max_batch_bytes": rng.choice((64, 1 << 20)),
        "bulk_bytes": 100,
        "page_bytes": rng.choice((60, 1 << 20)),
        "recent_slots": rng.choice((1, 8, 1024)),
        "min_batch_bytes": rng.choice((1, 1 << 16)),
    }


def _draw_observers(rng: Random, steps: int) -> dict[str, int]:
    """A revision of many keys takes many short steps, so that it has fewer where steps are short."""
    bulk = rng.choice((0, 0, 0, 20 if steps else 600, 30 if steps else 1200))
    if bulk:
        return {"probers": 1, "watches": rng.choice((3, 6)), "bulk": bulk}
    return {"probers": rng.choice((0, 1, 2)), "watches": rng.choice((0, 2, 4))}


def _with_long_leases(scenario: Scenario) -> Scenario:
    """Leases so long, clocks so bad, and messages so fast, that two clocks come apart within a lease by much more than
    an election takes. Nothing else disturbs the waits. The checks of client leases know only better clocks."""
    leases = {"lease_ms": 2000, "heartbeat_ms": 400, "election_jitter_ms": 2, "stall_ms": 4000}
    leases["clock_drift_ppm"] = 100_000
    faults = msgspec.structs.replace(
        scenario.faults, delay_ms=(0.2, 1.0), turn_ms=(0.0, 0.2), fsync_ms=(0.1, 0.5), drift_ppm=99_000
    )
    return msgspec.structs.replace(
        scenario, options=scenario.options | leases, faults=faults, faulty_ms=10_000, think_ms=100, tenants=0
    )


def _draw_changes(rng: Random) -> dict[str, int]:
    """In one run of two the members stay who they are."""
    if rng.random() < 0.5:
        return {}
    return {"spares": rng.choice((0, 1, 2)), "changes_ms": rng.choice((30, 200, 800))}


def _draw_limits(rng: Random) -> dict[str, int]:
    """The defaults, which no run exceeds, or a log so short that whoever lags a little has to be sent the state."""
    if rng.random() < 0.3:
        return {}
    return {
        "log_slots": rng.choice((0, 3, 20, 100)),
        "history_revisions": rng.choice((0, 3, 50)),
        "history_age_ms": rng.choice((0, 300, 10**6)),
    }


def _draw_faults(rng: Random) -> Faults:
    def sometimes(*values: float) -> float:
        return rng.choice(values) if rng.random() < 0.6 else 0.0

    return Faults(
        loss=sometimes(0.01, 0.05, 0.2),
        copies=sometimes(0.01, 0.1),
        stray=sometimes(0.01, 0.05),
        replay=sometimes(0.005, 0.02),
        delay_ms=rng.choice(((0.2, 1.0), (0.2, 20.0), (1.0, 60.0))),
        turn_ms=rng.choice(((0.0, 0.2), (0.0, 3.0), (0.0, 20.0))),
        fsync_ms=rng.choice(((0.1, 0.5), (1.0, 20.0))),
        slow_fsync=sometimes(0.005),
        crash_in_step=sometimes(0.0005, 0.003),
        drift_ppm=rng.choice((0, 5000, 9900)),
    )


def _draw_strikes(rng: Random, scenario: Scenario) -> tuple[Strike, ...]:
    """None, a few, or so many that the next one comes before the last is over."""
    every_ms = rng.choice((0.0, 0.02, 0.05, 0.2)) * scenario.faulty_ms
    kinds = rng.sample(list(StrikeKind), rng.randint(1, len(StrikeKind)))
    longest_ms = rng.choice((300, 1500))
    strikes: list[Strike] = []
    at_ms = 0.0
    while every_ms:
        at_ms += rng.uniform(0.2, 1.8) * every_ms
        if at_ms >= scenario.faulty_ms:
            break
        kind = rng.choice(kinds)
        length_ms = int(rng.choice((rng.uniform(1, 30), rng.uniform(50, longest_ms))))
        strikes.append(Strike(int(at_ms), kind, _draw_victims(rng, kind, scenario.names), length_ms))
    return tuple(strikes)


def _draw_victims(rng: Random, kind: StrikeKind, names: tuple[NodeId, ...]) -> tuple[str, ...]:
    if kind in EVERYWHERE:
        return ()
    if kind is StrikeKind.RELAY:
        return (LEADER,)
    chance = rng.random()
    if chance < 0.3:
        return (LEADER,)
    if chance < 0.8:
        return (rng.choice(names),)
    if chance < 0.95 or kind in {StrikeKind.CUT, StrikeKind.MUTE, StrikeKind.DEAF}:
        return tuple(sorted(rng.sample(names, len(names) // 2)))
    return names


def moment(at_ms: float) -> Time:
    """Simulated time in nanoseconds."""
    return int(at_ms * MS)
