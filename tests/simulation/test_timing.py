"""Time and settings in the simulation: pauses within calls, clocks whose rates change or that stand still, and settings
that differ or change."""

from collections.abc import Callable
from random import Random
from unittest.mock import patch

from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from kvstore.replica.grant_record import GrantRecord
from paxos.types import MS, GrantTerms, Time
from storage.base import StateWrite, Storage
from tests.simulation.clock import SimulatedClock
from tests.simulation.run import Run
from tests.simulation.scenario import Faults, Scenario, Strike, StrikeKind, draw
from tests.simulation.story import Story
from tests.simulation.world import World

LONG, SHORT = {"lease_ms": 1000, "heartbeat_ms": 200, "stall_ms": 2000}, {"lease_ms": 50, "heartbeat_ms": 10}


def test_every_class_of_timing_is_drawn_for_some_seeds_and_for_others_not() -> None:
    drawn = [draw(seed) for seed in range(60)]
    has: list[Callable[[Scenario], object]] = [
        lambda scenario: scenario.faults.pause_in_call,
        lambda scenario: scenario.faults.rate_change_ms,
        lambda scenario: scenario.mixed,
        lambda scenario: scenario.mixed_limits,
        lambda scenario: scenario.terms,
        lambda scenario: not scenario.clocks_keep_the_bound,
        lambda scenario: scenario.options.get("clock_drift_ppm") and scenario.strikes,
        lambda scenario: scenario.options.get("clock_drift_ppm") and scenario.tenants,
    ]
    for number, happens in enumerate(has):
        assert 0 < sum(bool(happens(scenario)) for scenario in drawn) < len(drawn), f"class {number}"


def test_a_run_counts_what_happens_to_time_and_settings() -> None:
    strikes = (Strike(600, StrikeKind.SETTINGS, (), 500), Strike(900, StrikeKind.FREEZE, ("n1", "n2"), 300))
    scenario = Scenario(
        seed=1,
        tenants=2,
        probers=1,
        faulty_ms=3000,
        faults=Faults(pause_in_call=0.002, rate_change_ms=50, drift_ppm=9900),
        mixed=({"window": 1}, {"window": 16}),
        terms=(SHORT,),
        strikes=strikes,
    )
    summary = Run(scenario).run()
    assert {"pauses within a call", "changes of the rate of a clock", "starts with other settings"} <= set(
        summary.timing
    )
    assert set(summary.struck) == {StrikeKind.SETTINGS, StrikeKind.FREEZE}


def test_a_process_may_die_while_it_is_paused_within_a_call() -> None:
    """Nothing follows from its call."""
    strikes = tuple(Strike(at_ms, StrikeKind.STORM, ("n1", "n2", "n3"), 100) for at_ms in range(300, 2000, 300))
    scenario = Scenario(seed=2, faulty_ms=2000, faults=Faults(pause_in_call=0.02), strikes=strikes)
    summary = Run(scenario).run()
    assert summary.timing["deaths in such a pause"] > 0


def test_time_passes_within_an_event_up_to_the_end_of_the_run_that_it_is_part_of() -> None:
    world = World()
    seen: list[tuple[str, Time]] = []

    def outer() -> None:
        seen.append(("before", world.now))
        world.run(world.now + 10)
        seen.append(("after", world.now))

    world.at(5, outer)
    world.at(9, lambda: seen.append(("other", world.now)))
    world.at(12, outer)
    world.run(20)
    assert seen == [("before", 5), ("other", 9), ("before", 12), ("after", 15), ("after", 15)]
    assert world.now == 20


def test_a_clock_goes_on_from_where_it_was_when_its_rate_changes_and_when_it_thaws() -> None:
    world, rng = World(), Random(1)
    clock = SimulatedClock(world, Faults(drift_ppm=100_000), rng)
    shown = clock.now()
    for _ in range(20):
        clock.change_rate(rng)
        assert clock.now() == shown
        when = clock.when(shown + 1000 * MS)
        world.run(when)
        assert 0 <= clock.now() - shown - 1000 * MS < 10
        assert abs(when - (world.now - when) - world.now) <= 50_000 * MS
        shown = clock.now()
    clock.freeze()
    clock.freeze()
    world.run(world.now + 5 * MS)
    clock.thaw(7 * MS, all_over=False)
    assert (clock.now(), clock.is_frozen) == (shown, True)
    clock.thaw(7 * MS, all_over=True)
    assert (clock.now(), clock.is_frozen, clock.wrong_until) == (shown, False, world.now + 7 * MS)
    world.run(world.now + 5 * MS)
    assert clock.now() > shown


def test_a_leader_whose_clock_stands_still_reads_what_is_old_under_its_lease_and_nothing_by_a_quorum() -> None:
    """The assumption on clocks carries weight, and quorum reads do without it."""
    story = Story()
    story.run_ms(1000)
    old = story.leader()
    others = [name for name in story.machines if name != old.name]
    story.put(old.name, b"k", b"before")
    story.run_ms(50)
    old.freeze()
    story.cluster.network.cut([(a, b) for name in others for a, b in ((old.name, name), (name, old.name))])
    story.run_ms(2000)
    new = story.cluster.leader()
    assert new is not None
    assert new is not old
    story.put(new.name, b"k", b"after")
    story.run_ms(50)
    (stale,) = story.get(old.name, b"k")
    assert isinstance(stale, ReadAnswer)
    assert stale.record is not None
    assert stale.record.value == b"before"
    assert not old.has_right_clock
    assert not story.get(old.name, b"k", Consistency.QUORUM)


def with_changed_leases(seed: int) -> Scenario:
    """Long leases are followed by short ones, again and again."""
    strikes = tuple(Strike(at_ms, StrikeKind.SETTINGS, (), 700) for at_ms in range(1500, 12_000, 3000))
    return Scenario(seed=seed, options=LONG, terms=(SHORT,), strikes=strikes, faulty_ms=12_000)


def found(seeds: range) -> str:
    """Return the first violation, empty if there is none."""
    for seed in seeds:
        try:
            Run(with_changed_leases(seed)).run()
        except AssertionError as error:
            return str(error)
    return ""


def test_leases_that_become_shorter_are_safe() -> None:
    assert not found(range(3))


def test_a_replica_that_forgets_a_longer_lease_is_found() -> None:
    """Rule 17."""

    def forgetful(record: GrantRecord, storage: Storage, own: GrantTerms, now: Time) -> None:
        storage.write([StateWrite(granted=own)])
        record.longest, record._own, record._ends = own, own, None

    with patch.object(GrantRecord, "__init__", forgetful):
        assert " a lease " in found(range(5))


def test_a_replica_that_stores_a_shorter_lease_too_early_is_found() -> None:
    """Rule 17."""

    def hasty(record: GrantRecord, checkpoint: StateWrite | None, now: Time) -> StateWrite | None:
        checkpoint = checkpoint or StateWrite()
        checkpoint.granted = record._own
        return checkpoint

    with patch.object(GrantRecord, "along", hasty):
        assert " a lease " in found(range(5))


def test_replicas_whose_leases_differ_have_no_link() -> None:
    """As in the handshake: safety rests on equal settings of the lease."""
    story = Story()
    story.run_ms(1000)
    machine = story.machines["n3"]
    machine.settings = SHORT
    machine.crash()
    machine.start()
    before = story.sent("HeartbeatAck")
    story.run_ms(300)
    assert machine.node is not None
    assert not machine.node.stats.received
    assert story.sent("HeartbeatAck") > before, "the others go on"
