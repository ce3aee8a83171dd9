"""What happens in a simulated run: its options, its faults and when they strike, all drawn from one seed.

A run is hostile for `faulty_ms`, then calm: no more faults, the replicas of the core up and connected. In a run for
liveness the core is a bare majority and the others stay broken in the worst ways; in a run for safety it is everybody.
"""

from enum import StrEnum
from random import Random
from typing import Any

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
    rate_change_ms: float = 0.0
    """About how often the rate of a clock changes, within this bound; 0 for never."""
    pause_in_call: float = 0.0
    """Probability that a process is paused just before or just after its node reads the clock, in the midst of a call
    or between a call and what follows from it."""


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
    FREEZE = "freeze"
    """Their clocks stand still. Half of the victims are paused as well, as by a suspend that the clock does not count.
    No bound on the drift allows this: see `Scenario.clocks_keep_the_bound`."""
    SETTINGS = "settings"
    """The operator changes the settings of the lease, once a leader holds one: all others restart, at once or in turn,
    often several times, with other settings. The leader follows when it is over."""


EVERYWHERE = frozenset({StrikeKind.RING, StrikeKind.ECHO, StrikeKind.SETTINGS})
"""These have no victims."""
OF_THEIR_OWN = frozenset({StrikeKind.FREEZE, StrikeKind.SETTINGS})
"""These are drawn by themselves: they need a run that is prepared for them."""

LONG_DRIFT_PPM = 100_000
"""Bound on the drift of the clocks of long leases."""
CALM: dict[str, Any] = {"delay_ms": (0.2, 1.0), "turn_ms": (0.0, 0.2), "fsync_ms": (0.1, 0.5)}
"""Faults of links, turns and disks that are fast."""
SQLITE = 0.25
"""Probability that a run has the production storage, which takes longer."""
RARITIES = ("bursts", "repeats", "former leaders", "partial entries", "bound leases")
"""What `tests.simulation.rarities` can make likely; each run has some of them."""
DISRUPTIONS = {
    "": 21,
    "ambushes": 25,
    "late indexes": 8,
    "late acks": 8,
    "lost votes": 10,
    "high promises": 8,
    "snapshot relays": 20,
}
"""The same, but a cluster would come to nothing with two of them at once: how often a run has each."""
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
    "frozen leader",
    "reads",
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
    mixed: tuple[dict[str, int], ...] = ()
    """Options in which replicas differ from `options`: each start of a process draws one of these."""
    mixed_limits: tuple[dict[str, int], ...] = ()
    """The same for `limits`."""
    terms: tuple[dict[str, int], ...] = ()
    """Settings of the lease, besides those in `options`, to which strikes of the kind SETTINGS change."""
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
        """The longest of this run's leases."""
        return max(Options(**self.options | terms).lease_ms for terms in ({}, *self.terms))

    @property
    def clocks_keep_the_bound(self) -> bool:
        """True unless clocks stand still. A frozen clock makes the lease of its leader too long: its reads under the
        lease may be old then. All else holds: the log, promises, writes, quorum reads, and client leases, which only
        live longer."""
        return all(strike.kind is not StrikeKind.FREEZE for strike in self.strikes)

    @property
    def every_limits(self) -> tuple[dict[str, int], ...]:
        """What replicas may have as `limits`."""
        return self.mixed_limits or (self.limits,)

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
    if scenario.bulk and Random(f"{seed}/short history").random() < 0.5:  # watchers are still inside what is compacted
        scenario = msgspec.structs.replace(scenario, limits={"history_revisions": 0, "log_slots": 100})
    scenario = msgspec.structs.replace(scenario, sqlite=Random(f"{seed}/storage").random() < SQLITE)
    scenario = msgspec.structs.replace(scenario, drill=DRILLS[seed % len(DRILLS)])
    chances = Random(f"{seed}/rarities")
    scenario = msgspec.structs.replace(scenario, rarities=tuple(name for name in RARITIES if chances.random() < 0.5))
    scenario = _draw_clocks(Random(f"{seed}/clocks"), scenario)
    (disruption,) = chances.choices(list(DISRUPTIONS), list(DISRUPTIONS.values()))
    if disruption:
        scenario = msgspec.structs.replace(scenario, rarities=(*scenario.rarities, disruption))
    if disruption == "ambushes" and chances.random() < 0.6:
        return _with_long_leases(scenario)
    if disruption not in {"", "ambushes"} and chances.random() < 0.7:
        return _undisturbed(scenario, disruption, chances)
    changes = {} if scenario.core else _draw_changes(Random(f"{seed}/members"))
    scenario = msgspec.structs.replace(scenario, strikes=_draw_strikes(rng, scenario), **changes)
    return _draw_frozen(Random(f"{seed}/frozen"), _draw_settings(Random(f"{seed}/settings"), scenario))


def _draw_core(rng: Random, nodes: int) -> tuple[NodeId, ...]:
    return tuple(sorted(rng.sample(names_of(nodes), nodes // 2 + 1)))


def _draw_options(rng: Random) -> dict[str, int]:
    """The defaults, or short leases and small windows, pages and tails, where rare orders of events are frequent."""
    if rng.random() < 0.4:
        return {}
    lease_ms = rng.choice((60, 150, 500))
    return _lease_of(lease_ms) | {
        "election_jitter_ms": rng.choice((2, lease_ms // 4)),
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


def _lease_of(lease_ms: int) -> dict[str, int]:
    """Return the options that go with a lease of this length."""
    return {"lease_ms": lease_ms, "heartbeat_ms": lease_ms // 5, "stall_ms": 2 * lease_ms}


def _with_long_leases(scenario: Scenario) -> Scenario:
    """Leases so long, clocks so bad, and messages so fast, that two clocks come apart within a lease by much more than
    an election takes. Nothing else disturbs the waits."""
    leases = _lease_of(2000) | {"election_jitter_ms": 2, "clock_drift_ppm": LONG_DRIFT_PPM}
    faults = msgspec.structs.replace(scenario.faults, **CALM, drift_ppm=LONG_DRIFT_PPM - 1000)
    return msgspec.structs.replace(
        scenario, options=scenario.options | leases, faults=faults, faulty_ms=10_000, think_ms=100
    )


def _draw_clocks(rng: Random, scenario: Scenario) -> Scenario:
    """Long leases with clocks that come apart, rates that change, and pauses in the midst of calls: each in some runs,
    none in many."""
    if rng.random() < 0.08:
        scenario = _with_long_leases(scenario)
    faults = msgspec.structs.replace(
        scenario.faults,
        rate_change_ms=rng.choice((0.0, 0.0, 50.0, 500.0)),
        pause_in_call=rng.choice((0.0, 0.0, 0.25, 1.0, 4.0)) / max(500, scenario.lease_ms),
    )
    return msgspec.structs.replace(scenario, faults=faults)


def _draw_frozen(rng: Random, scenario: Scenario) -> Scenario:
    """In one run of eight clocks stand still at times."""
    if rng.random() >= 0.125:
        return scenario
    every_ms = rng.choice((0.1, 0.3)) * scenario.faulty_ms
    return _struck(rng, scenario, StrikeKind.FREEZE, every_ms, (scenario.lease_ms // 5, 4 * scenario.lease_ms))


def _draw_settings(rng: Random, scenario: Scenario) -> Scenario:
    """Replicas with the same settings, with different ones, or with leases whose length and drift bound change."""
    if rng.random() < 0.4:
        return scenario
    mixed = tuple(_draw_mixed(rng) for _ in range(3))
    limits = tuple(_draw_limits(rng) for _ in range(2)) if rng.random() < 0.5 else ()
    scenario = msgspec.structs.replace(scenario, mixed=mixed, mixed_limits=limits)
    if rng.random() < 0.5:
        return scenario
    return _with_changing_leases(rng, scenario)


def _with_changing_leases(rng: Random, scenario: Scenario) -> Scenario:
    """Strikes that change the settings of the lease, with time between them in which a leader is elected. In most of
    these runs nothing else keeps leaders away."""
    options = Options(**scenario.options)
    calm = rng.random() < 0.6
    lengths_ms = [rng.choice((500, 1000)), 50] if calm else [options.lease_ms * rng.choice((1, 2)), 60]
    terms = []
    for lease_ms in lengths_ms:
        drift_ppm = rng.choice((options.clock_drift_ppm, 2 * options.clock_drift_ppm, LONG_DRIFT_PPM))
        terms.append(_lease_of(lease_ms) | {"election_jitter_ms": 2, "clock_drift_ppm": drift_ppm})
    scenario = msgspec.structs.replace(scenario, terms=tuple(terms))
    if calm:
        faults = msgspec.structs.replace(scenario.faults, **CALM, loss=0.0, crash_in_step=0.0)
        scenario = msgspec.structs.replace(scenario, faults=faults, strikes=(), spares=0, changes_ms=0)
    longest_ms = scenario.lease_ms
    faulty_ms = max(scenario.faulty_ms, 12 * longest_ms)
    think_ms = max(scenario.think_ms, faulty_ms // 100)  # a long run of hasty clients takes long
    scenario = msgspec.structs.replace(scenario, faulty_ms=faulty_ms, think_ms=think_ms)
    return _struck(rng, scenario, StrikeKind.SETTINGS, 3 * longest_ms, (0.5 * longest_ms, longest_ms))


def _draw_mixed(rng: Random) -> dict[str, int]:
    """Options that need not be the same on all replicas."""
    values = {
        "window": (1, 2, 4, 16),
        "max_batch_bytes": (64, 1000, 1 << 20),
        "bulk_bytes": (100, 1 << 18),
        "page_bytes": (60, 500, 1 << 20),
        "recent_slots": (1, 8, 1024),
        "min_batch_bytes": (1, 1 << 16),
        "retransmit_ms": (50, 200),
    }
    return {name: rng.choice(choices) for name, choices in values.items() if rng.random() < 0.5}


def _struck(
    rng: Random, scenario: Scenario, kind: StrikeKind, every_ms: float, length_ms: tuple[float, float]
) -> Scenario:
    """Add strikes of a kind to those of the scenario, about one in `every_ms`."""
    strikes = list(scenario.strikes)
    at_ms = rng.uniform(0, every_ms)
    while at_ms < scenario.faulty_ms:
        victims = _draw_victims(rng, kind, scenario.names)
        strikes.append(Strike(int(at_ms), kind, victims, int(rng.uniform(*length_ms))))
        at_ms += rng.uniform(0.2, 1.8) * every_ms
    return msgspec.structs.replace(scenario, strikes=tuple(sorted(strikes, key=lambda strike: strike.at_ms)))


def _undisturbed(scenario: Scenario, disruption: str, rng: Random) -> Scenario:
    """Short leases, a fast network and much time, so that an actor whose plan takes several steps comes to the end of
    it. For snapshots: a log so short that a replica that lags needs one, a history so short that each source has
    compacted another part of it, and pages so small that a snapshot has many."""
    options = {"lease_ms": 150, "heartbeat_ms": 30, "election_jitter_ms": 30, "stall_ms": 300}
    limits = scenario.limits
    if disruption == "snapshot relays":
        revisions = rng.choice((3, 10, 10, 50))
        limits = {"log_slots": rng.choice((0, 3)), "history_revisions": revisions, "history_age_ms": 300}
        options["page_bytes"] = rng.choice((60, 200))
    return msgspec.structs.replace(
        scenario,
        options=scenario.options | options,
        limits=limits,
        faults=Faults(drift_ppm=scenario.faults.drift_ppm, copies=0.1, replay=0.01),
        faulty_ms=6000 if disruption == "snapshot relays" else 4000,
        think_ms=40,
        arrive_ms=0,
        bulk=0,
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
    possible = [kind for kind in StrikeKind if kind not in OF_THEIR_OWN]
    kinds = rng.sample(possible, rng.randint(1, len(possible)))
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
